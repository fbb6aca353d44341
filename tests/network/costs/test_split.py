"""What a round costs: rounds worked by hand, random rounds against the slow reference."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings

from cefl_jax.network.costs.activity import phase_seconds
from cefl_jax.network.costs.split import split_cost
from cefl_jax.network.ledger import RoundCost
from cefl_jax.network.messages import count_bytes
from cefl_jax.network.schedule import PHASES, simulate
from cefl_jax.network.step_times import Task
from cefl_jax.network.topology import Devices
from tests.compare import assert_close
from tests.network import rounds, worked, worked_deadlines
from tests.network.worked import CLUSTER, NETWORK, NUM_KINDS, SAMPLES, SIZES, UPLOADS, WORK
from tests.quick import quick_jit

CASES = worked.CASES | worked_deadlines.CASES


def bill_of(changes, clients=4, clusters=3, distill_flop=160.0):
    """The RoundCost of the worked round with changes, or of its first clients and clusters only."""
    network, first = make_network(changes, clients), slice(clients)
    task = Task(
        np.int32(SAMPLES[first]),
        np.minimum(np.int32(CLUSTER[first]), clusters),
        np.int32(changes.get("placement", [0, 1, -1])[:clusters]),
        np.int32(changes.get("stays", [2] * 4)[first]),
        np.int32(UPLOADS[first]),
    )
    deadline_s, keep = changes.get("deadline_s"), changes.get("keep", False)
    if isinstance(deadline_s, float):  # static, as in a run
        return _program(deadline_s, keep)(task, network, np.float32(distill_flop), None)
    return _program(None, keep)(task, network, np.float32(distill_flop), deadline_s)


def make_network(changes, clients):
    """The network of the worked round, with changes, as its first clients see it."""
    of_first = ("distance_km", "up_bps", "down_bps", "front_up_bps", "front_down_bps")
    links = {name: np.float32(getattr(NETWORK, name))[:clients] for name in of_first}
    for radio, whole in (("radio_up_bps", "up_bps"), ("radio_down_bps", "down_bps")):
        rates = getattr(NETWORK, radio if "kind" in changes else whole)
        links[radio] = np.float32(rates)[:clients]

    def devices(role, kind=None):
        *numbers, its_kind = role
        return Devices(*map(np.float32, numbers), np.int32(its_kind if kind is None else kind))

    return NETWORK._replace(
        clients=jax.tree.map(lambda leaf: leaf[:clients], devices(NETWORK.clients)),
        servers=devices(NETWORK.servers, changes.get("kind")),
        front=devices(NETWORK.front),
        cloud=devices(NETWORK.cloud),
        backhaul_bps=np.float32(changes.get("backhaul_bps", NETWORK.backhaul_bps)),
        **links,
    )


@functools.cache
def _program(static_s, keep):
    def run(task, network, distill_flop, deadline_s):
        deadline_s = deadline_s if static_s is None else static_s
        schedule = simulate(task, network, WORK, SIZES, deadline_s, keep)
        return split_cost(task, schedule, network, WORK, SIZES, distill_flop, NUM_KINDS)

    return quick_jit(run)


@pytest.mark.parametrize("name", CASES)
def test_bill_of_a_round_worked_by_hand(name):
    case = CASES[name]
    bill = bill_of(case.changes)
    assert_close(rounds.phases(bill.phase_s), case.phase_s, 2e-6)
    assert rounds.messages(bill.link_bytes) == case.link_bytes
    assert_close(bill.energy_j, case.energy_j, 1e-6, each=True)


@pytest.mark.parametrize("name", ["everybody finishes", "one is too slow to start"])
def test_clients_and_clusters_that_take_no_part_change_nothing(name):
    """The worked round without client D and the cluster that did not form."""
    with_them = bill_of(CASES[name].changes)
    without = bill_of(CASES[name].changes, clients=3, clusters=2)
    for field in RoundCost._fields:
        np.testing.assert_array_equal(getattr(with_them, field), getattr(without, field), field)


def test_a_round_that_nobody_can_finish_lasts_until_the_deadline_and_costs_nothing():
    bill = bill_of({"deadline_s": np.float32(10)}, distill_flop=0.0)
    assert rounds.phases(bill.phase_s) == {"waiting": 10}
    assert rounds.messages(bill.link_bytes) == {}
    assert not np.any(bill.energy_j)


@settings(deadline=None, max_examples=150)
@given(rounds.rounds())
def test_bill_of_a_round_equals_the_reference(case):
    course, expected = rounds.expect(case)
    assume(course.margin > rounds.TOO_CLOSE)
    _, bill = rounds.compute(case)
    seconds = [expected.phase_s.get(name, 0.0) for name in PHASES]
    assert_close(bill.phase_s, seconds, 2e-5, atol=1e-5 * sum(seconds), each=True)
    assert rounds.messages(bill.link_bytes) == {k: n for k, n in expected.link_bytes.items() if n}
    assert_close(bill.energy_j, expected.energy_j, 2e-5, each=True)


@settings(deadline=None, max_examples=60)
@given(rounds.rounds())
def test_phases_add_up_to_the_round(case):
    """To the slowest cluster, or the deadline when nothing counts; then averaging, distilling."""
    schedule, bill = rounds.compute(case)
    until_s = float(np.max(schedule.closed_s))
    if case.deadline_s is not None and not np.any(schedule.counts):
        until_s = case.deadline_s
    phase_s = dict(zip(PHASES, np.asarray(bill.phase_s, np.float64), strict=True))
    after_s = phase_s["averaging"] + phase_s["distillation"]
    assert_close(rounds.length(bill.phase_s), until_s + after_s)


@settings(deadline=None, max_examples=60)
@given(rounds.rounds())
def test_who_takes_no_part_draws_nothing(case):
    """With a device class for each client and server."""
    clients, servers = np.arange(rounds.CLIENTS), np.arange(rounds.SERVERS) + rounds.CLIENTS
    network = case.network._replace(
        clients=case.network.clients._replace(kind=np.int32(clients)),
        servers=case.network.servers._replace(kind=np.int32(servers)),
        front=case.network.front._replace(kind=np.int32(rounds.KINDS - 2)),
        cloud=case.network.cloud._replace(kind=np.int32(rounds.KINDS - 1)),
    )
    schedule, bill = rounds.compute(case._replace(network=network))
    started = np.asarray(schedule.started)
    placed = np.append(case.task.placement, -1)[case.task.cluster]
    np.testing.assert_array_equal(np.asarray(bill.energy_j)[clients] > 0, started)
    served = np.isin(np.arange(rounds.SERVERS), placed[started])
    np.testing.assert_array_equal(np.asarray(bill.energy_j)[servers] > 0, served)
    assert (bill.energy_j[-2] > 0) == started.any()


def test_a_phase_a_link_or_a_message_that_there_is_not_is_named():
    with pytest.raises(ValueError, match=r"^unknown phases \['avraging'\]; known: "):
        phase_seconds(avraging=1.0)
    for sent in ({"client_upp": {"model": [(1, 4)]}}, {"client_up": {"modell": [(1, 4)]}}):
        with pytest.raises(ValueError, match=r"^unknown links or messages "):
            count_bytes(sent)
