"""Processes that cannot be joined are refused in one line, in the words of our flags."""

import pytest

from cefl_jax.runtime import distributed

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch):
    """JAX as in a process that has not used it, outside a cluster."""
    for name in (*SLURM, "JAX_COORDINATOR_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: False)


def refusal(*arguments):
    with pytest.raises(ValueError, match=r"^--coordinator=") as refused:
        distributed.join(*arguments)
    return str(refused.value)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        dict(list(SLURM.items())[:3]),
        SLURM | {"SLURM_NTASKS": "two"},
        SLURM | {"SLURM_PROCID": "2"},
    ],
)
def test_automatic_processes_that_are_not_found(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    line = refusal("auto")
    for flag in ("--coordinator=HOST:PORT", "--processes", "--process,"):
        assert flag in line


@pytest.mark.parametrize("numbers", [(None, None), (2, None), (None, 0), (2, 2)])
def test_an_incomplete_or_impossible_number_of_processes(numbers):
    line = refusal("127.0.0.1:7777", *numbers)
    assert "--processes" in line
    assert "--process," in line


def test_what_jax_says_is_cut_short(monkeypatch):
    def fail(*_):
        raise RuntimeError("DEADLINE\n" * 1000)

    monkeypatch.setattr("jax.distributed.initialize", fail)
    line = refusal("127.0.0.1:7777", 2, 0)
    assert "(RuntimeError: DEADLINE" in line
    assert line.isprintable()
    assert len(line) < 450


@pytest.mark.parametrize(
    "address",
    [
        "",
        "host",
        "host:",
        ":80",
        "host:http",
        "host:0",
        "h:65536",
        "host:7:8",
        "::1:80",
        "a host:80",
    ],
)
def test_an_address_that_is_none(address):
    assert "needs to be HOST:PORT" in refusal(address, 2, 0)
