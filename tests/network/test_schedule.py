"""The simulated clock of random rounds and what they cost, against the slow reference."""

import numpy as np
from hypothesis import assume, given, settings

from cefl_jax.network.messages import Payload, Sizes
from cefl_jax.network.schedule import PHASES
from tests.compare import assert_close
from tests.network import rounds
from tests.network.rounds import CLIENTS, CLUSTERS, STEPS

COURSE = ("begin_s", "arrived_s", "served_s", "end_s")


@settings(deadline=None, max_examples=200)
@given(rounds.rounds())
def test_simulate_and_split_cost_equal_the_reference(case):
    course, expected = rounds.expect(case)
    assume(course.margin > rounds.TOO_CLOSE)
    schedule, cost = rounds.compute(case)
    assert_same_course(schedule, course)
    rounds.assert_same_cost(cost, expected)


def test_simulate_takes_messages_of_more_bits_than_integers_count():
    """Epochs of 50,176-byte features, of which every client uploads 20 GB and more."""
    rng = np.random.default_rng(0)
    task = rounds.make_task(rng, leaving=False)
    samples = np.where(task.samples > 0, 100_000 * task.samples, 0).astype(np.int32)
    task = task._replace(samples=samples, placement=np.int32([0, 1, 1]))
    network = rounds.make_network(rng, cloud_serves=False)
    fast = np.full(rounds.CLIENTS, 1e12, np.float32)  # what takes long is the way to the cloud
    network = network._replace(front_up_bps=fast, backhaul_bps=np.float32([1e6, 2e6, 3e6]))
    case = rounds.Round(task, network, None, False, 0.0)
    sizes = Sizes(Payload(50_176, 4), Payload(50_176, 4), 4, 93_000_001, 7_000_003)
    course, expected = rounds.expect(case, sizes)
    schedule, cost = rounds.compute(case, sizes)
    assert_same_course(schedule, course)
    assert rounds.messages(cost.link_bytes) == expected.link_bytes


def assert_same_course(schedule, course):
    """Every field of the Schedule against the reference's Course."""
    assert_same_pace(schedule.pace, course)
    for field in ("started", "steps", "finished", "counts"):
        np.testing.assert_array_equal(getattr(schedule, field), of_clients(course, field), field)
    close = {"rtol": 2e-5, "each": True}
    assert_close(schedule.out_s, of_clients(course, "out_s"), **close)
    for field in COURSE:
        expected = np.zeros((CLUSTERS, STEPS))
        for m, cluster in course.clusters.items():
            expected[m, : len(cluster.steps)] = [getattr(step, field) for step in cluster.steps]
        assert_close(getattr(schedule, field), expected, **close, err_msg=field)
    for field in ("trained_s", "closed_s"):
        expected = np.zeros(CLUSTERS)
        for m, cluster in course.clusters.items():
            expected[m] = getattr(cluster, field)
        assert_close(getattr(schedule, field), expected, **close, err_msg=field)
    expected = [course.phase_s.get(name, 0.0) for name in PHASES]
    assert_close(schedule.phase_s, expected, 2e-5, atol=1e-5 * sum(expected), each=True)


def of_clients(course, field):
    values = np.zeros(CLIENTS)
    for k, client in course.clients.items():
        values[k] = getattr(client, field)
    return values


def assert_same_pace(pace, course):
    for field in ("load", "deliver"):
        expected = of_clients(course, f"{field}_s")
        assert_close(getattr(pace, field), expected, 1e-6, each=True, err_msg=field)
    for field in ("forward", "send", "serve", "receive", "backward"):
        expected = np.zeros((CLIENTS, STEPS))
        for k, client in course.clients.items():
            own = getattr(client, f"{field}_s")
            expected[k, : len(own)] = own
        assert_close(getattr(pace, field), expected, 1e-6, each=True, err_msg=field)
