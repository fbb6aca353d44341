"""Every setting that a benchmark times can be run; contenders take turns and lose no round."""

import contextlib
import io
import pathlib

import jax
import numpy as np
import pytest

from benchmarks import federation_size, gpu_cases, network_cost, scaling, timing
from benchmarks.launches import Launches
from benchmarks.settings import make_spec
from benchmarks.timing import Contender, Timing
from benchmarks.torch_baseline import __main__ as baseline
from benchmarks.torch_baseline.cases import CASES, make_parser
from cefl_jax import build, config, parallel, program
from cefl_jax.network import dynamics
from tests import world

READY = '{"prepare_s": 1.0, "first_round_s": 2.0}\n'


@pytest.mark.parametrize("name", CASES)
def test_cases_against_pytorch_can_be_run_and_have_a_small_form(name):
    case = CASES[name]
    make_spec(case.fields)
    small = make_spec(case.shrink(baseline.SMALL, baseline.CLUSTERED).fields)
    assert small.train.clients_per_round == 4


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("small", [False, True])
def test_gpu_cases_are_command_lines_that_their_workers_take(small, backend):
    for name, case in gpu_cases.make_cases(small).items():
        contenders = gpu_cases.rivals(name, case, backend) + gpu_cases.choices(name, case)
        for contender in contenders:
            _, module, *words = contender.arguments
            if module == gpu_cases.TORCH[1]:
                words = make_parser().parse_args(words).fields
            make_spec([word for word in words if not word.startswith("--")])


@pytest.mark.parametrize("axis", scaling.AXES)
def test_scaling_has_points_that_can_be_run_on_every_axis(axis):
    for value in scaling.AXES[axis]:
        words = scaling.contender(axis, value, "fashion_mnist_12k", 20, ()).arguments
        make_spec([word for word in words if not word.startswith("-") and "=" in word])


@pytest.mark.parametrize("dynamics", network_cost.DYNAMICS)
def test_network_cost_times_settings_that_can_be_run(dynamics):
    config.make_spec(network_cost.SETTINGS, network_cost.DYNAMICS[dynamics])


@pytest.mark.parametrize("train", [True, False])
def test_network_cost_keeps_the_shapes_of_a_round_without_a_network(train):
    shapes = []
    whole = world.make_setup({"network.dynamics": "static"})
    for setup in (whole, network_cost.without_network(whole)):
        start, step = program.make_round(setup)
        step = step if train else network_cost.make_decision(setup)
        arrays = setup.data, setup.network
        state = jax.eval_shape(start, jax.random.key(0), *arrays)
        after = jax.eval_shape(step, state, program.make_hparams(setup.spec), *arrays)
        shapes.append(jax.tree.map(lambda leaf: leaf.shape, after[0] if train else after))
    assert shapes[0] == shapes[1]


class Process:
    """A contender's process, as far as it is looked at here."""

    def __init__(self, words):
        self.stdout = io.StringIO(words)


@pytest.mark.parametrize(
    ("answers", "timed", "left_out"),
    [
        ([[9.0, 4.0], [9.0, 5.0, 6.0]], [4.0, 5.0, 6.0], []),
        ([[9.0, 4.0], None], [4.0], ["ours"]),
        ([None], [], ["ours"]),
    ],
)
def test_compete_keeps_the_rounds_of_a_contender_that_ends(monkeypatch, answers, timed, left_out):
    @contextlib.contextmanager
    def started(contender):
        yield Process({"ours": READY, "silent": ""}[contender.name]), None

    left = iter(answers)
    monkeypatch.setattr(timing, "_started_apart", started)
    monkeypatch.setattr(timing, "_ask", lambda *_: next(left))
    monkeypatch.setattr(timing, "_end", lambda process: None)
    monkeypatch.setattr(timing, "_last_words", lambda started: "ended")
    monkeypatch.setattr(timing, "PAUSE_S", 0.0)
    contenders = [Contender(name, ()) for name in ("ours", "silent")]
    timings, why = timing.compete(contenders, 2, 5, 60.0, float("inf"))
    assert [one.rounds_ms for one in timings] == ([timed] if timed else [])
    assert why == dict.fromkeys([*left_out, "silent"], "ended")


LATE = """
import os, time
time.sleep(0.5)
from benchmarks.worker import serve
serve(lambda: (lambda: None, {name: os.environ[name] for name in os.environ if "CACHE" in name}))
"""


def test_a_start_is_measured_with_imports_and_without_kept_programs():
    one, other = timing.alternate([Contender(name, ("-c", LATE)) for name in "ab"], 1, 2)
    assert len(one.rounds_ms) == 2
    assert one.about["start_s"] > 0.5 > one.about["prepare_s"] + one.about["first_round_s"]
    assert one.about["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    folders = {each.about["TORCHINDUCTOR_CACHE_DIR"] for each in (one, other)}
    assert len(folders) == 2
    assert not any(pathlib.Path(folder).exists() for folder in folders)


def timed(name, start_s, round_ms):
    return Timing(name, {"start_s": start_s}, [round_ms])


@pytest.mark.parametrize(
    ("ours", "loop", "rounds"),
    [
        ((7.0, 20.0), (3.0, 60.0), 100),  # 4 s behind, 40 ms gained in each round
        ((7.0, 20.0), (3.0, 59.0), 103),  # 102.6
        ((3.0, 20.0), (3.0, 60.0), 0),
        ((2.0, 20.0), (3.0, 60.0), 0),
        ((2.0, 20.0), (3.0, 20.0), 0),  # ahead for good
        ((3.0, 20.0), (2.0, 20.0), None),
        ((3.0, 20.0), (2.0, 10.0), None),
        ((2.0, 20.0), (3.0, 10.0), None),  # ahead for 100 rounds alone
    ],
)
def test_rounds_to_break_even(ours, loop, rounds):
    assert baseline.rounds_to_break_even(timed("ours", *ours), timed("loop", *loop)) == rounds


def test_a_start_of_pytorch_does_not_count_the_import_of_our_package(monkeypatch):
    about = {"parameters": [1]}

    def alternate(contenders, turns, rounds):
        return [Timing(each.name, about | {"start_s": 5.0}, [1.0]) for each in contenders]

    monkeypatch.setattr(baseline, "alternate", alternate)
    timings = baseline.time_case(CASES["mlp_fedavg"], ["loop", "vmap"], 1, 1, 1.5)
    assert [each.about["start_s"] for each in timings] == [5.0, 3.5, 3.5]


def test_the_summary_compares_starts_with_the_fastest_variant_and_with_the_loop():
    ours, loop = timed("ours", 7.0, 20.0), timed("torch loop", 3.0, 60.0)
    compiled = timed("torch compiled_vmap", 31.0, 50.0)
    heading, rule, *rows = baseline.summary(
        {
            "both": [ours, loop, compiled],
            "one": [ours, compiled],
            "slow": [timed("ours", 7.0, 80.0), loop],
        }
    ).splitlines()
    assert rows[0].endswith(
        "| compiled_vmap | 50.0 | 50.0 to 50.0 | 2.50 | 7.0 | 31.0 | 3.0 | 100 |"
    )
    assert rows[1].endswith("| 7.0 | 31.0 | not timed | not timed |")
    assert rows[2].endswith("| 7.0 | 3.0 | 3.0 | never |")
    assert {line.count("|") for line in (heading, rule, *rows)} == {heading.count("|")}


def test_launches_counts_what_devices_send_in_every_turn_of_a_loop():
    """Around a ring of 4, a sum sends 2 x 3/4 of its 40 bytes, and a gathering 3/4 of its 160."""
    mesh = parallel.make_mesh(4)

    def on_device(x):
        x, _ = jax.lax.scan(lambda x, _: (jax.lax.psum(x, parallel.AXIS) / 5, None), x, length=3)
        return jax.lax.all_gather(x + jax.lax.axis_index(parallel.AXIS), parallel.AXIS)

    text = jax.jit(mesh.spread(on_device)).lower(np.ones(10, np.float32)).compile().as_text()
    sent = {kind: sent for (_, kind), sent in Launches(text, 4).sent.items()}
    assert sent == {"all-reduce": 3 * 60, "all-gather": 120}


@pytest.mark.parametrize("dynamic", ["static", "markov"])
def test_federation_size_knows_what_a_client_takes(dynamic):
    """By populations that differ in size alone."""

    def measure(num_clients):
        fields = f"data.partition.num_clients={num_clients}", f"network.dynamics={dynamic}"
        setup = build.prepare(make_spec([*fields, "data.name=digits", "model.name=mlp"]))
        conditions = dynamics.start(jax.random.key(0), setup.network, setup.spec.network)
        held = sum(leaf.nbytes for leaf in jax.tree.leaves((setup.data, setup.network, conditions)))
        return np.array([held, federation_size.argument_bytes(setup)])

    held, formula = measure(140) - measure(100)
    assert held == formula > 0
