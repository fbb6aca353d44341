"""The simulated course of random rounds against the slow reference, and what holds of any round."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cefl_jax.network.messages import Payload, Sizes
from cefl_jax.network.schedule import PHASES
from tests.compare import assert_close
from tests.network import rounds
from tests.network.rounds import CLIENTS, CLUSTERS, STEPS

COURSE = ("begin_s", "arrived_s", "served_s", "end_s")
SPEEDS = [  # leaves of a RoundNetwork
    *[(role, "flop_per_s") for role in ("clients", "servers", "front", "cloud")],
    *[(f"{way}_bps",) for way in ("up", "down", "front_up", "front_down", "backhaul")],
]


@settings(deadline=None, max_examples=150)
@given(rounds.rounds())
def test_course_of_a_round_equals_the_reference(case):
    course, _ = rounds.expect(case)
    assume(course.margin > rounds.TOO_CLOSE)
    schedule, _ = rounds.compute(case)
    assert_same_course(schedule, course)


@settings(deadline=None, max_examples=60)
@given(rounds.rounds(deadline=False, leaving=False), st.sampled_from(SPEEDS), st.floats(1, 100))
def test_faster_links_or_computing_never_lengthen_a_round(case, path, factor):
    network = case.network
    for name in path[:-1]:
        network = getattr(network, name)
    faster = network._replace(**{path[-1]: np.float32(getattr(network, path[-1]) * factor)})
    if len(path) > 1:
        faster = case.network._replace(**{path[0]: faster})
    (_, before), (_, after) = rounds.compute(case), rounds.compute(case._replace(network=faster))
    assert rounds.length(after.phase_s) <= rounds.length(before.phase_s) * (1 + 1e-5)


@settings(deadline=None, max_examples=30)
@given(rounds.rounds(deadline=False, leaving=False))
def test_without_deadline_and_leaving_everybody_finishes(case):
    schedule, _ = rounds.compute(case)
    planned = (case.task.samples > 0).sum(1)
    placed = np.append(case.task.placement, -1)[case.task.cluster] >= 0
    np.testing.assert_array_equal(schedule.steps, np.where(placed, planned, 0))
    for field in ("started", "finished", "counts"):
        np.testing.assert_array_equal(getattr(schedule, field), placed & (planned > 0), field)


@settings(deadline=None, max_examples=60)
@given(rounds.rounds(deadline=True))
def test_nobody_trains_or_delivers_after_the_deadline(case):
    schedule, _ = rounds.compute(case)
    limit_s = case.deadline_s * (1 + 1e-6)
    assert np.max(schedule.end_s) <= limit_s
    assert np.max(schedule.out_s) <= limit_s
    arrives_s = np.asarray(schedule.out_s + schedule.pace.deliver)
    assert (arrives_s[np.asarray(schedule.counts)] <= limit_s).all()
    assert (schedule.counts | ~schedule.finished).all()
    if not case.keep:
        np.testing.assert_array_equal(schedule.counts, schedule.finished)


@settings(deadline=None, max_examples=30)
@given(rounds.rounds(deadline=True), st.floats(1e-6, 1e-2))
def test_a_deadline_that_nobody_can_meet_is_waited_for(case, deadline_s):
    case = case._replace(deadline_s=float(np.float32(deadline_s)), distill_flop=0.0)
    schedule, bill = rounds.compute(case)
    for field in ("started", "steps", "finished", "counts", "out_s", *COURSE, "closed_s"):
        assert not np.any(getattr(schedule, field)), field
    assert rounds.phases(bill.phase_s) == {"waiting": case.deadline_s}
    assert rounds.messages(bill.link_bytes) == {}
    assert not np.any(bill.energy_j)


def test_messages_of_more_bits_than_integers_count():
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
    schedule, bill = rounds.compute(case, sizes)
    assert_same_course(schedule, course)
    assert rounds.messages(bill.link_bytes) == expected.link_bytes


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
