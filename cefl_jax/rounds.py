"""The rounds of one run as the host sees them: by the chunk written down and saved."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from cefl_jax import config
from cefl_jax.network.ledger import Ledger
from cefl_jax.network.messages import LINKS, MESSAGES
from cefl_jax.network.schedule import PHASES
from cefl_jax.plots.timeline import describe_round
from cefl_jax.program import Chunk
from cefl_jax.runtime import distributed
from cefl_jax.runtime.nonfinite import NotFinite, find_fault
from cefl_jax.runtime.preemption import Preempted
from cefl_jax.runtime.summary import summarize

Leaves: TypeAlias = Callable[[], dict[str, np.ndarray]]


class Rounds:
    """The files of a run between its first round, or a checkpoint, and its last.

    Args:
      setup: Setup.
      workdir: workdir.Workdir.
      display: console.Display.
      past: Checkpoint from which it goes on, or None.
    """

    def __init__(self, setup, workdir, display, past):
        self.setup, self.workdir, self.display = setup, workdir, display
        self.done = self.saved = past.round if past else 0
        self.records = workdir.read_metrics() if past else []
        self.facts: dict[str, Any] = {"wall_s": 0.0, "compile_s": 0.0, "resumed_at": []}
        if past:
            earlier = {name: past.facts[name] for name in self.facts}
            self.facts = earlier | {"resumed_at": [*earlier["resumed_at"], past.round]}
        self.hashes = setup.hashes()
        self.began = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether the last round is done."""
        return self.done == self.setup.spec.train.rounds

    def compiled(self, seconds: float) -> None:
        """Notes the seconds of compilation."""
        self.facts["compile_s"] += seconds
        if self.done:
            self.display.note(f"going on after round {self.done}")

    def record(self, chunk: Chunk, leaves: Leaves, seconds: float) -> None:
        """Writes down one chunk of rounds.

        Args:
          chunk: program.Chunk, on the host.
          leaves: returns those of the state after it, as `checkpoint.flatten`.
          seconds: that it took.
        Raises:
          NotFinite: when a loss or a parameter was not; the state is in `checkpoints/` to look at.
        """
        spec = self.setup.spec
        rounds = min(spec.run.eval_every, spec.train.rounds - self.done)
        self.done, self.chunk = self.done + rounds, chunk
        record = make_record(chunk, rounds, self.done, 1000.0 * seconds / rounds)
        self.records.append(record)
        self.display.update(record)
        self.workdir.append_metrics(record)
        self.workdir.set_status("running", self.done)
        fault = find_fault(chunk.metrics.finite, chunk.scores, rounds)
        if fault is not None:
            self.workdir.checkpoints.keep_failed(self.done, leaves(), self._facts())
            raise NotFinite(fault, self.done - rounds)

    def pause(self, leaves: Leaves, watch: Any) -> None:
        """Between two chunks: saves when it is time, and leaves when a signal has asked for it.

        Args:
          leaves: as of `record`.
          watch: preemption.PreemptionGuard, or what does as it does.
        Raises:
          Preempted: after the state was saved; on all processes after the same round.
        """
        if self.over:
            return
        asked = distributed.any_of(watch.asked)
        if asked or self.is_save_due():
            self.save(leaves)
        if asked:
            self.workdir.checkpoints.wait()
            signal = watch.asked or "a signal to another process"
            raise Preempted(f"{signal}, after round {self.done}")

    def is_save_due(self) -> bool:
        """Returns whether `run.checkpoint_every` rounds are done since the last save."""
        every = self.setup.spec.run.checkpoint_every
        return bool(every) and self.done // every > self.saved // every

    def save(self, leaves: Leaves) -> None:
        """Saves the state and all that is needed to go on from it."""
        self.workdir.save(self.done, leaves(), self._facts())
        self.saved = self.done

    def finish(self, leaves: Leaves) -> dict[str, Any]:
        """Writes the summary, which it returns, and the last round; then the last checkpoint."""
        setup = self.setup
        devices = setup.mesh.mesh.devices.flat
        facts = self._facts()
        summary = summarize(
            self.records,
            wall_s=facts["wall_s"],
            compile_s=facts["compile_s"],
            resumed_at=facts["resumed_at"],
            device_kind=devices[0].device_kind,
            device_count=setup.mesh.size,
            **self.hashes,
            network=itemize(self.chunk.ledger, setup.device_names),
        )
        self.workdir.write_summary(summary)
        if self.chunk.round_trace is not None:
            names, deadline_s = setup.device_names, setup.spec.network.deadline_s
            timeline = describe_round(
                self.chunk.round_trace,
                setup.network,
                setup.planner.work,
                names,
                self.done,
                deadline_s,
            )
            self.workdir.write_timeline(timeline)
        self.save(leaves)
        self.workdir.checkpoints.wait()
        return summary

    def _facts(self):
        """What a checkpoint says of the run besides its state."""
        score = self.records[-1].get("test/accuracy", math.nan)
        return self.facts | {
            "settings": config.to_dict(self.setup.spec),
            **self.hashes,
            "round": self.done,
            "score": score if math.isfinite(score) else None,
            "wall_s": self.facts["wall_s"] + time.monotonic() - self.began,
        }


def make_record(chunk: Any, rounds: int, done: int, wall_ms: float) -> dict[str, float]:
    """Returns the flat metrics of one evaluation, over the `rounds` rounds since the one before.

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
