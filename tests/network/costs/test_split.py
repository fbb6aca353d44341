"""What a round of split training costs, worked by hand; random ones are in test_schedule.py."""

import functools

import numpy as np
import pytest

from cefl_jax.network.costs.split import split_cost
from cefl_jax.network.ledger import phase_seconds
from cefl_jax.network.messages import count_bytes
from cefl_jax.network.schedule import simulate
from cefl_jax.network.step_times import Task
from cefl_jax.network.topology import Devices
from tests.compare import assert_close
from tests.network import rounds
from tests.network.worked import (
    CASES,
    CLUSTER,
    NETWORK,
    NUM_KINDS,
    SAMPLES,
    SIZES,
    UPLOADS,
    WORK,
)
from tests.quick import quick_jit


def cost_of(changes):
    """The RoundCost of the worked round with changes."""
    placement, stays = changes.get("placement", [0, 1, -1]), changes.get("stays", [2] * 4)
    task = Task(*map(np.int32, (SAMPLES, CLUSTER, placement, stays, UPLOADS)))
    program = _program(changes.get("keep", False))
    return program(task, make_network(changes), changes.get("deadline_s"))


def make_network(changes):
    """The network of the worked round, with changes."""
    links = {name: np.float32(getattr(NETWORK, name)) for name in OF_CLIENTS}
    if "kind" not in changes:  # only to the cloud there is a wire after the radio
        links |= {f"radio_{way}_bps": links[f"{way}_bps"] for way in ("up", "down")}

    def devices(role, kind=None):
        *numbers, its_kind = role
        return Devices(*map(np.float32, numbers), np.int32(its_kind if kind is None else kind))

    return NETWORK._replace(
        clients=devices(NETWORK.clients),
        servers=devices(NETWORK.servers, changes.get("kind")),
        front=devices(NETWORK.front),
        cloud=devices(NETWORK.cloud),
        backhaul_bps=np.float32(changes.get("backhaul_bps", NETWORK.backhaul_bps)),
        **links,
    )


OF_CLIENTS = [
    name for name in NETWORK._fields if name.endswith(("km", "bps")) and "haul" not in name
]


@functools.cache
def _program(keep):
    def run(task, network, deadline_s):
        schedule = simulate(task, network, WORK, SIZES, deadline_s, keep)
        return split_cost(task, schedule, network, WORK, SIZES, 160.0, NUM_KINDS)

    return quick_jit(run)


@pytest.mark.parametrize("name", CASES)
def test_split_cost_of_a_round_worked_by_hand(name):
    case = CASES[name]
    cost = cost_of(case.changes)
    assert_close(rounds.phases(cost.phase_s), case.phase_s, 2e-6)
    assert rounds.messages(cost.link_bytes) == case.link_bytes
    assert_close(cost.energy_j, case.energy_j, 1e-6, each=True)


def test_phase_seconds_and_count_bytes_refuse_unknown_names():
    with pytest.raises(ValueError, match=r"^unknown phases \['avraging'\]; known: "):
        phase_seconds(avraging=1.0)
    for sent in ({"client_upp": {"model": [(1, 4)]}}, {"client_up": {"modell": [(1, 4)]}}):
        with pytest.raises(ValueError, match=r"^unknown links or messages "):
            count_bytes(sent)
