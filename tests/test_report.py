"""The command of reports: what it writes and prints, and what it refuses in one line."""

import csv
import importlib.util
import os
import subprocess
import sys

import pytest

from cefl_jax import report
from tests.reports.folders import write_run
from tests.runtime.examples import make_record

ONE, OTHER = "fashion_mnist_12k-dirichlet-lenet5", "digits-dirichlet-lenet5"


@pytest.fixture
def runs(tmp_path):
    """A folder with three finished runs, two of them of one group, and one that failed."""
    folder = tmp_path / "runs"
    for seed in (0, 1):
        write_run(folder / f"cefl{seed}", seed=seed)
    write_run(folder / "fedavg", method__name="fedavg", data__name="digits")
    write_run(folder / "broken", seed=9, state="failed", error="no <memory>")
    return folder


@pytest.fixture
def make(tmp_path, capsys):
    """A function from folders and options to what was printed, the page, and its folder."""

    def make(*options):
        out = tmp_path / "page.html"
        report.main([*map(str, options), f"--out={out}"])
        return capsys.readouterr().out, out.read_text(), tmp_path / "page_files"

    return make


def test_main_writes_all_beside_the_page_and_nothing_else(runs, make, tmp_path):
    (tmp_path / "page.html").write_text("old")
    (tmp_path / "page_files").mkdir()
    (tmp_path / "page_files" / "mine.txt").write_text("mine")
    said, text, beside = make(runs, "--target=0.4")
    names = {path.name for path in beside.iterdir()} - {"mine.txt"}
    assert (beside / "mine.txt").read_text() == "mine"
    for table in (f"{ONE}-summary", f"{ONE}-clustering", f"{OTHER}-summary"):
        assert {f"{table}.{ending}" for ending in ("csv", "md", "tex")} <= names
    assert not any(name.startswith(f"{OTHER}-clust") for name in names)  # fedavg has none
    assert {f"{name}-test_accuracy-by-sim_time_s.pdf" for name in (ONE, OTHER)} <= names
    assert "counted: 3 finished runs\nleft out: 1 failed\n" in said
    assert f"written: {tmp_path / 'page.html'}\n" in said
    assert f"{len(names)} tables and figures in {beside}" in said
    assert "no &lt;memory&gt;" in text
    assert "no <memory>" not in text
    with open(beside / "runs.csv", newline="") as file:
        rows = {row["folder"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {str(runs / name) for name in ("cefl0", "cefl1", "fedavg")}
    row = rows[str(runs / "cefl1")]
    assert (row["label"], row["seed"]) == ("cefl", "1")
    assert float(row["final_accuracy"]) == pytest.approx((0.4 + 0.8 * 10 / 15) / 2)
    costs = [float(row[f"{key}_to_target"]) for key in ("rounds", "time_s", "energy_j", "bytes")]
    assert costs == [5, 300, 1500, 25_450_000]


def test_main_says_that_no_run_is_finished(tmp_path, make):
    write_run(tmp_path / "runs" / "one", state="running")
    said, text, _ = make(tmp_path / "runs")
    assert "counted: 0 finished runs\nleft out: 1 running\n" in said
    assert "No run here is finished" in text


def test_main_takes_folders_with_names_of_any_bytes(tmp_path, make):
    write_run(tmp_path / "runs" / "plain", seed=1)
    write_run(tmp_path / "runs" / "\udcff\n<b>", seed=2)
    said, text, _ = make(tmp_path / "runs")
    assert "counted: 1 finished run\nleft out: 1 unreadable\n" in said
    assert "\\udcff\n&lt;b&gt;" in text


def test_main_shows_numbers_that_have_no_digits_to_show(tmp_path, make):
    """5e-324 of a large unit is zero."""
    for seed, value in enumerate((1e100, 5e-324)):
        record = make_record(5, **{"test/accuracy": 0.9, "sim/time_s": value})
        write_run(tmp_path / "runs" / str(seed), [record], seed=seed, train__batch_size=seed + 1)
    make(tmp_path / "runs")


def test_main_gives_sections_with_names_alike_files_of_their_own(tmp_path, make):
    for at, name in enumerate(("a/b", "a b", "..", "ü")):
        write_run(tmp_path / "runs" / str(at), data__name=name)
    _, _, beside = make(tmp_path / "runs")
    assert len(list(beside.glob("*-summary.csv"))) == 4


PAGE = "--out=page.html"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", PAGE], "there is no folder"),
        (["runs", "empty", PAGE], "empty holds no run"),
        ([PAGE], "DIR"),
        (["runs"], "--out"),
        (["runs", "--out="], "--out is empty"),
        (["runs", "--out=no/page.html"], "there is no folder"),
        (["runs", "--out=empty"], "is a folder"),
        (["runs", "--out=taken.html"], "taken_files"),
        (["runs", PAGE, "--goal=3"], "--goal=3"),
        *(
            (["runs", PAGE, f"--target={target}"], f"--target: {target!r} is not an accuracy")
            for target in ("0", "-1", "80", "1.01", "nan", "inf", "much", "")
        ),
    ],
)
def test_main_refuses_in_one_line(runs, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken_files").write_text("in the way")
    refused(tmp_path, capsys, arguments, message)


def refused(folder, capsys, arguments, message):
    """Holds that arguments are refused in one line with a message, and nothing is written."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        report.main(arguments)
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert sorted(folder.rglob("*")) == before


def test_main_refuses_a_folder_that_it_may_not_write_in(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    arguments = [str(runs), f"--out={tmp_path / 'page.html'}"]
    refused(tmp_path, capsys, arguments, f"no permission to write in {tmp_path}")


def test_main_names_missing_libraries_and_the_remedy(runs, tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    only = lambda name, *more: None if name == "duckdb" else find(name, *more)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", only)
    arguments = [str(runs), f"--out={tmp_path / 'page.html'}"]
    refused(
        tmp_path, capsys, arguments, "duckdb cannot be imported; pip install 'cefl_jax[report]'"
    )


def test_parse_needs_no_library():
    blocked = "import sys; sys.modules.update(dict.fromkeys(('altair', 'duckdb', 'vl_convert')))"
    program = f"{blocked}; from cefl_jax import report; report.parse(['x', '--out=y'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
