"""Records are read as they were written; the summary says what they say, and of which revision."""

import json
import math
import os
import platform
import shutil
import subprocess

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.runtime import summary
from cefl_jax.runtime.summary import METRIC_KEYS, read_metrics, rounds_per_second, summarize
from tests.runtime.examples import make_record, without

FACTS = {"wall_s": 20.0, "compile_s": 5.0, "device_kind": "cpu", "device_count": 2}


def test_summarize_splits_the_last_record():
    last = make_record(20)
    made = summarize([make_record(10), last], **FACTS, partition_sha256="ab12", host_count=3)
    assert made["rounds"] == 20
    assert made["last"] | made["totals"] == last
    assert set(made["last"]) & set(made["totals"]) == set()
    assert set(made["totals"]) == {key for key in METRIC_KEYS if key.startswith(("sim/", "comm/"))}
    assert (made["wall_s"], made["compile_s"]) == (20.0, 5.0)
    assert made["device"] == {"kind": "cpu", "count": 2}
    assert (made["partition_sha256"], made["host_count"]) == ("ab12", 3)
    versions = {"python": platform.python_version(), "jax": jax.__version__}
    assert made["versions"].items() >= versions.items()
    assert {"jaxlib", "flax", "optax", "numpy"} <= set(made["versions"])


def test_summarize_has_the_first_highest_finite_accuracy_of_each_model():
    accuracy = [0.25, 0.75, math.nan, 0.75, None, 0.5]
    cloud = [0.5, 0.25, 0.25, 0.25, math.inf, 0.625]
    records = [
        make_record(10 + i, **{"test/accuracy": a, "test/cloud_accuracy": c})
        for i, (a, c) in enumerate(zip(accuracy, cloud, strict=True))
    ]
    assert summarize(records, **FACTS)["best"] == {
        "test/accuracy": {"value": 0.75, "round": 11},
        "test/cloud_accuracy": {"value": 0.625, "round": 15},
    }


def test_summarize_leaves_out_what_a_method_does_not_have():
    made = summarize([without(make_record(10), "test/cloud", "sim/", "wall/")], **FACTS)
    assert list(made["best"]) == ["test/accuracy"]
    assert all(key.startswith("comm/") for key in made["totals"])
    assert not {"rounds_per_s", "partition_sha256"} & {*made}
    assert summarize([], **FACTS)["rounds"] == 0


def test_rounds_per_second_weights_each_evaluation_by_its_rounds():
    # 10 rounds of 100 ms and 30 of 20 ms are 40 rounds in 1.6 s; the untimed 5 do not count.
    times = [{"wall/round_ms": 100.0}, {}, {"wall/round_ms": 20.0}]
    records = [{"round": at} | time for at, time in zip((10, 15, 45), times, strict=True)]
    assert rounds_per_second(records) == pytest.approx(40 / 1.6)
    assert rounds_per_second([]) is None


KEYS = st.sampled_from(["test/accuracy", "train/loss", "x"]) | st.text(
    st.characters(codec="utf-8"), max_size=5
)


def write(folder, content):
    file = folder / "metrics.jsonl"
    file.write_text(content, encoding="utf-8")
    return file


NUMBERS = st.none() | st.integers(-(2**63), 2**63) | st.floats(-1e100, 1e100)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.dictionaries(KEYS, NUMBERS), max_size=5))
def test_read_metrics_gives_back_what_was_written(tmp_path_factory, drawn):
    lines = [{**record, "round": round} for round, record in enumerate(drawn)]
    text = "".join(
        f"{json.dumps(line, ensure_ascii=round % 2 == 0)}\n" for round, line in enumerate(lines)
    )
    assert read_metrics(write(tmp_path_factory.getbasetemp(), text)) == lines


def test_read_metrics_leaves_out_a_line_that_was_cut_off(tmp_path):
    assert read_metrics(write(tmp_path, '{"round": 1}\n{"round": 2}')) == [{"round": 1}]
    assert read_metrics(write(tmp_path, '{"round": 1}\n{"rou')) == [{"round": 1}]
    assert read_metrics(write(tmp_path, "")) == []
    assert read_metrics(tmp_path / "absent") == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "cannot be read as JSON"),
        ('{"round": 2, "x": NaN}', "cannot be read as JSON: NaN is no number"),
        ("7", "is 7; it must be an object with its round"),
        ("{}", "is {}; it must be an object with its round"),
        ('{"round": true}', "is {'round': True}; it must be"),
        ('{"round": 2.0}', "is {'round': 2.0}; it must be"),
        ('{"round": 2, "x": true}', "has 'x': True; it must be"),
        ('{"round": 2, "x": 1e999}', "has 'x': inf; it must be"),
        (f'{{"round": 2, "x": {"9" * 4000}}}', "has 'x': 9999"),
    ],
)
def test_read_metrics_refuses_a_line_that_is_no_record(tmp_path, line, said):
    file = write(tmp_path, f'{{"round": 1}}\n{line}\n')
    with pytest.raises(ValueError, match="line 2") as refusal:
        read_metrics(file)
    assert str(refusal.value).startswith(f"{file}: line 2 {said}")
    assert str(refusal.value).isprintable()


def test_read_metrics_refuses_what_is_no_file_of_bounded_size(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    file = write(tmp_path, '{"round": 1}\n')
    monkeypatch.setattr(summary, "MAX_METRICS_BYTES", 12)
    for path, said in (
        (tmp_path / "pipe", "is a pipe or a device"),
        (tmp_path, "is a folder"),
        (file, "has 13 bytes, and 12 is the most"),
    ):
        with pytest.raises(ValueError, match=said) as refusal:
            read_metrics(path)
        assert str(refusal.value).startswith(f"{path}: {said}")


git = shutil.which("git")


def call(folder, *words):
    names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        [git, "-C", str(folder), *names, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a commit, in the place of the program's own."""
    if git is None:
        pytest.skip("needs git")
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setattr(summary, "ROOT", folder)
    call(folder, "init", "-q")
    (folder / "code.py").write_text("one")
    call(folder, "add", ".")
    call(folder, "commit", "-q", "-m", "one")
    return folder


def test_read_revision_says_whether_tracked_files_differ(checkout, tmp_path, monkeypatch):
    commit = call(checkout, "rev-parse", "HEAD")
    assert summary.read_revision() == {"commit": commit, "dirty": False}
    (checkout / "notes").write_text("not tracked, and no part of the program")
    assert not summary.read_revision()["dirty"]
    (checkout / "code.py").write_text("two")
    assert summary.read_revision()["dirty"]
    call(checkout, "add", ".")
    assert summary.read_revision()["dirty"]
    call(checkout, "commit", "-q", "-m", "two")
    assert not summary.read_revision()["dirty"]
    (checkout / "code.py").unlink()
    assert summary.read_revision()["dirty"]
    call(checkout, "worktree", "add", "-q", str(tmp_path / "second"), "-b", "second")
    monkeypatch.setattr(summary, "ROOT", tmp_path / "second")
    assert summary.read_revision()["commit"] == call(checkout, "rev-parse", "HEAD")


def test_read_revision_is_of_the_programs_own_checkout(checkout, tmp_path, monkeypatch):
    """Not of one around it, nor of one that a hook of git names; without any, there is none."""
    mine, other = summary.read_revision(), tmp_path / "other"
    for folder in (other, checkout / "site-packages"):
        folder.mkdir()
    call(other, "init", "-q")
    with monkeypatch.context() as patch:
        patch.setattr(summary, "ROOT", other)
        assert summary.read_revision() is None  # it has no commit
        patch.setattr(summary, "ROOT", checkout / "site-packages")
        assert summary.read_revision() is None
    call(other, "commit", "-q", "--allow-empty", "-m", "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    assert summary.read_revision() == mine
    monkeypatch.setenv("PATH", str(tmp_path))
    assert summary.read_revision() is None
