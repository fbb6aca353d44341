"""Pictures of who holds which labels, each partition once."""

import contextlib
import hashlib
import io
from typing import NamedTuple

import numpy as np

from cefl_jax.data import sources
from cefl_jax.data.partition_file import from_file
from cefl_jax.plots.curves import draw_partition
from cefl_jax.reports.groups import Section
from cefl_jax.safe_read import InputFileError, read_bytes

MOST_BYTES = 2**28  # of a partition
MOST_PNG_BYTES = 2**24
PNG = b"\x89PNG\r\n\x1a\n"


class Picture(NamedTuple):
    """One partition."""

    seed: int
    png: bytes | None
    reason: str = ""  # why there is no picture


def gather(section: Section, most: int) -> tuple[list[Picture], int]:
    """Pictures of the partitions of a section, in the order of their seeds.

    A run's own `partition.png` is taken where some run with the partition has one; otherwise it is
    drawn from `partition.json` and the labels of the dataset.

    Args:
      section: Section.
      most: pictures wanted.
    Returns:
      At most that many; and the number of further partitions.
    """
    holders: dict = {}
    for group in section.groups:
        for run in group.runs:
            holders.setdefault(_fingerprint(run.folder), []).append(run)
    holders.pop(None, None)
    in_order = sorted(holders.values(), key=lambda runs: str(runs[0].seed))
    return [_picture(runs) for runs in in_order[:most]], max(len(in_order) - most, 0)


def _fingerprint(folder):
    """What is equal where two partitions are; None for a folder that says nothing of its own."""
    for name in ("partition.json", "partition.png"):
        with contextlib.suppress(InputFileError):
            return hashlib.sha256(read_bytes(folder / name, MOST_BYTES)).digest()
    return None


def _picture(runs):
    for run in runs:
        with contextlib.suppress(InputFileError):
            content = read_bytes(run.folder / "partition.png", MOST_PNG_BYTES)
            if content.startswith(PNG):
                return Picture(run.seed, content)
    try:
        return Picture(runs[0].seed, _draw(runs[0]))
    except (ValueError, OSError, ImportError) as error:
        return Picture(runs[0].seed, None, str(error))


def _draw(run):
    dataset = _load(run.config)
    labels = dataset.train_labels
    parts = from_file(run.folder / "partition.json", len(labels))
    counts = [np.bincount(labels[part], minlength=dataset.num_classes) for part in parts]
    picture = io.BytesIO()
    draw_partition(picture, np.array(counts), [*map(str, dataset.classes)])
    return picture.getvalue()


def _load(config):
    dataset = sources.load(config["data.name"], config.get("data.path"))
    share = config.get("data.validation_share", 0.0)
    return sources.hold_out(dataset, share, config["seed"])
