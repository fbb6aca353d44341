"""The run as a whole: one program, nothing to the host in between, and rounds that end anywhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cefl_jax import experiment, program, rounds, stack
from cefl_jax.runtime.summary import METRIC_KEYS
from tests import world
from tests.compare import assert_close
from tests.runtime.examples import MORE_KEYS

CHANGES = {"cefl.clustering.rule": "single", "train.rounds": 21, "run.eval_every": 10}


class Listener:
    """A display and a workdir that only remember."""

    def __init__(self):
        self.records, self.states, self.checkpoints = [], [], self

    def update(self, record):
        self.records.append(record)

    def set_status(self, state, round, error=None):
        self.states.append((state, round))

    def ignore(self, *_):
        """Nothing."""

    note = append_metrics = write_summary = write_timeline = save = wait = ignore


@pytest.fixture(scope="module")
def compiled():
    """The setup of a run of 21 rounds, what compiles to run it, and how often it was traced."""
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
        state, *rest = stack.Compiler()([setup], Listener())
    return setup, lambda *_: (jax.tree.map(jnp.copy, state), *rest), traces


@pytest.fixture(scope="module")
def whole_run(compiled):
    """The states that it was given, the last one, and the chunks of a run under a guard."""
    state, advance, inputs, _ = compiled[1]()
    chunks, given = [], []
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            given += jax.tree.leaves(state)
            state, chunk = advance(state, *inputs)
            chunks.append(chunk)
        jax.block_until_ready(chunks)
    return given, jax.device_get(state), jax.device_get(chunks)


def test_program_is_one_for_all_rounds_and_takes_each_state(compiled, whole_run):
    given, state, _ = whole_run
    assert len(compiled[2]) == 1
    assert state.round == 21
    assert given
    assert all(leaf.is_deleted() for leaf in given)


@pytest.mark.usefixtures("whole_run")
def test_program_hands_nothing_to_the_host_between_evaluations(compiled):
    """The guard raised nothing, it can raise, and the program has no way out but its result."""
    guarded = jax.transfer_guard("disallow")
    with guarded, pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed"):
        jax.jit(jax.numpy.sin)(np.ones(3))
    text = compiled[1]()[1].as_text()
    assert not [way for way in ("callback", "outfeed", "infeed", " send(", " recv(") if way in text]


def test_program_stops_in_the_chunk_where_the_run_ends(compiled, whole_run):
    _, state, chunks = whole_run
    stepped = jax.device_get(world.run_rounds(compiled[0], 21)[0])
    assert_close(state.halves, stepped.halves)
    assert (state.ledger.link_bytes == stepped.ledger.link_bytes).all()
    assert chunks[2].metrics.train_loss[0] > 0
    assert not chunks[2].metrics.train_loss[1:].any()


def test_make_record_has_the_keys_of_the_design(whole_run):
    chunk = whole_run[2][2]
    record = rounds.make_record(chunk, 1, 21, 12.5)
    assert set(record) == {*METRIC_KEYS, *MORE_KEYS}
    assert record["train/loss"] == pytest.approx(float(chunk.metrics.train_loss[0]))
    assert all(isinstance(value, (int, float)) for value in record.values())
    assert isinstance(record["comm/client_up_bytes"], int)
    for losses, mean in (([np.nan, 1, 2], 1.5), ([np.nan] * 3, np.nan)):  # nobody trained
        metrics = chunk.metrics._replace(train_loss=np.array(losses, np.float32))
        made = rounds.make_record(chunk._replace(metrics=metrics), 3, 21, 12.5)
        assert made["train/loss"] == pytest.approx(mean, nan_ok=True)


def test_run_learns_compiles_nothing_on_the_way_and_can_be_repeated(compiled):
    setup, compile, _ = compiled
    runs, events = [Listener(), Listener()], []

    def listen(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    def compile_and_listen(*_):
        made = compile()
        jax.monitoring.register_event_duration_secs_listener(listen)
        return made

    for listener in runs:
        experiment.run(setup, listener, listener, compiler=compile_and_listen)
        jax.monitoring.unregister_event_duration_listener(listen)
    assert events == []
    timeless = [[record | {"wall/round_ms": 0} for record in run.records] for run in runs]
    assert timeless[0] == timeless[1]
    assert [record["round"] for record in timeless[0]] == [10, 20, 21]
    assert timeless[0][-1]["test/accuracy"] > 0.9
    assert runs[0].states == [("running", 10), ("running", 20), ("running", 21)]
