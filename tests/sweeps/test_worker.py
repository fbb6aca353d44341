"""Runs that a worker makes: once each, side by side as alone, whatever becomes of the others."""

import contextlib
import json
import re

import jax
import numpy as np
import pytest

from cefl_jax import compiler, stack
from cefl_jax.data import sources
from cefl_jax.runtime.checkpoint import Checkpoints
from cefl_jax.runtime.preemption import Preempted, PreemptionGuard
from cefl_jax.runtime.summary import read_metrics
from cefl_jax.runtime.workdir import lock_folder, read_status
from cefl_jax.sweeps import Sweep
from cefl_jax.sweeps import width as widths
from cefl_jax.sweeps.definition import expand
from cefl_jax.sweeps.progress import SweepDisplay
from cefl_jax.sweeps.worker import DeviceError, Worker
from tests import world
from tests.compare import assert_close
from tests.quick import OPTIONS

RATE = "train.optimizer.learning_rate"
COMMON = {
    "data.name": "digits",
    "data.partition.name": "dirichlet",
    "data.partition.num_clients": 6,
    "data.partition.min_size": 4,
    "model.name": "mlp",
    "method.name": "fedavg",
    "train.clients_per_round": 3,
    "train.local_steps": 2,
    "train.batch_size": 4,
    "train.rounds": 3,
    "run.eval_every": 1,
    "run.devices": 1,
}


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch):
    dataset = world.make_dataset()._replace(name="digits")
    monkeypatch.setattr(sources, "load", lambda name, path: dataset)
    monkeypatch.setattr(compiler.compile_lowered, "__defaults__", (OPTIONS,))


def make_runs(changes=(), **axes):
    """The runs of a small sweep."""
    return expand(Sweep(common=COMMON | dict(changes), name="small", **axes), "full")


def work(folder, runs, watch=None, pictures=False, **options):
    """What a worker says while it makes runs."""
    folder.mkdir(exist_ok=True)
    display, said = SweepDisplay(runs, folder, "small"), []
    display._print = said.append
    with display:
        worker = Worker(folder, display, watch or PreemptionGuard(), pictures=pictures, **options)
        try:
            worker.work(runs)
        finally:
            said.append("end")
    return said


def results(folder, runs):
    """The metrics of each run but its wall clock, by title."""
    found = {}
    for run in runs:
        lines = read_metrics(folder / run.id / "metrics.jsonl")
        found[run.title] = [
            {key: value for key, value in line.items() if key != "wall/round_ms"} for line in lines
        ]
    return found


def states(folder, runs):
    return {run.title: read_status(folder / run.id)[0] for run in runs}


def compilations(said):
    return [line for line in said if line.startswith("compiling")]


FOUR = {"grid": {RATE: (0.05, 0.2)}, "seeds": 2}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Four runs, one after another in the flat layout, with pictures."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        _small_and_quick.__wrapped__(patch)
        runs = make_runs({"run.layout": "flat"}, **FOUR)
        said = work(folder, runs, pictures=True, width=1)
    return folder, runs, said


def test_runs_are_made_once_and_one_program_serves_rates_and_seeds(alone):
    folder, runs, said = alone
    assert set(states(folder, runs).values()) == {"finished"}
    assert len(compilations(said)) == 1
    assert said[-2].startswith("done 4  running 0  failed 0  waiting 0  remaining 0:00:00  finish")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json*")}
    assert work(folder, runs) == ["small", "end"]
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.json*")}
    finals = {json.dumps(lines[-1]) for lines in results(folder, runs).values()}
    assert len(finals) == 4


def shape_of(value):
    """A JSON value with its numbers left out."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items()}
    return [shape_of(item) for item in value] if isinstance(value, list) else type(value)


def test_runs_side_by_side_leave_the_files_that_they_leave_alone(alone, tmp_path):
    """Three and one, which is filled up to three; over two devices with room for four."""
    folder, runs, _ = alone
    said = work(tmp_path / "s", runs, pictures=True, width=3)
    assert compilations(said) == ["compiling the round of 8 runs side by side ..."]
    assert_close(results(tmp_path / "s", runs), results(folder, runs))
    for run in runs:
        names = [
            {
                re.sub(r"\.tfevents\..*|\d{6}/.*", "", str(path.relative_to(place / run.id)))
                for path in (place / run.id).rglob("*")
            }
            for place in (folder, tmp_path / "s")
        ]
        assert names[0] == names[1]
        for name in ("summary.json", "timeline.json", "partition.json", "config.json"):
            one, other = (
                json.loads((place / run.id / name).read_text())
                for place in (folder, tmp_path / "s")
            )
            assert shape_of(one) == shape_of(other), name
        assert (folder / run.id / "config.json").read_text() == (
            tmp_path / "s" / run.id / "config.json"
        ).read_text()


def test_a_run_that_diverges_fails_and_those_beside_it_do_not_notice(alone, tmp_path):
    folder, runs, _ = alone
    worse = make_runs({"run.layout": "flat"}, grid={RATE: (0.05, 1e30, 0.2)}, seeds=2)
    said = work(tmp_path, worse, width=6)
    ended = states(tmp_path, worse)
    assert [title for title, state in ended.items() if state == "failed"] == [
        f"learning_rate=1e+30, seed {seed}" for seed in (0, 1)
    ]
    assert_close(results(tmp_path, runs), results(folder, runs))
    (first, *_) = (line for line in said if line.startswith("warning"))
    assert re.search(r"learning_rate=1e\+30, seed \d: round \d, .* is not finite", first)
    bad = worse[2]
    assert "is not finite" in (read_status(tmp_path / bad.id)[2] or "")
    assert [*(tmp_path / bad.id / "checkpoints").glob("*.failed")]
    assert not compilations(work(tmp_path, worse, width=6))  # failed runs are left


class Impatient(PreemptionGuard):
    """Asks to leave after so many chunks."""

    def exit_immediately(self, *_):
        return contextlib.nullcontext()

    def __init__(self, chunks):
        super().__init__()
        self.chunks = chunks

    @property
    def asked(self):
        self.chunks -= 1
        return "SIGTERM" if self.chunks < 0 else None

    @asked.setter
    def asked(self, _):
        """Nothing."""


def test_a_stack_that_is_interrupted_goes_on_from_unequal_rounds(tmp_path):
    runs = make_runs(**FOUR)
    work(tmp_path / "peace", runs, width=4)
    whole = results(tmp_path / "peace", runs)
    place = tmp_path / "s"
    with pytest.raises(Preempted, match="SIGTERM, after the rounds that were computed"):
        work(place, runs[:2], Impatient(0), width=4)
    assert {*states(place, runs[:2]).values()} == {"preempted"}
    assert read_status(place / runs[0].id)[1] == 1
    with pytest.raises(Preempted):
        work(place, runs, Impatient(0), width=4)
    rounds = [read_status(place / run.id)[1] for run in runs]
    assert rounds == [2, 2, 1, 1]
    work(place, runs, width=4)
    assert set(states(place, runs).values()) == {"finished"}
    assert results(place, runs) == whole  # bit for bit: it is the same program


def test_runs_begun_in_one_layout_are_finished_in_it(tmp_path):
    runs = make_runs(**FOUR)
    with pytest.raises(Preempted):
        work(tmp_path, runs[:1], Impatient(0), width=1)
    work(tmp_path, runs, width=4)
    layouts = [
        json.loads((tmp_path / run.id / "config.json").read_text())["run"]["layout"] for run in runs
    ]
    assert layouts == ["loop", "flat", "flat", "flat"]
    assert set(states(tmp_path, runs).values()) == {"finished"}


def test_a_run_that_cannot_be_prepared_fails_alone(tmp_path):
    runs = make_runs(grid={"data.partition.min_size": (1, 30)})
    work(tmp_path, runs, width=2)
    assert [*states(tmp_path, runs).values()] == ["finished", "failed"]
    assert "data.partition" in (read_status(tmp_path / runs[1].id)[2] or "")


@pytest.mark.parametrize("width", [1, 2])
def test_an_error_while_compiling_fails_the_runs_of_that_program_alone(
    tmp_path, monkeypatch, width
):
    compile_both = stack.program.compile_both

    def fail(setups, *more):
        if setups[0].spec.train.batch_size == 5:
            raise TypeError("no such shape")
        return compile_both(setups, *more)

    monkeypatch.setattr(stack.program, "compile_both", fail)
    runs = make_runs(grid={"train.batch_size": (5, 4)})
    work(tmp_path, runs, width=width)
    assert [*states(tmp_path, runs).values()] == ["failed", "finished"]
    assert "no such shape" in (read_status(tmp_path / runs[0].id)[2] or "")


def test_a_run_that_another_worker_has_is_left(tmp_path):
    runs = make_runs(seeds=2)
    (tmp_path / runs[0].id).mkdir()
    lock = lock_folder(tmp_path / runs[0].id)
    work(tmp_path, runs, width=1)
    lock.release()
    assert [*states(tmp_path, runs).values()] == [None, "finished"]


def test_a_damaged_run_starts_anew(tmp_path):
    runs = make_runs()
    work(tmp_path, runs, width=1)
    whole, place = results(tmp_path, runs), tmp_path / runs[0].id
    (place / "status.json").write_text('{"state": "running", "round": 3}')
    for file in (place / "checkpoints").rglob("seal.json"):
        file.write_text("{}")
    said = work(tmp_path, runs, width=1)
    assert any("starts anew" in line for line in said)
    assert results(tmp_path, runs) == whole


def test_shards_begin_with_their_own_part(tmp_path):
    runs = make_runs(seeds=4)
    said = work(tmp_path, runs, width=1, shard=(1, 2))
    order = [re.search(r"finished seed (\d)", line) for line in said]
    assert [int(found[1]) for found in order if found] == [2, 3, 0, 1]


def test_width_follows_the_memory_and_one_that_is_told_has_to_fit(tmp_path, monkeypatch):
    runs = make_runs(**FOUR)
    monkeypatch.setattr(jax, "devices", lambda real=jax.devices: real()[:1])
    needed = {}
    monkeypatch.setattr(
        stack.Compiler,
        "bytes",
        lambda _, setups, __: needed.setdefault(len(setups), 10**6 * len(setups)),
    )
    monkeypatch.setattr(widths, "device_bytes", lambda device: 2.5e6)
    with pytest.raises(ValueError, match=r"^--width=4: so many runs .* need 4 MB .* has 2.5 MB"):
        work(tmp_path / "s", runs, width=4)
    assert states(tmp_path / "s", runs) == dict.fromkeys(states(tmp_path / "s", runs))

    def auto(folder):
        folder.mkdir()
        display = SweepDisplay(runs, folder, "small")
        display._print = lambda line: None
        with display:
            worker = Worker(folder, display, PreemptionGuard(), pictures=False)
            worker.side_by_side = True  # as on an accelerator
            worker.work(runs)

    needed.clear()
    auto(tmp_path / "auto")
    assert needed == {4: 4e6, 2: 2e6}
    assert set(states(tmp_path / "auto", runs).values()) == {"finished"}
    monkeypatch.setattr(widths, "device_bytes", lambda device: 0.5e6)
    auto(tmp_path / "small")
    assert set(states(tmp_path / "small", runs).values()) == {"failed"}
    said = "TooWide: 1 runs side by side need 1 MB on each device, which has 500 kB; lower run."
    assert (read_status(tmp_path / "small" / runs[0].id)[2] or "").startswith(said)


@pytest.mark.parametrize("devices", [1, 2])
def test_memory_that_runs_out_halves_the_width(tmp_path, monkeypatch, devices):
    runs = make_runs(**FOUR)
    advance = stack.Stack.advance

    def fail(self):
        if np.shape(self._inputs[0].learning_rate)[0] > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return advance(self)

    monkeypatch.setattr(stack.Stack, "advance", fail)
    monkeypatch.setattr(jax, "devices", lambda real=jax.devices: real()[:devices])
    said = work(tmp_path, runs, width=16)
    assert "out of memory; from here on 2 runs side by side" in said
    assert set(states(tmp_path, runs).values()) == {"finished"}


def test_devices_that_fail_leave_the_runs_to_others(tmp_path, monkeypatch):
    runs = make_runs(**FOUR)
    with monkeypatch.context() as patch:
        patch.setattr(stack.Stack, "advance", raise_device_error)
        with pytest.raises(DeviceError, match="the devices have failed, no more is made here"):
            work(tmp_path, runs, width=2)
    assert "failed" not in states(tmp_path, runs).values()
    work(tmp_path, runs, width=4)
    assert set(states(tmp_path, runs).values()) == {"finished"}


def raise_device_error(_):
    raise jax.errors.JaxRuntimeError("INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS")


def test_a_checkpoint_of_another_version_fails_its_run_alone(tmp_path):
    runs = make_runs(**FOUR)
    with pytest.raises(Preempted):
        work(tmp_path, runs, Impatient(0), width=4)
    bad = tmp_path / runs[1].id / "checkpoints" / "000001"
    checkpoints = Checkpoints(bad.parent)
    saved = checkpoints.load_round(1)
    checkpoints.save(1, saved.leaves | {".more": np.zeros(3)}, saved.facts)
    checkpoints.wait()
    work(tmp_path, runs, width=4)
    assert [*states(tmp_path, runs).values()] == ["finished", "failed", "finished", "finished"]
    assert ".more" in (read_status(tmp_path / runs[1].id)[2] or "")


def test_a_run_that_ends_meanwhile_is_not_marked_as_failed(tmp_path, monkeypatch):
    """Its folder says that it is finished when an error of this worker is noted."""
    runs = make_runs()
    display = SweepDisplay(runs, tmp_path, "small")
    display._print = lambda line: None
    with display:
        worker = Worker(tmp_path, display, PreemptionGuard(), width=1, pictures=False)
        worker.work(runs)
        before = (tmp_path / runs[0].id / "config.json").read_text()
        worker._fail(runs[0], ValueError("too late"))
    assert states(tmp_path, runs) == {"seed 0": "finished"}
    assert (tmp_path / runs[0].id / "config.json").read_text() == before


def test_runs_of_a_stack_continue_alone_and_the_other_way_round(tmp_path):
    """Nothing that was computed is lost when the width changes."""
    runs = make_runs(**FOUR)
    with pytest.raises(Preempted):
        work(tmp_path, runs, Impatient(0), width=4)
    with pytest.raises(Preempted):
        work(tmp_path, runs[:2], Impatient(0), width=1)
    said = work(tmp_path, runs, width=2)
    assert not any("anew" in line for line in said)
    resumed = [
        json.loads((tmp_path / run.id / "summary.json").read_text())["resumed_at"] for run in runs
    ]
    assert resumed == [[1, 2], [1], [1], [1]]
