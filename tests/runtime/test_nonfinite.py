"""The first number that is not finite, among made-up flags of rounds, stages and leaves."""

from typing import NamedTuple

import numpy as np
import pytest

from cefl_jax.runtime.nonfinite import Fault, NotFinite, find_fault
from cefl_jax.types import Halves


class Scores(NamedTuple):
    accuracy: float
    loss: float


FINE = {"": Scores(0.5, 1.0), "cloud_": Scores(0.4, 2.0)}
BAD = FINE | {"cloud_": Scores(0.1, np.float32(np.nan))}
FRONT, BACK = "halves.front[0]['bias']", "halves.back[1]['kernel']"
AT_THE_END = Fault(3, "evaluation", "test/cloud_loss")


def flags(**bad):
    """Of two stages and five rounds, those of a leaf's rounds False that are given."""
    loss, front, back = np.ones((3, 5), bool)
    leaves = {"loss": loss, "front": front, "back": back}
    for leaf, rounds in bad.items():
        leaves[leaf][rounds] = False
    halves = Halves(({"bias": front},), ({"kernel": np.ones(5, bool)}, {"kernel": back}))
    return {"train": {"loss": loss}, "average": {"halves": halves}}


@pytest.mark.parametrize(
    ("finite", "scores", "fault"),
    [
        (flags(), FINE, None),
        (None, FINE, None),
        (flags(back=[3]), FINE, Fault(3, "average", BACK)),
        (flags(back=[3], front=[3]), FINE, Fault(3, "average", FRONT)),
        (flags(back=[2], front=[3], loss=[3]), FINE, Fault(2, "average", BACK)),
        (flags(back=[2], front=[2], loss=[2]), FINE, Fault(2, "train", "loss")),
        (flags(back=[0, 1], loss=[1]), FINE, Fault(0, "average", BACK)),
        (flags(back=[4], loss=[4]), FINE, None),  # after the last round of a run
        (flags(), BAD, AT_THE_END),
        (None, BAD, AT_THE_END),
        (flags(loss=[3]), BAD, Fault(3, "train", "loss")),
    ],
)
def test_find_fault_is_the_first_leaf_of_the_first_stage_of_the_first_round(finite, scores, fault):
    assert find_fault(finite, scores, 4) == fault


def test_not_finite_names_the_round_of_the_run():
    error = NotFinite(Fault(2, "aggregation", BACK), 10)
    assert error.round == 13
    assert str(error).startswith(f"round 13, aggregation: {BACK} is not finite; lower the learning")
    assert "\n" not in str(error)
