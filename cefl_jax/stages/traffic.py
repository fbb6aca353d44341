"""What a round sends, how long it takes on the simulated clock, and what it costs."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from cefl_jax.models.cost import Workload
from cefl_jax.models.split import SplitModel
from cefl_jax.network import schedule
from cefl_jax.network.costs import cloud, hierarchical, split
from cefl_jax.network.messages import Sizes
from cefl_jax.specs import Spec
from cefl_jax.stages.link import knowledge_sizes, make_link, whole_sizes


class Traffic(NamedTuple):
    """The messages of a round, its simulated clock and its cost, as three pure functions."""

    sizes: Callable  # (spec, model, work) -> messages.Sizes
    simulate: Callable  # (task, network, work, sizes, deadline_s, keep) -> schedule.Schedule
    cost: Callable  # (task, schedule, network, work, sizes, distill_flop, num_kinds) -> RoundCost


def edge_rounds(times: int) -> Traffic:
    """Returns the Traffic of whole models that edge nodes average `times` a round."""

    return MODELS._replace(
        cost=functools.partial(hierarchical.hierarchical_cost, edge_rounds=times)
    )


def _split_sizes(spec: Spec, model: SplitModel, work: Workload) -> Sizes:
    return make_link(spec.cefl.compression, spec.cefl.privacy).measure(model, work)


def _model_sizes(spec: Spec, model: SplitModel, work: Workload, control: bool = False) -> Sizes:
    return whole_sizes(work, control)


def _logit_sizes(spec: Spec, model: SplitModel, work: Workload) -> Sizes:
    return knowledge_sizes(work, model.num_classes)


SPLIT = Traffic(_split_sizes, schedule.simulate, split.split_cost)
"""Front and back halves at the ends of a round; smashed data and gradients in each step."""

SEQUENTIAL = Traffic(_split_sizes, split.simulate_sequential, split.sequential_cost)
"""The same, one client after another."""

MODELS = Traffic(_model_sizes, schedule.simulate, split.split_cost)
"""A whole model down to each client, and up again."""

MODELS_AND_CONTROLS = MODELS._replace(sizes=functools.partial(_model_sizes, control=True))
"""The same, and a control variate as large as the model with each."""

LOGITS = Traffic(_logit_sizes, schedule.simulate, cloud.logit_exchange_cost)
"""Features, labels and logits, after training."""
