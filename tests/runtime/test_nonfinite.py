"""The first number that is not finite, among made-up flags of rounds, stages and leaves."""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest

from cefl_jax.runtime.nonfinite import Fault, NotFinite, find_fault
from cefl_jax.types import Halves


class Scores(NamedTuple):
    accuracy: float
    loss: float


FINE = {"": Scores(0.5, 1.0), "cloud_": Scores(0.4, 2.0)}


def flags(*bad):
    """Of two stages and five rounds, those (stage, leaf, round) False that are given."""
    blocks = [{"Dense_0": {"bias": np.ones(5, bool), "kernel": np.ones(5, bool)}} for _ in range(3)]
    finite = OrderedDict(
        train={"loss": np.ones(5, bool)},
        average={"halves": Halves(tuple(blocks[:1]), tuple(blocks[1:]))},
    )
    leaves = {
        "loss": finite["train"]["loss"],
        "front": blocks[0]["Dense_0"]["bias"],
        "back": blocks[2]["Dense_0"]["kernel"],
    }
    for leaf, index in bad:
        leaves[leaf][index] = False
    return finite


BACK = "halves.back[1]['Dense_0']['kernel']"
FRONT = "halves.front[0]['Dense_0']['bias']"


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        ([], None),
        ([("back", 3)], Fault(3, "average", BACK)),
        ([("back", 3), ("front", 3)], Fault(3, "average", FRONT)),
        ([("back", 2), ("front", 3), ("loss", 3)], Fault(2, "average", BACK)),
        ([("back", 2), ("front", 2), ("loss", 2)], Fault(2, "train", "loss")),
        ([("back", 0), ("back", 1), ("loss", 1)], Fault(0, "average", BACK)),
        ([("back", 4), ("loss", 4)], None),  # after the last round of a run
    ],
)
def test_the_first_leaf_of_the_first_stage_of_the_first_round(bad, fault):
    assert find_fault(flags(*bad), FINE, 4) == fault


def test_a_test_loss_is_what_comes_last():
    broken = FINE | {"cloud_": Scores(0.1, np.float32(np.nan))}
    assert find_fault(flags(), broken, 4) == Fault(3, "evaluation", "test/cloud_loss")
    assert find_fault(flags(("loss", 3)), broken, 4).stage == "train"
    assert find_fault(None, broken, 1) == Fault(0, "evaluation", "test/cloud_loss")
    assert find_fault(None, FINE, 1) is None


def test_what_is_said_of_it_names_the_round_of_the_run():
    error = NotFinite(Fault(2, "aggregation", BACK), 10)
    assert error.round == 13
    assert str(error).startswith(f"round 13, aggregation: {BACK} is not finite; lower the learning")
    assert "\n" not in str(error)
