"""The door of reports: what it writes and says, and what it refuses in one line."""

import csv
import importlib.util
import subprocess
import sys

import pytest

from cefl_jax import report
from tests.reports.folders import write_run
from tests.runtime.examples import make_record


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
def refused(tmp_path, capsys):
    """A function from arguments to the one line with which the door refuses them."""

    def start(*arguments):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as ended:
            report.main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        assert ended.value.code == 2
        assert shown.out == ""
        assert shown.err.startswith("error: ")
        assert shown.err.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before  # nothing written
        return shown.err

    return start


def test_all_is_written_beside_the_page_and_told(runs, tmp_path, capsys):
    out = tmp_path / "page.html"
    report.main([str(runs), f"--out={out}", "--target=0.5"])
    written = {path.name for path in (tmp_path / "page_files").iterdir()}
    one, other = "fashion_mnist_12k-dirichlet-lenet5", "digits-dirichlet-lenet5"
    for table in (f"{one}-summary", f"{one}-clustering", f"{other}-summary"):
        assert {f"{table}.{ending}" for ending in ("csv", "md", "tex")} <= written
    assert not any(name.startswith(f"{other}-clust") for name in written)  # fedavg has none
    for name in (one, other):
        assert f"{name}-test_accuracy-by-sim_time_s.pdf" in written
    said = capsys.readouterr().out
    assert "counted: 3 finished runs" in said
    assert "left out: 1 failed" in said
    assert f"written: {out}" in said
    assert f"{len(written)} tables and figures in {tmp_path / 'page_files'}" in said
    text = out.read_text()
    assert "no &lt;memory&gt;" in text
    assert "no <memory>" not in text


def test_every_run_is_a_line_of_runs_csv(runs, tmp_path):
    report.main([str(runs), f"--out={tmp_path / 'page.html'}", "--target=0.4"])
    with open(tmp_path / "page_files" / "runs.csv", newline="") as file:
        rows = {row["folder"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {str(runs / name) for name in ("cefl0", "cefl1", "fedavg")}
    row = rows[str(runs / "cefl1")]
    assert (row["label"], row["seed"]) == ("cefl", "1")
    assert float(row["final_accuracy"]) == pytest.approx((0.4 + 0.8 * 10 / 15) / 2)
    costs = [float(row[f"{key}_to_target"]) for key in ("rounds", "time_s", "energy_j", "bytes")]
    assert costs == [5, 300, 1500, 25_450_000]


def test_a_report_replaces_its_own_files_and_no_others(runs, tmp_path):
    out = tmp_path / "page.html"
    out.write_text("old")
    (tmp_path / "page_files").mkdir()
    (tmp_path / "page_files" / "mine.txt").write_text("mine")
    report.main([str(runs), f"--out={out}"])
    assert out.read_text() != "old"
    assert (tmp_path / "page_files" / "mine.txt").read_text() == "mine"


def test_runs_none_of_which_is_finished_are_told(tmp_path, capsys):
    write_run(tmp_path / "runs" / "one", state="running")
    report.main([str(tmp_path / "runs"), f"--out={tmp_path / 'page.html'}"])
    assert "counted: 0 finished runs\nleft out: 1 running\n" in capsys.readouterr().out
    assert "No run here is finished" in (tmp_path / "page.html").read_text()


def test_bad_folders_are_refused(runs, tmp_path, refused):
    out = f"--out={tmp_path / 'page.html'}"
    (tmp_path / "empty").mkdir()
    assert "there is no folder" in refused(tmp_path / "nowhere", out)
    assert "empty holds no run" in refused(runs, tmp_path / "empty", out)
    assert "DIR" in refused(out)


def test_a_bad_place_is_refused(runs, tmp_path, refused):
    assert "--out" in refused(runs)
    assert "--out is empty" in refused(runs, "--out=")
    assert "there is no folder" in refused(runs, f"--out={tmp_path / 'no' / 'page.html'}")
    assert "is a folder" in refused(runs, f"--out={tmp_path}")
    (tmp_path / "page_files").write_text("in the way")
    assert "page_files" in refused(runs, f"--out={tmp_path / 'page.html'}")


@pytest.mark.parametrize("target", ["0", "-1", "80", "1.01", "nan", "inf", "much", ""])
def test_a_bad_target_is_refused(runs, tmp_path, refused, target):
    said = refused(runs, f"--out={tmp_path / 'page.html'}", f"--target={target}")
    assert f"--target: {target!r} is not an accuracy" in said


def test_an_unknown_flag_is_refused(runs, tmp_path, refused):
    assert "--goal=3" in refused(runs, f"--out={tmp_path / 'page.html'}", "--goal=3")


def test_missing_libraries_are_named_with_the_remedy(runs, tmp_path, refused, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "duckdb" else find(name, *more),
    )
    said = refused(runs, f"--out={tmp_path / 'page.html'}")
    assert "duckdb" in said
    assert "pip install 'cefl_jax[report]'" in said


def test_the_door_needs_the_libraries_only_to_report(tmp_path):
    blocked = "import sys; sys.modules.update(dict.fromkeys(('altair', 'duckdb', 'vl_convert')))"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{blocked}; from cefl_jax import report; report.parse(['x', '--out=y'])",
        ],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_folder_with_a_name_of_any_bytes_harms_no_run(tmp_path, capsys):
    write_run(tmp_path / "runs" / "plain", seed=1)
    write_run(tmp_path / "runs" / "\udcff\n<b>", seed=2)
    out = tmp_path / "page.html"
    report.main([str(tmp_path / "runs"), f"--out={out}"])
    assert "counted: 1 finished run\nleft out: 1 unreadable\n" in capsys.readouterr().out
    assert "\\udcff\n&lt;b&gt;" in out.read_text(encoding="utf-8")


def test_numbers_that_have_no_digits_to_show_are_shown(tmp_path):
    """5e-324 of a large unit is zero."""
    for seed, value in enumerate((1e100, 5e-324)):
        record = make_record(5, **{"test/accuracy": 0.9, "sim/time_s": value})
        write_run(tmp_path / "runs" / str(seed), [record], seed=seed, train__batch_size=seed + 1)
    report.main([str(tmp_path / "runs"), f"--out={tmp_path / 'page.html'}"])
    assert (tmp_path / "page.html").is_file()


def test_sections_with_names_alike_have_files_of_their_own(tmp_path):
    for name in ("a/b", "a b", "..", "ü"):
        write_run(tmp_path / "runs" / str(len(list(tmp_path.glob("runs/*")))), data__name=name)
    report.main([str(tmp_path / "runs"), f"--out={tmp_path / 'page.html'}"])
    tables = list((tmp_path / "page_files").glob("*-summary.csv"))
    assert len(tables) == 4
    assert all(path.parent == tmp_path / "page_files" for path in tables)
