"""Every benchmark can be started, and every setting that one times is one that can be run."""

import importlib
import pathlib

import pytest

import benchmarks
from benchmarks import gpu_cases, network_cost, scaling
from benchmarks.settings import make_spec
from benchmarks.torch_baseline import __main__ as baseline
from benchmarks.torch_baseline.cases import CASES, make_parser
from cefl_jax import config

NAMES = sorted(file.stem for file in pathlib.Path(benchmarks.__path__[0]).glob("[a-z]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_what_a_benchmark_imports_is_there(name):
    importlib.import_module(f"benchmarks.{name}")


@pytest.mark.parametrize("name", CASES)
def test_cases_against_pytorch_and_their_small_form(name):
    case = CASES[name]
    make_spec(case.fields)
    small = make_spec(case.shrink(baseline.SMALL, baseline.CLUSTERED).fields)
    assert small.train.clients_per_round == 4


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("small", [False, True])
def test_contenders_on_an_accelerator(small, backend):
    """Each is a command line that its worker takes."""
    for name, case in gpu_cases.make_cases(small).items():
        contenders = gpu_cases.rivals(name, case, backend) + gpu_cases.choices(name, case)
        for contender in contenders:
            _, module, *words = contender.arguments
            if module == gpu_cases.TORCH[1]:
                words = make_parser().parse_args(words).fields
            make_spec(words)


@pytest.mark.parametrize("axis", scaling.AXES)
def test_points_of_every_axis(axis):
    for value in scaling.AXES[axis]:
        words = scaling.contender(axis, value, "fashion_mnist_12k", 20, ()).arguments
        make_spec([word for word in words if not word.startswith("-") and "=" in word])


@pytest.mark.parametrize("dynamics", network_cost.DYNAMICS)
def test_what_the_network_costs(dynamics):
    config.make_spec(network_cost.SETTINGS, network_cost.DYNAMICS[dynamics])
