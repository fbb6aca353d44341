"""The first number that is not finite, of made-up rounds, stages and leaves."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cefl_jax.numerics import finite_by_stage
from cefl_jax.runtime.nonfinite import Fault, NotFinite, find_fault
from cefl_jax.types import Halves


class Scores(NamedTuple):
    accuracy: float
    loss: float


FINE = {"": Scores(0.5, 1.0), "cloud_": Scores(0.4, 2.0)}
BAD = FINE | {"cloud_": Scores(0.1, np.float32(np.nan))}
FRONT, BACK = "halves.front[0]['bias']", "halves.back[1]['kernel']"
AT_THE_END = Fault(3, "evaluation", "test/cloud_loss")


def checks(**bad):
    """Of two stages and five rounds, a leaf's values infinite or no number in the rounds given."""

    def of_round(r):
        loss, front, back = jnp.float32(2), jnp.zeros(4), jnp.ones((2, 3))
        loss = loss * jnp.nan if r in bad.get("loss", []) else loss
        front = front.at[3].set(-jnp.inf) if r in bad.get("front", []) else front
        back = back.at[0].set(jnp.nan) if r in bad.get("back", []) else back
        halves = Halves(({"bias": front},), ({"kernel": jnp.arange(5)}, {"kernel": back}))
        return finite_by_stage(("train", {"loss": loss}), ("average", {"halves": halves}))

    return jax.tree.map(lambda *rounds: np.stack(rounds), *map(of_round, range(5)))


@pytest.mark.parametrize(
    ("finite", "scores", "fault"),
    [
        (checks(), FINE, None),
        (None, FINE, None),
        (checks(back=[3]), FINE, Fault(3, "average", BACK)),
        (checks(back=[3], front=[3]), FINE, Fault(3, "average", FRONT)),
        (checks(back=[2], front=[3], loss=[3]), FINE, Fault(2, "average", BACK)),
        (checks(back=[2], front=[2], loss=[2]), FINE, Fault(2, "train", "loss")),
        (checks(back=[0, 1], loss=[1]), FINE, Fault(0, "average", BACK)),
        (checks(back=[4], loss=[4]), FINE, None),  # after the last round of a run
        (checks(), BAD, AT_THE_END),
        (None, BAD, AT_THE_END),
        (checks(loss=[3]), BAD, Fault(3, "train", "loss")),
    ],
)
def test_find_fault_is_the_first_leaf_of_the_first_stage_of_the_first_round(finite, scores, fault):
    assert find_fault(finite, scores, 4) == fault


def test_not_finite_names_the_round_of_the_run():
    error = NotFinite(Fault(2, "aggregation", BACK), 10)
    assert error.round == 13
    assert str(error).startswith(f"round 13, aggregation: {BACK} is not finite; lower the learning")
    assert "\n" not in str(error)
