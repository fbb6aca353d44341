"""Each script of benchmarks/ can be started; each sweep of experiments/ is run in part."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
OTHERS = ("blazefl", "fedjax", "fedlab", "flwr", "pfl", "ray", "torch")
"""Frameworks that benchmarks compare with, and tests do not install."""

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("benchmarks", "experiments")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "__init__.py"
)
CELLS = {  # what is run of experiments; others differ in settings, or take longer
    "ablation": "distill.rule=none",
    "main_comparison": "fedavg, 0.1",
    "reproduce_niid_bench": "fedavg, iid",
}


@pytest.mark.parametrize("name", MODULES)
def test_a_script_is_imported_and_says_how_it_is_used(name, monkeypatch, capsys):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in OTHERS:
            raise
        pytest.skip(f"needs {error.name}")
    if not hasattr(module, "main"):
        return
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_an_experiment_is_run_at_its_smallest_scale(tmp_path, name):
    command = ["cefl_jax.sweep", f"--experiment=experiments/{name}.py", f"--workdir={tmp_path}"]
    command += ["--scale=smoke", "--seeds=1"]
    done = subprocess.run(
        [sys.executable, "-m", *command, f"--only={CELLS[name]}"],
        cwd=ROOT,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"`{name}` at scale `smoke`, 1 seeds." in done.stdout
    assert f"| {CELLS[name]} | " in done.stdout
