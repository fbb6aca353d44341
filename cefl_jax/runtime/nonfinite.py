"""Where a run's numbers stopped being finite."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cefl_jax.numerics import FiniteCheck


class Fault(NamedTuple):
    """The first number of a chunk of rounds that is not finite."""

    offset: int  # rounds of the chunk before the one it is of
    stage: str  # of that round, the first that left such a number
    leaf: str  # of what that stage left, the first one with such a number


class NotFinite(ArithmeticError):
    """A loss or a parameter is not finite; one line with the round, the stage and the leaf.

    Args:
      fault: Fault.
      done: rounds done before the chunk.
    """

    def __init__(self, fault, done):
        self.fault, self.round = fault, done + fault.offset + 1
        super().__init__(
            f"round {self.round}, {fault.stage}: {fault.leaf} is not finite; lower the learning "
            "rate of that stage, or look for broken examples; run.on_nonfinite=skip_client leaves "
            "out clients whose own numbers are not finite"
        )


def find_fault(
    finite: Mapping[str, FiniteCheck] | None,
    scores: Mapping[str, Any],
    rounds: int,
) -> Fault | None:
    """The first Fault of a chunk: in its first bad round the first bad stage, and its first leaf.

    After the last round come the classifiers' losses on the test set, as a stage `evaluation`.

    Args:
      finite: by stage, in the order in which they run, leaves [n]; or None.
      scores: Scores of each classifier after the last round, by name.
      rounds: how many of the n rows are rounds; what comes after them is not looked at.
    Returns:
      Fault, or None where all is finite.
    """
    found = []
    for stage, check in (finite or {}).items():
        bad = np.flatnonzero(~np.asarray(check.passed)[:rounds])
        if bad.size:
            first = check.first[bad[0]]
            leaf = next(name for name, end in check.leaves if first < end)
            found.append(Fault(int(bad[0]), stage, leaf))
    for name, score in scores.items():
        if not np.isfinite(score.loss):
            found.append(Fault(rounds - 1, "evaluation", f"test/{name}loss"))
    return min(found, key=lambda fault: fault.offset, default=None)  # of equals the first
