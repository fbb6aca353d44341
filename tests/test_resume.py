"""A run that was interrupted anywhere and gone on with is the run that nobody interrupted."""

import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import pytest
from absl.testing import flagsaver

from cefl_jax import config, experiment, main, program, rounds
from cefl_jax.runtime import checkpoint
from cefl_jax.runtime.checkpoint import Checkpoints
from cefl_jax.runtime.nonfinite import Fault, NotFinite
from cefl_jax.runtime.preemption import Preempted, PreemptionGuard
from cefl_jax.runtime.workdir import LOCK
from cefl_jax.specs import RunSpec
from tests import world
from tests.quick import quick_jit
from tests.survival import small

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
METHODS = {
    "scaffold": {"method.name": "scaffold"},
    "fedopt": {"method.name": "fedopt"},
    "fednova": {"method.name": "fednova", "fednova.server_momentum": 0.5},
    "fedgkt": {"method.name": "fedgkt"},
}


class Silent:
    """A display that only remembers."""

    def __init__(self, *_):
        self.notes, self.records = [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def note(self, text):
        self.notes.append(text)

    def update(self, record):
        self.records.append(record)


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


def quickly(setup, display, meanwhile=lambda: None):
    """As `compile_program`, but sooner done; a program is compiled once."""
    meanwhile()
    inputs = program.put_inputs(setup)
    start, advance = _compiled(_Same(setup))
    state = start(jax.random.key(setup.spec.seed), *inputs[1:])
    return state, advance, inputs, 0.25


class _Same:
    """What a program is made of; two that need the same program are equal."""

    def __init__(self, setup):
        self.setup = setup
        names = ("checkpoint_every", "checkpoint_keep", "checkpoint_async", "resume")
        plain = {name: getattr(RunSpec(), name) for name in names}
        run = dataclasses.replace(setup.spec.run, **plain)
        self.key = (
            dataclasses.replace(setup.spec, run=run, seed=0),
            setup.planner.work,
            setup.planner.bounds,
        )

    def __eq__(self, other):
        return self.key == other.key

    def __hash__(self):
        return hash(self.key)


@functools.lru_cache(2)
def _compiled(same):
    setup = same.setup
    start, advance = program.make_program(setup)
    everywhere = setup.mesh.everywhere
    jit = functools.partial(quick_jit, out_shardings=everywhere)
    return jit(start), jit(advance, donate_argnums=0, in_shardings=everywhere)


@pytest.fixture(autouse=True)
def _no_compilation_for_a_warning(monkeypatch):
    monkeypatch.setattr(rounds, "warn_of_deadline", lambda *_: None)


def go(setup, path, watch=None, said=None, overwrite=False):
    """One call of a run, as the door makes it but without pictures."""
    told = [] if said is None else said
    workdir, past = experiment.claim(setup, path, overwrite, told.append)
    done = past.round if past else 0
    with workdir:
        workdir.write_config(config.to_dict(setup.spec))
        workdir.write_partition("[]")
        workdir.set_status("running", done)
        made = experiment.run(setup, workdir, Silent(), compile=quickly, past=past, watch=watch)
        workdir.set_status("finished", setup.spec.train.rounds)
    if said is None:
        assert told == []
    return made


def interrupt(setup, path, chunks):
    """A run that leaves after so many chunks."""
    with pytest.raises(Preempted, match="SIGTERM"):
        go(setup, path, Impatient(chunks - 1))


def kill(setup, path, chunks):
    """A run that ends after so many chunks, without a chance to save or to say so."""

    def advance(self, real=rounds.Rounds.advance):
        if len(self.records) - self.before == chunks:
            raise Killed
        real(self)

    def begin(self, *args, real=rounds.Rounds.__init__):
        real(self, *args)
        self.before = len(self.records)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds.Rounds, "__init__", begin)
        patch.setattr(rounds.Rounds, "advance", advance)
        with pytest.raises(Killed):
            go(setup, path)
    done = json.loads((path / "status.json").read_text())["round"]
    (path / "status.json").write_text(
        json.dumps({"state": "running", "round": done, "error": None}) + "\n"
    )


def read(path):
    return json.loads(path.read_text())


def records(path):
    """The lines of metrics but for wall-clock times; every line is whole."""
    text = (path / "metrics.jsonl").read_text()
    assert not text or text.endswith("\n")
    return [
        {key: value for key, value in json.loads(line).items() if key != "wall/round_ms"}
        for line in text.splitlines()
    ]


def final(path):
    """Round, facts and bytes of every leaf of the newest checkpoint."""
    newest = max(place for place in (path / "checkpoints").iterdir() if place.name.isdecimal())
    loaded = Checkpoints(newest.parent, warn=pytest.fail).load()
    leaves = {
        name: (str(leaf.dtype), leaf.shape, leaf.tobytes()) for name, leaf in loaded.leaves.items()
    }
    return loaded.round, leaves


def rounds_in(path):
    return sorted(int(place.name) for place in (path / "checkpoints").iterdir())


def contents(folder):
    """Every file under a folder, locks aside, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK
    }


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "warn_of_deadline", lambda *_: None)
        go(setup, folder)
    assert [record["round"] for record in records(folder)] == [2, 4, 6, 7]
    losses = [record["train/loss"] for record in records(folder)]
    assert len({*losses} - {None}) >= 3, "nothing is learned that could be different"
    return folder


@pytest.fixture
def run(peace, tmp_path):
    """A copy of the folder of a finished run."""
    return shutil.copytree(peace, tmp_path / "run")


@pytest.fixture(scope="module")
def half(setup, tmp_path_factory):
    """The folder of a run that was killed after three chunks, with checkpoints of two of them."""
    folder = tmp_path_factory.mktemp("half") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "warn_of_deadline", lambda *_: None)
        kill(setup, folder, 3)
    return folder


@pytest.fixture
def killed(half, tmp_path):
    """A copy of `half`."""
    return shutil.copytree(half, tmp_path / "run")


def changed(setup, **run):
    """A setup with other fields of `run`."""
    spec = dataclasses.replace(setup.spec, run=dataclasses.replace(setup.spec.run, **run))
    return setup._replace(spec=spec)


def test_a_run_can_be_repeated(setup, peace, tmp_path):
    """Without which there would be nothing to compare."""
    go(setup, tmp_path / "run")
    assert is_same(tmp_path / "run", peace)


@pytest.mark.parametrize("chunks", range(1, CHUNKS))
def test_interrupted_after_any_chunk(setup, peace, tmp_path, chunks):
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
    assert read(path / "summary.json")["last"].keys() == read(peace / "summary.json")["last"].keys()
    assert read(path / "status.json") == read(peace / "status.json")


def test_interrupted_after_every_chunk(setup, peace, tmp_path):
    """Each part adds its time to the others'; a program takes a quarter of a second to make."""
    path, walls = tmp_path / "run", []
    for _ in range(CHUNKS - 1):
        interrupt(setup, path, 1)
        newest = path / "checkpoints" / f"{rounds_in(path)[-1]:06d}"
        walls.append(json.loads((newest / "seal.json").read_text().splitlines()[0]))
    _, summary = go(setup, path)
    assert is_same(path, peace)
    assert summary["resumed_at"] == [2, 4, 6]
    assert summary["compile_s"] == 0.25 * CHUNKS
    walls = [content["facts"]["wall_s"] for content in walls]
    assert sorted({0, *walls, summary["wall_s"]}) == [0, *walls, summary["wall_s"]]
    before = read(peace / "summary.json")
    for key in ("last", "best", "totals", "network", "rounds", "partition_sha256", "data_sha256"):
        here, there = summary[key], before[key]
        for times in (here, there) if key == "last" else ():
            times.pop("wall/round_ms")
        assert json.loads(json.dumps(here)) == there, key
    assert {"versions", "device", "revision"} <= {*summary, "revision"}


SOME = [(0, 3), (1, 3), (2, 3), (3, 3), (2, None), (1, 1)]
MORE = [(chunks, every) for chunks in range(4) for every in (None, 1, 3, 100)]


@pytest.mark.parametrize(
    ("chunks", "every"),
    [*SOME, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE if case not in SOME)],
)
def test_killed_after_any_chunk(setup, peace, tmp_path, chunks, every):
    """With checkpoints often, seldom or never: without one, it starts again."""
    path, often = tmp_path / "run", changed(setup, checkpoint_every=every)
    kill(often, path, chunks)
    go(often, path)
    assert is_same(path, peace)


@pytest.mark.parametrize("background", [True, False])
def test_it_is_saved_when_it_is_to_be(setup, tmp_path, background):
    seen, path = [], tmp_path / "run"
    real = Checkpoints.save

    def save(self, round, *args):
        seen.append(round)
        real(self, round, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        go(changed(setup, checkpoint_every=3, checkpoint_async=background), path)
    assert seen == [4, 6, 7]
    assert rounds_in(path)[-2:] == [6, 7]


@pytest.mark.parametrize(
    "tail",
    [
        b'{"round": 8, "train/lo',
        b'{"round": 6, "train/loss": 0.5}\n{"round": 7}\n',
        b"\0\xff\n\n",
        b"\n",
    ],
)
def test_what_was_written_after_the_checkpoint_is_cut_off(setup, peace, killed, tail):
    with open(killed / "metrics.jsonl", "ab") as file:
        file.write(tail)
    go(setup, killed)
    assert is_same(killed, peace)


def newest_of(path):
    return path / "checkpoints" / f"{rounds_in(path)[-1]:06d}"


def damage(path):
    file = max(
        (file for file in (newest_of(path) / "d").iterdir()), key=lambda file: file.stat().st_size
    )
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def test_a_damaged_checkpoint_is_told_and_the_metrics_cut_to_the_one_before(setup, peace, killed):
    assert rounds_in(killed)[-2:] == [4, 6]
    damage(killed)
    said = []
    workdir, past = experiment.claim(setup, killed, warn=said.append)
    workdir.close()
    assert past.round == 4
    assert len(said) == 1
    assert "round 6" in said[0]
    assert records(killed) == records(peace)[:2]
    go(setup, killed, said=[])
    assert is_same(killed, peace)


def test_a_line_that_was_changed_is_not_gone_on_from(setup, peace, killed):
    """But from before it; and where it is the first, from nowhere."""
    file = killed / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1] + lines[2].replace(b'"round": 6', b'"round": 5'))
    said = []
    go(setup, killed, said=said)
    assert len(said) == 1
    assert "metrics.jsonl" in said[0]
    assert is_same(killed, peace)
    content = file.read_bytes()
    for bad in (b" " + content, content[1:], b"", content[:40]):
        file.write_bytes(bad)
        refuse(setup, killed, "--overwrite", said=[])


def refuse(setup, path, words, said=None):
    """A run that may not be; nothing is different after it, and the folder is free."""
    before, told = contents(path), [] if said is None else said
    with pytest.raises(ValueError, match=words) as refusal:
        experiment.claim(setup, path, warn=told.append)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert contents(path) == before
    if said is None:
        assert told == []
    with pytest.raises(ValueError, match=words):  # not: in use
        experiment.claim(setup, path, warn=told.append)


def test_other_settings_are_refused_and_named(setup, killed):
    spec = setup.spec.replace({"train.optimizer.learning_rate": 0.015625})
    spec = spec.replace({"seed": 77})
    both = r"seed \(0 there, 77 here\).*learning_rate.*0\.015625"
    refuse(setup._replace(spec=spec), killed, both)
    for field, value in {
        "run.eval_every": 3,
        "method.name": "fedavg",
        "model.name": "cnn",
        "train.batch_size": 5,
        "network.deadline_s": None,
    }.items():
        spec = setup.spec.replace({field: value})
        refuse(setup._replace(spec=spec), killed, field.replace(".", r"\."))


def test_another_partition_is_refused(setup, killed):
    parts = [*setup.partition[1:], setup.partition[0]]
    refuse(setup._replace(partition=parts), killed, "another partition")


@pytest.mark.parametrize("field", ["images", "labels", "test_images", "test_labels"])
def test_a_run_is_not_gone_on_with_on_other_data(setup, killed, field):
    data = setup.data._replace(**{field: np.zeros_like(getattr(setup.data, field))})
    refuse(setup._replace(data=data), killed, "on other images or labels, .*; choose another")


def test_a_run_that_noted_no_data_is_not_gone_on_with(setup, killed):
    """It was made by a version that did not; what it was trained on cannot be known."""
    newest = rounds_in(killed)[-1]
    facts = checkpoint.read_facts(killed / "checkpoints" / f"{newest:06d}")
    experiment.check_facts(setup, killed, facts)
    facts.pop("data_sha256")
    with pytest.raises(ValueError, match="run that was saved by a version that noted no data_sha"):
        experiment.check_facts(setup, killed, facts)


def test_a_run_that_has_gone_further_is_refused(setup, run):
    for count in (6, 1):
        spec = setup.spec.replace({"train.rounds": count})
        refuse(setup._replace(spec=spec), run, f"train.rounds={count}: .* 7 rounds")


@pytest.mark.parametrize("which", ["peace", "half"])
def test_resuming_can_be_forbidden(setup, request, tmp_path, which):
    path = shutil.copytree(request.getfixturevalue(which), tmp_path / "run")
    refuse(changed(setup, resume="never"), path, "--overwrite")


def test_a_finished_run_without_checkpoints_is_refused(setup, run):
    """It was made before there were any, or somebody has made room."""
    shutil.rmtree(run / "checkpoints")
    refuse(setup, run, "finished run without checkpoints")


@pytest.mark.parametrize("content", [None, '{"rounds": 4}'])
def test_a_run_that_ends_without_its_summary_is_refused(setup, run, content):
    """It has nothing left to compute, and the summary that is there is none or an earlier one."""
    (run / "summary.json").unlink()
    if content:
        (run / "summary.json").write_text(content)
    refuse(setup, run, r"train\.rounds=7: .*has no summary of it")


def test_a_summary_that_is_none_is_told(setup, run):
    (run / "summary.json").write_text("[1]")
    refuse(setup, run, r"summary\.json: is no summary of a run; remove it or pass")


def test_checkpoints_that_are_all_damaged_are_refused(setup, killed):
    for place in (killed / "checkpoints").iterdir():
        (place / "_METADATA").write_bytes(b"")
    said = []
    refuse(setup, killed, "--overwrite", said)
    assert len(said) == 2 * len(rounds_in(killed))  # twice asked


def test_a_finished_run_is_left_as_it_is(setup, run, capsys, monkeypatch):
    before = contents(run)
    monkeypatch.setattr(experiment, "run", pytest.fail)
    for _ in range(2):
        workdir, past = experiment.claim(setup, run)
        experiment.conduct(setup, workdir, past)
        assert contents(run) == before
    assert "finished: 7 rounds" in capsys.readouterr().out


def test_killed_between_the_last_checkpoint_and_the_end(setup, peace, run):
    for state in ("running", "preempted", "failed"):
        (run / "status.json").write_text(json.dumps({"state": state, "round": 7, "error": None}))
        made, summary = go(setup, run)
        assert is_same(run, peace)
        assert len(made) == CHUNKS
        assert summary == read(peace / "summary.json")
        assert read(run / "status.json")["state"] == "finished"


def test_a_run_that_failed_goes_on(setup, peace, tmp_path):
    """From the checkpoint before; what it failed with may have been the machine."""
    path, seen = tmp_path / "run", []

    def fault(*_):
        seen.append(1)
        return Fault(0, "split training", "halves") if len(seen) == 3 else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "find_fault", fault)
        with pytest.raises(NotFinite):
            go(setup, path)
    assert read(path / "status.json")["state"] == "failed"
    assert (path / "checkpoints" / "000006.failed").is_dir()
    go(setup, path)
    shutil.rmtree(path / "checkpoints" / "000006.failed")
    assert is_same(path, peace)


def test_overwriting_starts_anew(setup, peace, run):
    (run / "checkpoints" / "notes.txt").write_text("mine")
    (run / "checkpoints" / "000999.failed").mkdir()
    spec = setup.spec.replace({"seed": 3})
    workdir, past = experiment.claim(setup._replace(spec=spec), run, overwrite=True)
    workdir.close()
    assert past is None
    assert list(contents(run)) == ["checkpoints/notes.txt"]
    (run / "checkpoints" / "notes.txt").unlink()
    go(setup, run)
    assert is_same(run, peace)


def test_a_disk_that_is_full_for_a_while_costs_no_round(setup, peace, tmp_path, monkeypatch):
    real, said = Checkpoints._write, []

    def write(self, place, *args):
        if place.name == "000004":
            raise OSError(28, "No space left on device")
        real(self, place, *args)

    monkeypatch.setattr(Checkpoints, "_write", write)
    go(setup, tmp_path / "run", said=said)
    assert len(said) == 1
    assert is_same(tmp_path / "run", peace)


@pytest.mark.slow
@pytest.mark.parametrize("first", [4, 6])
def test_a_finished_run_can_be_made_longer(peace, tmp_path, setup, first):
    """Where it ended with an evaluation that the longer one has too, it is the longer one."""
    short = world.make_setup(CHANGES | {"train.rounds": first})
    path = tmp_path / "run"
    go(short, path)
    assert read(path / "status.json")["state"] == "finished"
    _, summary = go(setup, path)
    assert is_same(path, peace)
    assert summary["resumed_at"] == [first]
    assert read(path / "config.json")["train"]["rounds"] == 7


@pytest.mark.slow
def test_a_longer_run_has_the_state_of_one_that_was_long_from_the_start(tmp_path):
    """Also where the first part ended between two evaluations of the other."""
    short, long = (world.make_setup(CHANGES | {"train.rounds": count}) for count in (3, 5))
    go(short, tmp_path / "run")
    go(long, tmp_path / "run")
    go(long, tmp_path / "long")
    assert final(tmp_path / "run") == final(tmp_path / "long")
    assert [record["round"] for record in records(tmp_path / "run")] == [2, 3, 5]


@pytest.mark.slow
def test_the_number_of_devices_may_change_on_the_way(tmp_path):
    """1, then 2, then 4: where results do not depend on it, and nowhere else."""
    changes = CHANGES | {"run.distill_parts": 4}
    setups = [world.make_setup(changes | {"run.devices": count}) for count in (1, 2, 4)]
    go(setups[0], tmp_path / "one")
    path = tmp_path / "run"
    interrupt(setups[0], path, 1)
    interrupt(setups[1], path, 1)
    go(setups[2], path)
    assert is_same(path, tmp_path / "one")


def test_the_number_of_devices_counts_where_results_depend_on_it(setup, killed):
    fast = changed(setup, deterministic=False)
    refuse(fast, killed, "run.deterministic")
    for place in (killed / "checkpoints").iterdir():
        facts = Checkpoints(place.parent).load_round(int(place.name)).facts
        assert facts["settings"]["run"]["devices"] == 1
    experiment.check_facts(changed(setup, devices=2), killed, facts)
    facts["settings"]["run"]["deterministic"] = False
    with pytest.raises(ValueError, match=r"run\.devices \(1 there, 2 here\)"):
        experiment.check_facts(changed(fast, devices=2), killed, facts)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_methods_with_a_memory(tmp_path, method):
    setup = world.make_setup(
        METHODS[method] | {"train.rounds": 5, "run.eval_every": 2, "run.checkpoint_every": 2}
    )
    go(setup, tmp_path / "peace")
    for chunks in (1, 2):
        interrupt(setup, tmp_path / f"run{chunks}", chunks)
        go(setup, tmp_path / f"run{chunks}")
        assert is_same(tmp_path / f"run{chunks}", tmp_path / "peace")
        kill(setup, tmp_path / f"killed{chunks}", chunks)
        go(setup, tmp_path / f"killed{chunks}")
        assert is_same(tmp_path / f"killed{chunks}", tmp_path / "peace")


def test_the_numbers_of_a_run_are_there_to_be_compared(peace):
    """A state of which nothing was saved would be the same, too."""
    _, leaves = final(peace)
    assert len(leaves) > 20
    kinds = {kind for kind, _, _ in leaves.values()}
    assert {"float32", "int32", "uint32"} <= kinds
    changing = [
        name
        for name, (kind, _, data) in leaves.items()
        if kind == "float32" and np.frombuffer(data, np.float32).any()
    ]
    assert len(changing) > 10


def arguments(path, **changes):
    """A command line of `small`, taken in."""
    settings = small.SETTINGS | {name.replace("__", "."): value for name, value in changes.items()}
    return main.parse(
        [
            "main",
            f"--config={small.ROOT / 'configs' / 'quickstart.py'}",
            f"--workdir={path}",
            *(f"--config.{field}={value}" for field, value in settings.items()),
        ]
    )


def test_the_door_refuses_another_run_before_it_takes_the_folder(tmp_path, capsys):
    path = tmp_path / "run"
    with flagsaver.flagsaver():
        setup = main.check(arguments(path))
    workdir, _ = experiment.claim(setup, path)
    with workdir:
        workdir.write_config(config.to_dict(setup.spec))
        workdir.append_metrics({"round": 1, "train/loss": 0.5})
    before = contents(tmp_path)
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
        main.main(arguments(path, seed=5, train__batch_size=8, train__rounds=2))
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert "seed (0 there, 5 here), train.batch_size (4 there, 8 here)" in shown.err
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_a_process_that_is_killed_twice_leaves_no_gap(tmp_path):
    path = tmp_path / "run"
    for lines in (5, 12):
        process = small.start(path)
        while process.poll() is None and (
            not (path / "metrics.jsonl").exists()
            or (path / "metrics.jsonl").read_text().count("\n") < lines
        ):
            pass
        process.kill()
        process.communicate()
        records(path)
    code, output = small.finish(small.start(path))
    assert code == 0, output
    assert [record["round"] for record in records(path)] == list(range(1, 31))
    before = contents(path)
    code, output = small.finish(small.start(path))
    assert code == 0, output
    assert contents(path) == before
    code, output = small.finish(small.start(path, seed=1))
    assert (code, output.count("\n")) == (2, 1)
    assert contents(path) == before
