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


HERE = "127.0.0.1:7777"


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        ({}, ["auto"]),
        (dict(list(SLURM.items())[:3]), ["auto"]),
        (SLURM | {"SLURM_NTASKS": "two"}, ["auto"]),
        (SLURM | {"SLURM_PROCID": "2"}, ["auto"]),
        *(({}, [HERE, *numbers]) for numbers in [(None, None), (2, None), (None, 0), (2, 2)]),
    ],
)
def test_join_refuses_processes_that_cannot_be_found(monkeypatch, variables, arguments):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    line = refusal(*arguments)
    for flag in ("--coordinator=HOST:PORT", "--processes", "--process,"):
        assert flag in line


def test_join_cuts_short_what_jax_says(monkeypatch):
    def fail(*_):
        raise RuntimeError("DEADLINE\n" * 1000)

    monkeypatch.setattr("jax.distributed.initialize", fail)
    line = refusal(HERE, 2, 0)
    assert "(RuntimeError: DEADLINE" in line
    assert line.isprintable()
    assert len(line) < 450


@pytest.mark.parametrize(
    "address",
    ["", "host", "host:", ":80", "host:http", "host:0", "h:65536", "host:7:8", "::1:80", "a h:80"],
)
def test_join_refuses_an_address_that_is_none(address):
    assert "needs to be HOST:PORT" in refusal(address, 2, 0)
