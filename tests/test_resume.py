"""A run that was interrupted anywhere and resumed is the run that nobody interrupted."""

import dataclasses
import functools
import json
import math
import shutil

import jax
import numpy as np
import pytest

from cefl_jax import config, experiment, program, rounds
from cefl_jax.runtime.checkpoint import Checkpoints
from cefl_jax.runtime.nonfinite import Fault, NotFinite
from cefl_jax.runtime.preemption import Preempted, PreemptionGuard
from cefl_jax.specs import RunSpec
from tests import world
from tests.quick import quick_jit
from tests.runtime.examples import contents
from tests.runtime.examples import timeless_records as records

CHANGES = {
    "train.rounds": 7,
    "run.eval_every": 2,  # which does not divide them
    "run.checkpoint_every": 2,
    "run.checkpoint_keep": 2,
    "train.optimizer.momentum": 0.9,
    "network.dynamics": "markov",
    "network.leave_probability": 0.3,
    "network.deadline_s": 0.5,
    "network.late": "keep",
    "cefl.clustering.rule": "random",
    "cefl.privacy.probe_size": 0,
}
CHUNKS = 4
METHODS = ("scaffold", "fedopt", "fedgkt")  # whose clients, server, or both remember


NOT_OF_THE_PROGRAM = ("checkpoint_every", "checkpoint_keep", "checkpoint_async", "resume")


class Silent:
    """A display that shows nothing."""

    def note(self, text):
        """Nothing."""

    update = note


class Impatient:
    """A watch that is asked to leave after some chunks."""

    def __init__(self, chunks):
        self.left = chunks
        self.exit_immediately = PreemptionGuard().exit_immediately

    @property
    def asked(self):
        self.left -= 1
        return "SIGTERM" if self.left < 0 else None


class Killed(BaseException):
    """In place of an end without a word."""


PROGRAMS = {}


def quickly(setups, display):
    """As a `stack.Compiler`, but sooner done; a program is compiled once."""
    (setup,) = setups
    plain = {name: getattr(RunSpec(), name) for name in NOT_OF_THE_PROGRAM}
    run = dataclasses.replace(setup.spec.run, **plain)
    key = dataclasses.replace(setup.spec, run=run, seed=0), setup.planner.work, setup.planner.bounds
    if key not in PROGRAMS:
        start, advance = program.make_program(setup)
        everywhere = setup.mesh.everywhere
        jit = functools.partial(quick_jit, out_shardings=everywhere)
        PROGRAMS[key] = jit(start), jit(advance, donate_argnums=0, in_shardings=everywhere)
    start, advance = PROGRAMS[key]
    inputs = program.put_inputs([setup])
    return start(jax.random.key(setup.spec.seed), *inputs[1:]), advance, inputs, 0.25


@pytest.fixture(autouse=True, scope="module")
def _no_compilation_for_a_warning():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "warn_of_deadline", lambda *_: None)
        yield


def go(setup, path, watch=None, warned=None):
    """One call of a run, as the command makes it but without pictures."""
    warnings = [] if warned is None else warned
    workdir, past = experiment.claim(setup, path, warn=warnings.append)
    done = past.round if past else 0
    with workdir:
        workdir.write_config(config.to_dict(setup.spec))
        workdir.write_partition("[]")
        workdir.set_status("running", done)
        made = experiment.run(setup, workdir, Silent(), compiler=quickly, past=past, watch=watch)
        workdir.set_status("finished", setup.spec.train.rounds)
    assert warned is not None or warnings == []
    return made


def interrupt(setup, path, chunks):
    """A run that leaves after so many chunks."""
    with pytest.raises(Preempted, match="SIGTERM"):
        go(setup, path, Impatient(chunks - 1))


def kill(setup, path, chunks):
    """A run that ends after so many chunks, without a chance to save or to say so."""

    def record(self, *args, real=rounds.Rounds.record):
        if len(self.records) - self.before == chunks:
            raise Killed
        real(self, *args)

    def begin(self, *args, real=rounds.Rounds.__init__):
        real(self, *args)
        self.before = len(self.records)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds.Rounds, "__init__", begin)
        patch.setattr(rounds.Rounds, "record", record)
        with pytest.raises(Killed):
            go(setup, path)
    status = read(path / "status.json") | {"state": "running", "error": None}
    (path / "status.json").write_text(json.dumps(status) + "\n")


def read(path):
    return json.loads(path.read_text())


def newest_of(path):
    return max(place for place in (path / "checkpoints").iterdir() if place.name.isdecimal())


def final(path):
    """Round, and type, shape and bytes of every leaf, of the newest checkpoint."""
    loaded = Checkpoints(newest_of(path).parent, warn=pytest.fail).load()
    leaves = {
        name: (str(leaf.dtype), leaf.shape, leaf.tobytes()) for name, leaf in loaded.leaves.items()
    }
    return loaded.round, leaves


def rounds_in(path):
    return sorted(int(place.name) for place in (path / "checkpoints").iterdir())


def is_same(path, other):
    """Whether two runs have the same records and the same last state, bit for bit."""
    return records(path) == records(other) and final(path) == final(other)


@pytest.fixture(scope="module")
def setup():
    return world.make_setup(CHANGES)


@pytest.fixture(scope="module")
def peace(setup, tmp_path_factory):
    """The folder of a run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("peace") / "run"
    go(setup, folder)
    assert [record["round"] for record in records(folder)] == [2, 4, 6, 7]
    losses = [record["train/loss"] for record in records(folder)]
    assert len({*losses} - {None}) >= 3, "nothing is learned that could be different"
    kinds = [kind for kind, _, data in final(folder)[1].values() if any(data)]
    assert {"float32", "int32"} <= {*kinds}
    assert kinds.count("float32") > 10
    return folder


@pytest.fixture
def run(peace, tmp_path):
    """A copy of the folder of a finished run."""
    return shutil.copytree(peace, tmp_path / "run")


@pytest.fixture(scope="module")
def half(setup, tmp_path_factory):
    """The folder of a run that was killed after three chunks, with checkpoints of two of them."""
    folder = tmp_path_factory.mktemp("half") / "run"
    kill(setup, folder, 3)
    return folder


@pytest.fixture
def killed(half, tmp_path):
    """A copy of `half`."""
    return shutil.copytree(half, tmp_path / "killed")


def respec(setup, changes):
    """A setup with other dotted fields."""
    return setup._replace(spec=setup.spec.replace(changes))


def changed(setup, **run):
    """A setup with other fields of `run`."""
    return respec(setup, {f"run.{name}": value for name, value in run.items()})


def refuse(setup, path, words, num_warnings=0):
    """A run that may not be; nothing is different after it, and the folder is free."""
    before, warned = contents(path), []
    with pytest.raises(ValueError, match=words) as refusal:
        experiment.claim(setup, path, warn=warned.append)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert contents(path) == before
    assert len(warned) == num_warnings
    with pytest.raises(ValueError, match=words):  # not: in use
        experiment.claim(setup, path, warn=str)


@pytest.mark.parametrize("chunks", range(1, CHUNKS))
def test_run_interrupted_after_any_chunk(setup, peace, tmp_path, chunks):
    """A signal has it save, though nothing else would."""
    path, done = tmp_path / "run", 2 * chunks
    setup = changed(setup, checkpoint_every=None)
    interrupt(setup, path, chunks)
    status = read(path / "status.json")
    assert (status["state"], status["round"]) == ("preempted", done)
    assert "SIGTERM" in status["error"]
    assert rounds_in(path)[-1] == done
    assert records(path) == records(peace)[:chunks]
    made, summary = go(setup, path)
    assert is_same(path, peace)
    assert [record["round"] for record in made] == [2, 4, 6, 7]
    assert summary["resumed_at"] == [done]
    assert read(path / "status.json") == read(peace / "status.json")


def test_run_interrupted_after_every_chunk(setup, peace, tmp_path):
    """Each part adds its time to the others'; a program takes a quarter of a second to make."""
    path, walls = tmp_path / "run", [0.0]
    for _ in range(CHUNKS - 1):
        interrupt(setup, path, 1)
        seal = (newest_of(path) / "seal.json").read_text()
        walls.append(json.loads(seal.splitlines()[0])["facts"]["wall_s"])
    _, summary = go(setup, path)
    assert is_same(path, peace)
    assert summary["resumed_at"] == [2, 4, 6]
    assert summary["compile_s"] == 0.25 * CHUNKS
    assert sorted({*walls, summary["wall_s"]}) == [*walls, summary["wall_s"]]
    before = read(peace / "summary.json")
    assert summary.keys() == before.keys()
    for made in (before, summary):
        made["last"].pop("wall/round_ms")
    for key in ("last", "best", "totals", "network", "rounds", "partition_sha256", "data_sha256"):
        assert json.loads(json.dumps(summary[key])) == before[key], key


@pytest.mark.parametrize(
    ("chunks", "every"), [(0, 3), (1, 3), (2, 3), (3, 3), (2, None), (1, 1), (3, 1), (3, 100)]
)
def test_run_killed_after_any_chunk(setup, peace, tmp_path, chunks, every):
    """With checkpoints often, seldom or never: without one, it starts again."""
    path, often = tmp_path / "run", changed(setup, checkpoint_every=every)
    kill(often, path, chunks)
    go(often, path)
    assert is_same(path, peace)


@pytest.mark.parametrize("background", [True, False])
def test_run_saves_when_it_is_to(setup, tmp_path, background):
    seen, path = [], tmp_path / "run"

    def save(self, round, *args, real=Checkpoints.save):
        seen.append(round)
        real(self, round, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        go(changed(setup, checkpoint_every=3, checkpoint_async=background), path)
    assert seen == [4, 6, 7]
    assert rounds_in(path)[-2:] == [6, 7]


@pytest.mark.parametrize(
    "tail",
    [b'{"round": 8, "train/lo', b'{"round": 6, "x": 0.5}\n{"round": 7}\n', b"\0\xff\n\n", b"\n"],
)
def test_recall_cuts_off_what_was_written_after_the_checkpoint(setup, peace, killed, tail):
    with open(killed / "metrics.jsonl", "ab") as file:
        file.write(tail)
    go(setup, killed)
    assert is_same(killed, peace)


def test_recall_passes_a_checkpoint_over_whose_metrics_were_changed(setup, peace, killed):
    assert rounds_in(killed)[-2:] == [4, 6]
    file, warned = killed / "metrics.jsonl", []
    file.write_bytes(file.read_bytes().replace(b'"round": 6', b'"round": 5'))
    workdir, past = experiment.claim(setup, killed, warn=warned.append)
    workdir.close()
    assert past.round == 4
    assert len(warned) == 1
    assert "metrics.jsonl" in warned[0]
    assert records(killed) == records(peace)[:2]
    go(setup, killed, warned=[])
    assert is_same(killed, peace)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 77, "model.name": "cnn"}, r"model\.name .*, seed \(0 there, 77 here\)"),
        ({"train.optimizer.learning_rate": 0.015625}, r"learning_rate.*0\.015625 here"),
        ({"run.eval_every": 3}, r"run\.eval_every"),
        ({"method.name": "fedavg"}, r"method\.name"),
        ({"network.deadline_s": None}, r"network\.deadline_s"),
        ({"run.deterministic": False}, r"run\.deterministic"),
        ({"run.resume": "never"}, "--overwrite"),
        ({"train.rounds": 5}, r"train\.rounds=5: .* 6 rounds"),
    ],
)
def test_claim_refuses_other_settings(setup, killed, changes, words):
    refuse(respec(setup, changes), killed, words)


def test_claim_refuses_other_data_and_another_partition(setup, killed):
    for field in ("images", "labels", "test_images", "test_labels"):
        data = setup.data._replace(**{field: np.zeros_like(getattr(setup.data, field))})
        refuse(setup._replace(data=data), killed, "on other images or labels, .*; choose another")
    refuse(setup._replace(partition=setup.partition[::-1]), killed, "another partition")


def write(name, content):
    """A change to a run: other content of its files of a name, of which `%s` is what it was."""

    def change(path):
        for place in path.glob(name):
            place.write_bytes(content % place.read_bytes() if b"%" in content else content)

    return change


METRICS, SUMMARY, NO_SUMMARY = "metrics.jsonl", "summary.json", "train.rounds=7: .*no summary of it"


@pytest.mark.parametrize(
    ("which", "change", "words"),
    [
        ("killed", write(METRICS, b" %s"), "--overwrite"),  # its first line
        ("killed", write(METRICS, b"%.40s"), "--overwrite"),
        ("killed", write(METRICS, b""), "--overwrite"),
        ("killed", write("checkpoints/*/_METADATA", b""), "--overwrite"),
        ("run", lambda run: shutil.rmtree(run / "checkpoints"), "finished run without checkpoints"),
        ("run", lambda run: (run / SUMMARY).unlink(), NO_SUMMARY),
        ("run", write(SUMMARY, b'{"rounds": 4}'), NO_SUMMARY),  # an earlier one
        ("run", write(SUMMARY, b"[1]"), r"summary\.json: is no group of values; .*--overwrite"),
    ],
)
def test_claim_refuses_a_run_of_which_too_much_was_lost(setup, request, which, change, words):
    path = request.getfixturevalue(which)
    change(path)
    refuse(setup, path, words, num_warnings=len(rounds_in(path)) if which == "killed" else 0)


def test_check_facts_of_other_versions_and_devices(setup, killed):
    """Data that was not noted cannot be known; devices count where results depend on them."""
    facts = Checkpoints(killed / "checkpoints").load().facts
    experiment.check_facts(setup, killed, facts)
    experiment.check_facts(changed(setup, devices=2), killed, facts)
    noted = {name: fact for name, fact in facts.items() if name != "data_sha256"}
    with pytest.raises(ValueError, match="run that was saved by a version that noted no data_sha"):
        experiment.check_facts(setup, killed, noted)
    facts["settings"]["run"]["deterministic"] = False
    with pytest.raises(ValueError, match=r"run\.devices \(1 there, 2 here\)"):
        experiment.check_facts(changed(setup, deterministic=False, devices=2), killed, facts)


def test_conduct_leaves_a_finished_run_as_it_is(setup, run, capsys, monkeypatch):
    before = contents(run)
    monkeypatch.setattr(experiment, "run", pytest.fail)
    for _ in range(2):
        experiment.conduct(setup, *experiment.claim(setup, run))
        assert contents(run) == before
    assert "finished: 7 rounds" in capsys.readouterr().out


@pytest.mark.parametrize("state", ["running", "failed"])
def test_run_killed_between_its_last_checkpoint_and_its_end(setup, peace, run, state):
    (run / "status.json").write_text(json.dumps({"state": state, "round": 7, "error": None}))
    made, summary = go(setup, run)
    assert is_same(run, peace)
    assert len(made) == CHUNKS
    assert summary == read(peace / "summary.json")
    assert read(run / "status.json")["state"] == "finished"


def test_run_that_failed_is_resumed(setup, peace, tmp_path):
    """From the checkpoint before; what it failed with may have been the machine."""
    path, seen = tmp_path / "run", []

    def fault(*_):
        seen.append(1)
        return Fault(0, "split training", "halves") if len(seen) == 3 else None

    def make_record(*args, real=rounds.make_record):
        return real(*args) | ({"test/accuracy": math.nan} if len(seen) == 2 else {})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "find_fault", fault)
        patch.setattr(rounds, "make_record", make_record)
        with pytest.raises(NotFinite, match=r"^round 5, split training: halves"):
            go(setup, path)
    assert read(path / "status.json")["state"] == "failed"
    assert (path / "checkpoints" / "000006.failed").is_dir()
    go(setup, path)
    shutil.rmtree(path / "checkpoints" / "000006.failed")
    assert is_same(path, peace)


def test_claim_with_overwrite_starts_anew(setup, run):
    (run / "checkpoints" / "notes.txt").write_text("mine")
    (run / "checkpoints" / "000999.failed").mkdir()
    workdir, past = experiment.claim(respec(setup, {"seed": 3}), run, overwrite=True)
    workdir.close()
    assert past is None
    assert list(contents(run)) == ["checkpoints/notes.txt"]


def test_run_loses_no_round_to_a_disk_that_is_full_for_a_while(setup, peace, tmp_path, monkeypatch):
    warned = []

    def write(self, place, *args, real=Checkpoints._write):
        if place.name == "000004":
            raise OSError(28, "No space left on device")
        real(self, place, *args)

    monkeypatch.setattr(Checkpoints, "_write", write)
    go(setup, tmp_path / "run", warned=warned)
    assert len(warned) == 1
    assert is_same(tmp_path / "run", peace)


@pytest.mark.slow
def test_run_that_is_finished_can_be_made_longer(peace, tmp_path, setup):
    """Its state is that of one that was long from the start, wherever its first part ended."""
    path = tmp_path / "run"
    go(world.make_setup(CHANGES | {"train.rounds": 3}), path)
    assert read(path / "status.json")["state"] == "finished"
    _, summary = go(setup, path)
    assert summary["resumed_at"] == [3]
    assert [record["round"] for record in records(path)] == [2, 3, 5, 7]
    assert final(path) == final(peace)
    assert read(path / "config.json")["train"]["rounds"] == 7


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_run_of_a_method_with_a_memory_is_resumed(tmp_path, method):
    changes = {"train.rounds": 5, "run.eval_every": 2, "run.checkpoint_every": 2}
    setup = world.make_setup({"method.name": method} | changes)
    go(setup, tmp_path / "peace")
    interrupt(setup, tmp_path / "run", 1)
    kill(setup, tmp_path / "run", 1)
    go(setup, tmp_path / "run")
    assert is_same(tmp_path / "run", tmp_path / "peace")
