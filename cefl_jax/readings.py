"""What a chunk of rounds came to, as the flat record of a file and the bill of a summary."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from cefl_jax.network.ledger import Ledger
from cefl_jax.network.messages import LINKS, MESSAGES
from cefl_jax.network.schedule import PHASES


def make_record(chunk: Any, rounds: int, done: int, wall_ms: float) -> dict[str, float]:
    """The flat metrics of one evaluation, over the `rounds` rounds since the one before.

    Args:
      chunk: program.Chunk, on the host.
      rounds: of the chunk, in which the run went on.
      done: rounds done.
      wall_ms: of one round.
    """
    metrics = jax.tree.map(lambda leaf: leaf[:rounds], chunk.metrics)
    record = {"round": done, "train/loss": _mean_of_known(metrics.train_loss)}
    for name, scores in chunk.scores.items():
        record[f"test/{name}accuracy"] = scores.accuracy
        record[f"test/{name}loss"] = scores.loss
    if metrics.clusters is not None:
        clusters = metrics.clusters
        record |= {
            "cluster/count": clusters.count.mean(),
            "cluster/kl_mean": clusters.kl_mean.mean(),
            "cluster/kl_max": clusters.kl_max.max(),
            "cluster/size_min": clusters.size_min.min(),
            "cluster/size_max": clusters.size_max.max(),
        }
    if metrics.offload_cost is not None:
        record["offload/cost"] = metrics.offload_cost.mean()
    ledger = chunk.ledger
    sent = dict(zip(LINKS, ledger.link_bytes.sum(1), strict=True))
    record |= {
        "sim/time_s": ledger.phase_s.sum(),
        "sim/energy_j": ledger.energy_j.sum(),
        "comm/client_up_bytes": sent["client_up"],
        "comm/client_down_bytes": sent["client_down"],
        "comm/edge_cloud_bytes": sent["edge_up"] + sent["edge_down"],
        "wall/round_ms": np.float64(wall_ms),
    }
    if metrics.sampled is not None:
        record |= {
            "clients/sampled": metrics.sampled.mean(),
            "clients/finished": metrics.finished.mean(),
            "clients/counted": metrics.counted.mean(),
            "clients/empty_rounds": (metrics.counted == 0).sum(),
        }
    if metrics.skipped is not None:
        record["clients/skipped"] = metrics.skipped.sum()
    record |= chunk.measures
    return {key: value if isinstance(value, int) else value.item() for key, value in record.items()}


def itemize(ledger: Ledger, device_names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A run's cost in detail: seconds by phase, bytes by link and message, joules by device."""
    sent = zip(LINKS, ledger.link_bytes.tolist(), strict=True)
    return {
        "seconds": dict(zip(PHASES, ledger.phase_s.tolist(), strict=True)),
        "bytes": {
            link: {m: count for m, count in zip(MESSAGES, counts, strict=True) if count}
            for link, counts in sent
        },
        "joules": dict(zip(device_names, ledger.energy_j.tolist(), strict=True)),
    }


def _mean_of_known(losses):
    """Mean over the rounds in which somebody trained; not a number when there is none."""
    known = losses[~np.isnan(losses)]
    return known.mean() if known.size else np.float32(np.nan)
