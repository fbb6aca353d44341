"""Draws methods and options, and compares the flat layout with the loops after three rounds.

    python -m tests.methods.draw_layouts --draws=40 [--seed=0]

Prints each setting with what differs most, as a share of its array's scale; exits with 1 where that
is more than 1e-5; or 1e-3 with Adam, which divides by what is nearly 0, and 3e-2 with codecs that
round to few values.
"""

import argparse
import random
import sys

import jax
import numpy as np

from cefl_jax import config
from cefl_jax.config.fields import find_unread, flatten
from cefl_jax.methods import METHODS
from cefl_jax.runtime import cpu
from tests import world
from tests.quick import quick_jit

ROUNDS = 3
OPTIONS = {
    "cefl.clustering.rule": ("balanced", "patent", "astraea", "random", "single", "singleton"),
    "cefl.clustering.num_clusters": (2, 3, 4),
    "cefl.offload.rule": ("optimal", "greedy", "random", "nearest"),
    "cefl.offload.edge_capacity": (1, 2),
    "cefl.distill.rule": ("mutual", "cloud_to_edge", "edge_to_cloud", "hard_labels", "none"),
    "cefl.distill.epochs": (1, 2),
    "cefl.distill.upload_steps": (None, 1, 2),
    "cefl.distill.optimizer_state": ("reset", "persist"),
    "cefl.compression.smashed": ("none", "bf16", "int8", "topk"),
    "cefl.compression.gradient": ("none", "int8"),
    "cefl.privacy.noise_std": (0.0, 0.1),
    "cefl.privacy.probe_size": (0, 8),
    "network.dynamics": ("static", "markov"),
    "network.leave_probability": (0.05, 0.4),
    "network.late": ("drop", "keep"),
    "network.deadline_s": (None, 60.0),
    "train.local_steps": (1, 3, 5),
    "train.batch_size": (3, 4, 8),
    "train.clients_per_round": (3, 7, 11),
    "train.optimizer.name": ("sgd", "adam"),
    "train.optimizer.momentum": (0.0, 0.9),
    "train.optimizer.weight_decay": (0.0, 0.01),
    "train.optimizer.clip_norm": (None, 0.7),
    "model.cut": (1, 2),
    "run.on_nonfinite": ("stop", "skip_client"),
    "run.client_chunk": (1, 2, 3),
    "run.archive_dtype": ("float32", "bfloat16"),
}
CODECS = ("cefl.compression.smashed", "cefl.compression.gradient")


def draw(generator):
    """Settings of a method drawn at random that can be run, but for those that nothing reads."""
    while True:
        changes = {"method.name": generator.choice(sorted(METHODS))}
        changes |= {path: generator.choice(values) for path, values in OPTIONS.items()}
        if generator.random() < 0.4:
            changes |= {"train.local_steps": None, "train.local_epochs": generator.choice((1, 2))}
        if changes["train.optimizer.name"] == "adam":  # a larger one makes chaos of rounding
            changes["train.optimizer.learning_rate"] = 1e-3
        spec = world.make_spec(changes)
        unread = find_unread(flatten(spec))
        changes = {path: value for path, value in changes.items() if path not in unread}
        try:
            config.to_spec(config.to_dict(world.make_spec({**unread_defaults(unread), **changes})))
            return changes
        except ValueError:
            continue


def unread_defaults(unread):
    """The defaults of settings that nothing reads, in place of those of `world.make_spec`."""
    known = flatten(config.to_spec(config.default_config()))
    return {path: known[path] for path in unread if path in known}


def compare(changes):
    """The largest difference of the two layouts, over the scale of its array."""
    ends = []
    for layout in ("loop", "flat"):
        setup = world.make_setup(changes | {"run.layout": layout})
        state, metrics = world.run_rounds(setup, ROUNDS, quick_jit)
        state = state._replace(key=jax.random.key_data(state.key))
        ends.append(jax.tree.leaves(jax.device_get((state, metrics))))
    worst = 0.0
    for one, other in zip(*ends, strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
        if one.size:
            scale = max(np.nanmax(np.abs(one), initial=0.0), 1e-30)
            worst = max(worst, float(np.nanmax(np.abs(one - other), initial=0.0)) / scale)
    return worst


def allowed(changes):
    """How much the layouts may differ under some settings, by what they make of rounding."""
    if {"int8", "topk"} & {changes.get(path) for path in CODECS}:
        return 3e-2  # a few steps of a code, of which the range has 255
    return 1e-3 if changes.get("train.optimizer.name") == "adam" else 1e-5


def main():
    """Draws and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cpu.set_up(1)
    generator, bad = random.Random(options.seed), 0
    for number in range(options.draws):
        changes = draw(generator)
        worst = compare(changes)
        bad += worst > allowed(changes)
        verdict = "" if worst <= allowed(changes) else "TOO MUCH "
        print(f"{number}: {verdict}{worst:.1e} {changes}", flush=True)
    print(f"{options.draws} draws, {bad} differ too much")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
