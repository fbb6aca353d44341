"""Which settings may differ when resuming a run."""

from pathlib import Path
from typing import Any

from flax import traverse_util
from ml_collections import config_dict

from cefl_jax.config.fields import SettingError, find_unread
from cefl_jax.config.load import set_values

FREE = (
    "train.rounds",
    "run.checkpoint_async",
    "run.checkpoint_every",
    "run.checkpoint_keep",
    "run.compile_cache",
    "run.on_nonfinite",
    "run.resume",
    "run.save_trace",
)
CHOSEN = ("run.layout", "run.client_chunk", "run.distill_parts")
"""Chosen automatically, and perhaps otherwise elsewhere."""

MAX_NAMED = 5  # of the differing fields that are named


def check(earlier: dict[str, Any], now: dict[str, Any], path: str | Path) -> None:
    """Refuses to go on with a run whose settings differ in what its numbers depend on.

    The number of devices may change where results do not depend on it. What one of the two runs
    does not read is not compared: then they differ in what decides that, or neither reads it.

    Args:
      earlier: nested dict of the run's settings.
      now: those with which it is to be gone on.
      path: of its folder.
    Raises:
      SettingError: one line with every such field and its values, or the first few of them.
    """
    before, after = _flatten(earlier), _flatten(now)
    same_bits = after["run.deterministic"] and after["run.layout"] == "loop"
    free = (*FREE, "run.devices") if same_bits else FREE
    left_out = {*free, *find_unread(before), *find_unread(after)}
    differing = [
        f"{field} ({before.get(field, 'not there')!r} there, {after.get(field, 'not known')!r} "
        "here)"
        for field in sorted({*before, *after} - left_out)
        if before.get(field) != after.get(field)
    ]
    if differing:
        more = f" and {len(differing) - MAX_NAMED} more" if len(differing) > MAX_NAMED else ""
        raise SettingError(
            f"--workdir={path} holds a run with other settings: {', '.join(differing[:MAX_NAMED])}"
            f"{more}; set them alike to go on with it, pass --overwrite to replace it, or choose "
            "another folder"
        )


def keep_choices(config: config_dict.ConfigDict, earlier: dict[str, Any]) -> None:
    """Lets what a config reads and leaves automatic be what it was in an earlier run, in place.

    Args:
      config: ConfigDict with all fields.
      earlier: nested dict of settings, resolved.
    """
    before, unread = _flatten(earlier), find_unread(_flatten(config.to_dict()))
    for field in CHOSEN:
        group, name = field.split(".")
        automatic = config[group][name] in (None, "auto")
        if automatic and field in before and field not in unread:
            set_values(config, {field: before[field]})


def _flatten(settings):
    """Values by dotted path; tuples as the lists that JSON makes of them."""
    flat = traverse_util.flatten_dict(settings, sep=".")
    return {
        path: list(value) if isinstance(value, tuple) else value for path, value in flat.items()
    }
