"""The compiled program of a run: rounds in a scan, then an evaluation."""

import functools
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import jit
from jaxtyping import Array, Float32, Int32

from cefl_jax import compiler
from cefl_jax.build import Setup
from cefl_jax.config import fields
from cefl_jax.data.federated import FederatedData
from cefl_jax.methods import METHODS
from cefl_jax.methods.base import Method, MethodContext
from cefl_jax.network import ledger
from cefl_jax.network.step_times import back_loading, of_client
from cefl_jax.network.topology import Network
from cefl_jax.specs import Spec
from cefl_jax.stages.evaluation import evaluate
from cefl_jax.types import HParams, RoundMetrics

Inputs: TypeAlias = tuple[HParams, FederatedData, Network]
"""What the compiled program takes besides the state."""


OF_RUN = {"members": 0, "offsets": 0, "label_counts": 0}  # of FederatedData
STACK_AXES: Any = 0, FederatedData(*map(OF_RUN.get, FederatedData._fields)), 0  # type: ignore
"""Axes of Inputs under `jax.vmap` over runs: all but the samples may differ from run to run."""

TRACED = {  # fields of HParams, and the settings whose values they are
    "learning_rate": "train.optimizer.learning_rate",
    "distill_learning_rate": "cefl.distill.learning_rate",
    "lambda_edge": "cefl.distill.lambda_edge",
    "lambda_cloud": "cefl.distill.lambda_cloud",
    "temperature": "cefl.distill.temperature",
    "temperature_cloud": "cefl.distill.temperature_cloud",
}


class Chunk(NamedTuple):
    """What comes back to the host from one compiled call."""

    metrics: Any  # RoundMetrics, leaves [eval_every]
    scores: Any  # {name: Scores} after the last round
    measures: dict  # {metric key: f32[]} after the last round
    round_trace: Any  # types.RoundTrace of the last round
    ledger: Any  # cumulative


def make_hparams(spec: Spec) -> HParams:
    """Returns the scalars that the compiled program takes as arguments."""
    flat = fields.flatten(spec)
    values = {name: flat[path] for name, path in TRACED.items()}
    if values["temperature_cloud"] is None:
        values["temperature_cloud"] = values["temperature"]
    method = spec.method.name
    own = {name: jnp.float32(flat[f"{method}.{name}"]) for name in METHODS[method].traced}
    return HParams(own=own, **{name: jnp.float32(value) for name, value in values.items()})


def make_round(setup: Setup) -> tuple[Callable, Callable]:
    """Returns the first state and a round of a run, not yet jitted.

    Returns:
      `start(key, data, network) -> state`, and `step(state, hparams, data, network) -> (state,
      RoundMetrics)`. On a mesh for stacks both take and return those of R runs, as `make_program`.
    """
    return _over_runs(setup.mesh, *_make_round(setup))


def _make_round(setup):
    """`make_round` of a run."""

    def start(key, data, network):
        return make_method(setup, data, network).init(key)

    def step(state, hparams, data, network):
        result = make_method(setup, data, network).round(state, hparams)
        _check_round(setup.spec.method.name, state, result)
        return result

    return start, step


def _check_round(name, state, result):
    """Raises TypeError where a round has made anything but a like state and RoundMetrics."""
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], RoundMetrics):
        raise TypeError(
            f"method {name!r}: its round returns a {type(result).__name__}; it needs to return "
            "(state, types.RoundMetrics)"
        )

    def kind(leaf):  # without its 64 bits, of which `jax.eval_shape` makes 32
        return str(leaf.dtype).replace("64", "32"), [*leaf.shape]

    before, after = (
        {jax.tree_util.keystr(path): kind(leaf) for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (state, result[0]))
    )
    for path in [*before, *after]:
        if before.get(path) != after.get(path):
            was, now = (
                "nothing" if of is None else f"{of[0]}{of[1]}"
                for of in (before.get(path), after.get(path))
            )
            raise TypeError(
                f"method {name!r}: its round returns a state whose {path.lstrip('.')} is {now}, and "
                f"was {was}"
            )


def simulate_rounds(setup: Setup) -> Callable:
    """Returns what decides and prices all rounds of a run without any training, not yet jitted.

    Decisions follow from data, network and settings alone; so the ledger is that of the run.

    Returns:
      `simulate(key, data, network) -> (Decision, Ledger)` of every round, leaves [rounds, ...]; the
      Ledgers are cumulative.
    Raises:
      ValueError: for a method of which no clients train.
    """
    planner, num_kinds = setup.planner, len(setup.device_names)
    if planner.traits.pools_data:
        raise ValueError(
            f"method.name={setup.spec.method.name!r}: no clients train, so that nothing is decided; "
            "choose another method"
        )

    def simulate(key, data, network):
        def one(carry, index):
            conditions, total = carry
            decision = planner.decide(key, index, conditions, data, network)
            total = ledger.add_cost(total, planner.cost(decision, num_kinds))
            return (decision.conditions, total), (decision, total)

        start = planner.start(key, network), ledger.empty_ledger(num_kinds)
        return jax.lax.scan(one, start, jnp.arange(setup.spec.train.rounds))[1]

    return simulate


def make_method(setup: Setup, data: FederatedData, network: Network) -> Method:
    """Returns the Method that the settings name, closed over a federation and a network."""
    return METHODS[setup.spec.method.name].make(make_context(setup, data, network))


def make_context(setup: Setup, data: FederatedData, network: Network) -> MethodContext:
    """Returns what a method is closed over, on a federation and a network."""
    num_kinds = len(setup.device_names)
    return MethodContext(setup.planner, setup.model, setup.mesh, data, network, num_kinds)


def make_program(setup: Setup) -> tuple[Callable, Callable]:
    """Returns the two functions of a run, not yet jitted.

    Returns:
      `start(key, data, network) -> state`, and `advance(state, hparams, data, network) ->
      (state, Chunk)`, which does `eval_every` rounds (fewer where the run ends) and evaluates. On a
      mesh for stacks both take and return those of R runs, with R first in every axis but those of
      samples; R is a multiple of the devices along the mesh axis `run`.
    """
    rounds = setup.spec.train.rounds
    length = min(setup.spec.run.eval_every, rounds)
    start, one_round = _make_round(setup)

    def advance(state, hparams, data, network):
        method = make_method(setup, data, network)
        inputs = hparams, data, network

        @jit  # traced once for its shapes and for the scan
        def step(state):
            state, metrics = one_round(state, *inputs)
            return (state, metrics.round_trace), metrics._replace(round_trace=None)

        (_, round_trace), metrics = jax.eval_shape(step, state)
        nowhere, nothing = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), (round_trace, metrics)
        )

        def step_or_stay(carry, _):
            state, round_trace = carry
            if rounds % length == 0:
                return step(state)
            return jax.lax.cond(
                state.round < rounds, step, lambda state: ((state, round_trace), nothing), state
            )

        (state, round_trace), metrics = jax.lax.scan(
            step_or_stay, (state, nowhere), None, length=length
        )
        with jax.named_scope("evaluation"):
            scores = evaluate(method.predictors, state, data, setup.mesh)
            measures = method.measures(state)
        return state, Chunk(metrics, scores, measures, round_trace, state.ledger)

    return _over_runs(setup.mesh, start, advance)


def _over_runs(mesh, start, step):
    """The functions of a run as those of a stack, where the mesh is for one.

    Spread over the devices, each computes its runs alone.
    """
    if not mesh.stacked:
        return start, step

    def spread(f, axes):
        specs = jax.tree.map(
            lambda axis: mesh.everywhere.spec if axis is None else mesh.by_run.spec,
            axes,
            is_leaf=lambda axis: axis is None,
        )
        mapped, out = jax.vmap(f, axes), mesh.by_run.spec
        return jax.shard_map(mapped, mesh=mesh.mesh, in_specs=specs, out_specs=out, check_vma=False)

    return spread(start, (0, *STACK_AXES[1:])), spread(step, (0, *STACK_AXES))


def first_round(
    setup: Setup, state: Any, data: FederatedData, network: Network
) -> tuple[Int32[Array, ""], Float32[Array, ""]]:
    """Returns how round 0 will go on the simulated network, before anything is trained.

    Args:
      setup: build.Setup.
      state: of the method, before its first round.
      data: FederatedData.
      network: Network.
    Returns:
      The clients that will count, and the least seconds in which one of those sampled could do all
      its steps and deliver if nobody held it up; infinite when nobody is sampled.
    """
    decision = setup.planner.decide(state.key, state.round, state.conditions, data, network)
    pace, sizes = decision.schedule.pace, setup.planner.sizes
    steps = pace.forward + pace.send + pace.serve + pace.receive + pace.backward
    backs_s = of_client(decision.task, back_loading(decision.task, decision.network, sizes))
    alone_s = jnp.maximum(pace.load, backs_s) + steps.sum(1) + pace.deliver
    soonest_s = jnp.where(pace.load > 0, alone_s, jnp.inf).min()
    return decision.schedule.counts.sum(), soonest_s


def put_inputs(setups: Sequence[Setup]) -> Inputs:
    """Returns what the compiled program takes besides the state, on the devices.

    Args:
      setups: one; or, with a mesh for stacks, those of its runs, of the same samples and shapes.
    """
    arrays = [(make_hparams(setup.spec), setup.data, setup.network) for setup in setups]
    mesh = setups[0].mesh
    if not mesh.stacked:
        return jax.device_put(arrays[0], mesh.everywhere)

    def put(axis, *trees):
        if axis is None:
            return jax.device_put(trees[0], mesh.everywhere)
        return jax.device_put(jax.tree.map(lambda *leaves: np.stack(leaves), *trees), mesh.by_run)

    return jax.tree.map(put, STACK_AXES, *arrays, is_leaf=lambda axis: axis is None)


def begin(setups: Sequence[Setup], start: Callable, inputs: Inputs) -> Any:
    """Returns the first state of a run, or of a stack, by its `start`, compiled or jitted."""
    return start(_make_keys(setups), *inputs[1:])


def _make_keys(setups):
    """The key of a run, or the keys of a stack's by run."""
    keys = [jax.random.key(setup.spec.seed) for setup in setups]
    mesh = setups[0].mesh
    if not mesh.stacked:
        return keys[0]
    data = np.stack([jax.random.key_data(key) for key in keys])  # a key itself stays on one process
    return jax.random.wrap_key_data(jax.device_put(data, mesh.by_run))


def compile_both(
    setups: Sequence[Setup], inputs: Inputs
) -> tuple[jax.stages.Compiled, jax.stages.Compiled]:
    """Returns the compiled `start` and `advance` of a run or a stack, side by side; for any seeds.

    Args:
      setups: as of `put_inputs`.
      inputs: from `put_inputs`.
    """
    start, advance = make_program(setups[0])
    mesh = setups[0].mesh
    of_state = mesh.by_run if mesh.stacked else mesh.everywhere
    with futures.ThreadPoolExecutor() as threads:
        traced = jax.jit(start, out_shardings=of_state).trace(_make_keys(setups), *inputs[1:])
        starting = threads.submit(compiler.compile_lowered, traced.lower(), compiler.FOR_CPU_ONCE)
        # Not as ShapeDtypeStruct, whose 64 bits would become 32.
        shapes = jax.tree.unflatten(jax.tree.structure(traced.out_info), traced.jaxpr.out_avals)
        jitted = jax.jit(
            advance,
            donate_argnums=0,
            in_shardings=(of_state, *jax.tree.map(lambda x: x.sharding, inputs)),
            out_shardings=(of_state, mesh.everywhere),
        )
        compiling = threads.submit(compiler.compile_lowered, jitted.lower(shapes, *inputs))
        return starting.result(), compiling.result()


def warn_of_deadline(setup: Setup, state: Any, inputs: tuple[Any, ...], display: Any) -> None:
    """Says before the first round when none of its clients will meet the deadline."""
    deadline_s = setup.spec.network.deadline_s
    if deadline_s is None:
        return
    look = jax.jit(functools.partial(first_round, setup)).lower(state, *inputs[1:])
    compiled = compiler.compile_lowered(look, compiler.FOR_CPU_ONCE)
    counted, soonest_s = compiled(state, *inputs[1:])
    if not counted and np.isfinite(soonest_s):
        display.warn(
            f"network.deadline_s={deadline_s:g}: nobody meets it in the first round, where the "
            f"fastest client alone needs {soonest_s:.4g} s; rounds that nobody finishes change "
            "nothing. Raise it"
        )
