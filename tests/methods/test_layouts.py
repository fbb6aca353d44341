"""The flat layout of a round computes what the loops compute, alone and in a stack of runs."""

import dataclasses
import random
from unittest import mock

import jax
import jax.extend.core as core
import numpy as np
import pytest

from cefl_jax import build, parallel, program, stack
from tests import world
from tests.compare import assert_close
from tests.methods import draw_layouts
from tests.methods.test_skip_client import HIGH, STEEP, Fragile, broken_data
from tests.quick import OPTIONS, quick_jit

ROUNDS = 3
MOVING = {"network.dynamics": "markov", "network.leave_probability": 0.3, "network.late": "keep"}
SKIPS = {"run.on_nonfinite": "skip_client", "train.optimizer.momentum": 0.5}
EPOCHS = {"train.local_steps": None, "train.local_epochs": 2}
slow = pytest.mark.slow


def case(name, *options, marks=()):
    changes = {"method.name": name}
    for option in options:
        changes |= option
    return pytest.param(changes, id="-".join([name, *map(str, range(len(options)))]), marks=marks)


CASES = [
    case("cefl", SKIPS, {"cefl.clustering.rule": "patent"}),
    case("splitfed_v2", EPOCHS),
    case("hierfavg", SKIPS),
    case("cefl", EPOCHS, {"train.optimizer.name": "adam"}, marks=slow),
    case(
        "cefl",
        {"cefl.compression.smashed": "int8", "cefl.compression.gradient": "bf16"},
        {"cefl.privacy.noise_std": 0.1, "cefl.distill.rule": "cloud_to_edge"},
        marks=slow,
    ),
    case("cefl", {"model.name": "lenet5", "run.archive_dtype": "bfloat16"}, marks=slow),
    case("splitfed_v1", SKIPS, EPOCHS, marks=slow),
    case("splitfed_v2", SKIPS, marks=slow),
    case("sequential_split", SKIPS, marks=slow),
    case("fedgkt", SKIPS, marks=slow),
    case("fedavg", SKIPS, EPOCHS, marks=slow),
    case("scaffold", marks=slow),
    case("fedprox", marks=slow),
    case("fedopt", marks=slow),
    case("fednova", EPOCHS, marks=slow),
    case("centralized", marks=slow),
]


def plain(state):
    return state._replace(key=jax.random.key_data(state.key))


@pytest.mark.parametrize("changes", CASES)
def test_flat_equals_loop_after_three_rounds(changes):
    """To 1e-5 of each array's scale; Adam and codecs divide or round by what is nearly 0."""
    side = 16 if changes.get("model.name") == "lenet5" else 8
    ends = []
    for layout in ("loop", "flat"):
        setup = world.make_setup(MOVING | changes | {"run.layout": layout}, side=side)
        assert setup.spec.run.layout == layout
        state, metrics = world.run_rounds(setup, ROUNDS, quick_jit)
        ends.append(jax.device_get((plain(state), metrics)))
    near = {"train.optimizer.name", "cefl.compression.smashed"} & set(changes)
    assert_close(ends[1], ends[0], 1e-3 if near else 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_flat_equals_loop_with_drawn_options(seed):
    """`python -m tests.methods.draw_layouts` draws many."""
    changes = draw_layouts.draw(random.Random(seed))
    assert draw_layouts.compare(changes) <= draw_layouts.allowed(changes)


@pytest.mark.parametrize("devices", [1, pytest.param(3, marks=slow)])
def test_flat_leaves_out_the_clients_that_loop_leaves_out(devices):
    """Whose pixels are no numbers, whose step or whose server's would be infinite, by turns."""
    programs = []
    for layout in ("loop", "flat"):
        changes = {"train.rounds": 1, "cefl.distill.rule": "none", "run.layout": layout}
        setup = world.make_setup(SKIPS | changes | {"run.devices": devices})
        images = np.float32(setup.data.images) / 255
        data, model = setup.data._replace(images=images), Fragile(**vars(setup.model))
        setup = setup._replace(data=data, model=model)
        start, step = program.make_round(setup)
        programs.append((setup, start(jax.random.key(0), data, setup.network), quick_jit(step)))
    setup, skipped = programs[0][0], []
    plan = world.row_of(world.decide_rounds(setup)[0], 0).plan
    for pixel in (None, np.nan, STEEP, HIGH):
        bad = broken_data(setup, setup.partition[int(plan.clients[0])], pixel=pixel or 0)
        ends = []
        for one, state, step in programs:
            inputs = program.make_hparams(one.spec), bad if pixel else one.data, one.network
            after, metrics = step(state, *inputs)
            ends.append(jax.device_get((after.halves, metrics._replace(round_trace=None))))
        assert_close(ends[1], ends[0])
        skipped.append(int(ends[0][1].skipped))
    assert skipped[:2] == [0, 1]
    assert 1 <= skipped[2] <= skipped[3] == plan.members[0] < len(plan.clients)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cefl", "splitfed_v2", "fedavg"])
def test_flat_on_three_devices_equals_one(method):
    """Seven clients, in chunks of two, so that rows are filled up on every device."""
    ends = []
    for devices in (1, 3):
        changes = MOVING | SKIPS | {"method.name": method, "run.devices": devices}
        setup = world.make_setup(changes | {"run.layout": "flat"})
        assert setup.mesh.size == devices
        state, metrics = world.run_rounds(setup, ROUNDS, quick_jit)
        ends.append(jax.device_get((plain(state), metrics)))
    assert_close(ends[1], ends[0])


@pytest.mark.parametrize("method", ["cefl", "fedavg", "splitfed_v2"])
def test_flat_training_and_evaluation_have_loops_of_known_length(method):
    """A loop whose end the data decide asks the host in each of its passes, on a GPU."""
    setup = world.make_setup({"run.layout": "flat", "method.name": method})
    start, advance = program.make_program(setup)
    arrays = program.put_inputs([setup])
    state = start(jax.random.key(0), *arrays[1:])
    stages = list(loops_of(jax.make_jaxpr(advance)(state, *arrays).jaxpr))
    assert not {"training", "aggregation", "evaluation"} & set("/".join(stages).split("/"))


def loops_of(jaxpr, outer=""):
    """Name stacks of the loops of a program whose length is not known before it runs."""
    for equation in jaxpr.eqns:
        name = f"{outer}/{equation.source_info.name_stack}"
        if equation.primitive.name == "while":
            yield name
        for inner in core.jaxprs_in_params(equation.params):
            yield from loops_of(inner, name)


STACKS = [
    {"method.name": "cefl", "cefl.clustering.rule": "patent"},
    {"method.name": "fedavg"},
    {"method.name": "splitfed_v2"},
]
SIZES = [3, 17, 8, 25, 9, 12, 30, 5, 20, 11, 20], [11, 17, 8, 25, 9, 12, 22, 5, 20, 11, 20]
"""Of clients; as many examples in all, and the largest has unequally many batches."""


@pytest.mark.slow
@pytest.mark.parametrize("changes", STACKS, ids=lambda changes: changes["method.name"])
def test_a_stack_of_runs_equals_each_run_alone(changes):
    """Seeds, partitions, networks and rates differ; the images are shared. On two devices."""
    changes = MOVING | SKIPS | EPOCHS | changes | {"run.layout": "flat", "train.batch_size": 4}
    dataset, alone, compiler = world.make_dataset(), [], stack.Compiler()
    for seed in range(8):
        rate = {"seed": seed, "train.optimizer.learning_rate": 0.02 * (seed + 1)}
        spec = world.make_spec(changes | rate | {"train.rounds": 3, "run.eval_every": 3})
        sizes = np.roll(SIZES[seed % 2], seed)
        alone.append(build.build(spec, dataset, world.make_parts(sizes, seed=seed)))
    assert len({stack.stack_key(setup) for setup in alone}) == 1
    assert len({setup.planner.bounds for setup in alone}) == 2
    mesh = dataclasses.replace(parallel.make_stack_mesh(), mesh=stack_mesh(2))
    side_by_side = [setup._replace(mesh=mesh) for setup in stack.join(alone)]
    outcome = advance_once(side_by_side, compiler)
    for i, setup in enumerate(alone):
        assert_close(world.row_of(outcome, i), advance_once([setup], compiler))


def stack_mesh(devices):
    """A mesh for stacks on some of the devices."""
    axes = (parallel.RUNS, parallel.AXIS)
    kinds = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((devices, 1), axes, devices=jax.devices()[:devices], axis_types=kinds)


def advance_once(setups, compiler):
    """The state and the Chunk after the first evaluation, without what is padded by steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program.compiler.compile_lowered, "__defaults__", (OPTIONS,))
        state, advance, inputs, _ = compiler(setups, mock.Mock())
    state, chunk = advance(state, *inputs)
    return jax.device_get((plain(state), chunk._replace(round_trace=None)))
