"""What a method is."""

from collections.abc import Callable
from typing import NamedTuple


class Method(NamedTuple):
    """A training method as pure functions, with data, network, model and static spec closed over.

    A state has at least `round` i32[], `key`, and `ledger`. The names that `predictors` gives to
    its classifiers are prefixes of metric keys: "" for the deployed model, "cloud_" for another;
    they are told which test images they see, index i32[B], each one more than the one before.
    """

    init: Callable  # key -> state
    round: Callable  # (state, hparams) -> (state, RoundMetrics)
    predictors: Callable  # (state, normalised images f32[B, ...], index) -> {name: f32[B, Y]}
    measures: Callable  # (state) -> {metric key: f32[]}, what an evaluation measures besides
