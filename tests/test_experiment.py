"""The run as a whole: one program, nothing to the host in between, and rounds that end anywhere."""

import functools

import jax
import numpy as np
import pytest

from cefl_jax import experiment, program, rounds
from tests import world
from tests.compare import assert_close


class Listener:
    """A display and a workdir that only remember."""

    def __init__(self):
        self.records, self.notes, self.states, self.saves = [], [], [], []

    def note(self, text):
        self.notes.append(text)

    def update(self, record):
        self.records.append(record)

    def append_metrics(self, record):
        pass

    def set_status(self, state, round, error=None):
        self.states.append((state, round))

    def write_summary(self, summary):
        self.summary = summary

    def write_timeline(self, timeline):
        self.timeline = timeline

    def save(self, round, leaves, facts):
        self.saves.append(round)

    @property
    def checkpoints(self):
        return self

    def wait(self):
        pass


CHANGES = {"cefl.clustering.rule": "single", "train.rounds": 21, "run.eval_every": 10}


@pytest.fixture(scope="module")
def whole_run():
    """A run of 21 rounds, evaluated every ten, under a guard against unasked transfers."""
    setup, traces = world.make_setup(CHANGES), []
    make_program = program.make_program

    def counting(setup):
        start, advance = make_program(setup)

        @functools.wraps(advance)  # the name is part of the program, and of what is kept of it
        def counted(*args):
            traces.append(1)
            return advance(*args)

        return start, counted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "make_program", counting)
        state, advance, inputs, _ = program.compile_program(setup, Listener())
    chunks, given = [], []
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            given += jax.tree.leaves(state)
            state, chunk = advance(state, *inputs)
            chunks.append(chunk)
        jax.block_until_ready(chunks)
    return setup, (traces, given), advance, jax.device_get((state, chunks))


def test_one_program_serves_all_rounds(whole_run):
    _, (traces, _), _, (state, _) = whole_run
    assert len(traces) == 1
    assert state.round == 21


def test_a_state_is_given_up_for_the_next(whole_run):
    _, (_, given), _, _ = whole_run
    assert given
    assert all(leaf.is_deleted() for leaf in given)


def test_nothing_crosses_to_the_host_between_evaluations(whole_run):
    """The guard raised nothing, it can raise, and the program has no way out but its result."""
    _, _, advance, _ = whole_run
    guarded = jax.transfer_guard("disallow")
    with guarded, pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed"):
        jax.jit(jax.numpy.sin)(np.ones(3))
    text = advance.as_text()
    assert not [way for way in ("callback", "outfeed", "infeed", " send(", " recv(") if way in text]


def test_the_last_chunk_stops_where_the_run_ends(whole_run):
    setup, _, _, (state, chunks) = whole_run
    stepped = jax.device_get(world.run_rounds(setup, 21)[0])
    assert_close(state.halves, stepped.halves)
    assert (state.ledger.link_bytes == stepped.ledger.link_bytes).all()
    assert chunks[2].metrics.train_loss[0] > 0
    assert not chunks[2].metrics.train_loss[1:].any()


def test_records_have_the_keys_of_the_doors(whole_run):
    _, _, _, (_, chunks) = whole_run
    record = rounds.make_record(chunks[2], 1, 21, 12.5)
    assert set(record) == {
        "round",
        "train/loss",
        "test/accuracy",
        "test/loss",
        "test/cloud_accuracy",
        "test/cloud_loss",
        "cluster/count",
        "cluster/kl_mean",
        "cluster/kl_max",
        "cluster/size_min",
        "cluster/size_max",
        "offload/cost",
        "clients/sampled",
        "clients/finished",
        "clients/counted",
        "clients/empty_rounds",
        "sim/time_s",
        "sim/energy_j",
        "comm/client_up_bytes",
        "comm/client_down_bytes",
        "comm/edge_cloud_bytes",
        "privacy/distance_correlation",
        "wall/round_ms",
    }
    assert record["train/loss"] == pytest.approx(float(chunks[2].metrics.train_loss[0]))
    assert all(isinstance(value, (int, float)) for value in record.values())
    assert isinstance(record["comm/client_up_bytes"], int)


@pytest.mark.slow
def test_a_run_compiles_before_its_first_round_only(monkeypatch):
    """And without distillation it says nothing of a cloud model."""
    events, ready, listener = [], [], Listener()

    def listen(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    def noting(*args):
        made = compile_program(*args)
        ready.append(len(events))
        return made

    compile_program = program.compile_program
    monkeypatch.setattr(experiment, "compile_program", noting)
    jax.clear_caches()  # or what an earlier test has compiled would not be seen
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        experiment.run(
            world.make_setup(CHANGES | {"cefl.distill.rule": "none"}), listener, listener
        )
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert ready == [len(events)] != [0]
    assert [record["round"] for record in listener.records] == [10, 20, 21]
    keys = {key for record in listener.records for key in record}
    assert "test/accuracy" in keys
    assert not [key for key in keys if "cloud" in key and not key.startswith("comm/")]


def test_a_run_learns_and_its_seed_decides_it():
    setup = world.make_setup(CHANGES)
    runs = [Listener(), Listener()]
    for listener in runs:
        experiment.run(setup, listener, listener)
    timeless = [
        [{k: v for k, v in record.items() if k != "wall/round_ms"} for record in run.records]
        for run in runs
    ]
    assert timeless[0] == timeless[1]
    assert timeless[0][-1]["test/accuracy"] > 0.9
    assert runs[0].states == [("running", 10), ("running", 20), ("running", 21)]
