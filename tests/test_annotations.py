"""What the functions say of types and shapes is checked here, and costs nothing elsewhere."""

import hashlib
import subprocess
import sys

import jax
import jaxtyping
import numpy as np
import pytest

from cefl_jax import program
from cefl_jax.models.conv import Lowering
from cefl_jax.network.channel import shannon_rate
from cefl_jax.specs import TrainSpec
from cefl_jax.stages import clustering, offload, round_plan
from tests import world
from tests.quick import quick_jit

COUNTS = np.ones((4, 3), np.int32)  # [K, Y]
TARGET = np.full(3, 1 / 3, np.float32)  # [Y]
CLIENTS = np.arange(4, dtype=np.int32)  # [K]

FIT = {
    "clusters": lambda: clustering.patent_clusters(COUNTS, 2, 1, TARGET),
    "matching": lambda: offload.match(np.eye(2, 3)),
    "plan": lambda: round_plan.make_plan(CLIENTS, CLIENTS, CLIENTS, 4, TrainSpec(), None),
    "rate": lambda: shannon_rate(0.1, 10e6, 0.2, 4e-21),
}
UNFIT = {
    "other labels": lambda: clustering.patent_clusters(COUNTS, 2, 1, TARGET[:2]),
    "an axis too few": lambda: offload.match(np.ones(3)),
    "other clients": lambda: round_plan.make_plan(
        CLIENTS, CLIENTS[:3], CLIENTS, 4, TrainSpec(), None
    ),
    "no numbers": lambda: shannon_rate("0.1", 10e6, 0.2, 4e-21),
    "another type": lambda: clustering.cluster_kl(COUNTS, TARGET, 2, TARGET),
    "settings of another kind": lambda: clustering.count_clusters(TrainSpec(), 4),
    "a dataclass": lambda: Lowering("tiles", "two"),
}


@pytest.mark.parametrize("call", FIT)
def test_annotations_take_what_fits(call):
    FIT[call]()


@pytest.mark.parametrize("call", UNFIT)
def test_annotations_refuse_what_does_not_fit(call):
    with pytest.raises(jaxtyping.TypeCheckError, match="checking the parameters of cefl_jax"):
        UNFIT[call]()


def test_annotations_are_checked_inside_a_program():
    with pytest.raises(jaxtyping.TypeCheckError, match=r"cefl_jax\.stages\.clustering"):
        jax.jit(lambda: clustering.cluster_kl(COUNTS, CLIENTS[:2], 2, TARGET))()


def run(program):
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout


def test_annotations_cost_nothing_without_the_tests():
    made = run(
        "import sys; sys.modules['beartype'] = None\n"
        "import importlib, pathlib\n"
        "for path in sorted(pathlib.Path('cefl_jax').rglob('*.py')):\n"
        "    if 'assets' not in path.parts:\n"
        "        importlib.import_module('.'.join(path.with_suffix('').parts))\n"
        "from cefl_jax.stages import clustering\n"
        "print(hasattr(clustering.patent_clusters, '__wrapped__'))\n"
    )
    assert made == "False\n"
    assert hasattr(clustering.patent_clusters, "__wrapped__")


@pytest.mark.slow
def test_annotations_leave_the_program_as_it_is():
    text = "from tests import test_annotations as here; print(here.digest())"
    assert run(text).strip() == digest()


def digest():
    """Of the whole program of a run, as it goes to the compiler."""
    setup = world.make_setup({"network.dynamics": "markov", "cefl.clustering.rule": "patent"})
    state, _, arrays = world.compile_round(setup, quick_jit)
    lowered = jax.jit(program.make_program(setup)[1]).lower(state, *arrays)
    return hashlib.sha256(lowered.as_text().encode()).hexdigest()
