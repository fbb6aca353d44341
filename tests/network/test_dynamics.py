"""The network's changes against the recursions of their processes, and replay bit for bit.

Tolerances of statistics are five standard errors at the size of their sample.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cefl_jax.network import dynamics, topology
from cefl_jax.specs import NetworkSpec
from tests.compare import assert_close
from tests.network.test_topology import draw_network
from tests.quick import quick_jit

KEY = jax.random.key(0)
MANY = 4000
ROUNDS = 50
NORMALS = {
    "shadow_correlation": 0.0,
    "shadow_std_db": 1.0,
    "load_correlation": 0.0,
    "load_std": 1.0,
    "load_mean": 0.0,
    "leave_probability": 0.5,
    "return_probability": 0.5,
}
"""With these a run is the standard normals and the luck that it draws."""


def network_of(num_clients, num_edges, trace=None):
    return draw_network(np.random.default_rng(0), num_clients, num_edges)._replace(trace=trace)


@functools.cache
def simulated(num_clients, num_edges, **fields):
    """Trace of rounds 0 to `ROUNDS`, by `step` and not by `record`."""
    network = network_of(num_clients, num_edges)
    seen, _ = run(network, NetworkSpec(dynamics="markov", **fields), ROUNDS + 1)
    return dynamics.Trace(*map(np.asarray, seen))


def correlation(x, y):
    return float(np.corrcoef(x.ravel(), y.ravel())[0, 1])


def test_normals_are_standard_and_nothing_is_drawn_twice():
    """Neither in two rounds, nor for two links, nor for two quantities: all are uncorrelated.

    Where leaving and returning are as likely as not, who changes is the luck of the round.
    """
    tall, wide = simulated(MANY, 1, **NORMALS), simulated(1, MANY, **NORMALS)
    for sample in (tall.shadow_db[0], tall.shadow_db[ROUNDS], wide.edge_load[0], wide.edge_load[1]):
        assert sample.mean() == pytest.approx(0.0, abs=5 / np.sqrt(sample.size))
        assert stats.kstest(sample.ravel(), stats.norm.cdf).pvalue > 1e-4
    luck = np.concatenate([tall.available[:1], tall.available[1:] ^ tall.available[:-1]])
    for draws in (
        [*tall.shadow_db[:6, :, 0], *tall.shadow_db[:6, :, 1], *luck[:6]],
        [*wide.shadow_db[:6, 0, :MANY], *wide.edge_load[:6]],
    ):
        related = np.abs(np.corrcoef(np.array(draws, float)))
        assert (related[~np.eye(len(related), dtype=bool)] < 5 / np.sqrt(MANY)).all()
    fading = tall.shadow_db[ROUNDS]
    assert abs(correlation(fading[1:], fading[:-1])) < 5 / np.sqrt(2 * MANY)


def test_another_key_is_another_run():
    network, spec = network_of(7, 4), NetworkSpec(dynamics="markov")
    one, other = (dynamics.start(jax.random.key(seed), network, spec) for seed in (0, 1))
    assert (one.shadow_db != other.shadow_db).all()
    assert (one.edge_load != other.edge_load).all()


@pytest.mark.parametrize(
    ("rho", "std", "mean"),
    [(0.9, 8.0, 0.3), (0.5, 3.0, 0.0), (1.0 - 1e-6, 6.0, 0.9), (1.0, 6.0, 0.5), (0.9, 0.0, 0.25)],
)
def test_fading_and_load_equal_the_recursion_on_the_same_normals(rho, std, mean):
    """x' = rho x + sqrt(1 - rho^2) sigma w: zero about a mean, unclipped; rho = 1 stands still."""
    changes = {"shadow_correlation": rho, "shadow_std_db": std}
    changes |= {"load_correlation": rho, "load_std": std, "load_mean": mean}
    drawn, got = simulated(7, 4, **NORMALS), simulated(7, 4, **changes)
    for field, centre in (("shadow_db", 0.0), ("edge_load", mean)):
        normals = getattr(drawn, field).astype(np.float64)
        x = std * normals[0]
        for now in range(ROUNDS + 1):
            if now:
                x = rho * x + np.sqrt(1 - rho**2) * std * normals[now]
            assert_close(getattr(got, field)[now], centre + x, 0, atol=1e-5 * (std + centre))
    if rho == 1.0:
        assert not np.diff(got.shadow_db, axis=0).any()
        assert not np.diff(got.edge_load, axis=0).any()


@pytest.mark.parametrize(
    ("leave", "back"), [(0.5, 0.5), (0.1, 0.4), (1.0, 0.3), (1, 1), (0, 0), (0, 0.4), (0.4, 0)]
)
def test_availability_has_the_shares_and_transitions_of_its_chain(leave, back):
    """From the first round on; everybody is there where nobody ever leaves or returns."""
    here = simulated(MANY, 1, leave_probability=leave, return_probability=back).available
    share = back / (leave + back) if leave + back else 1.0
    for now in (0, 1, ROUNDS):
        error = np.sqrt(share * (1 - share) / MANY)
        assert here[now].mean() == pytest.approx(share, abs=5 * error)
    for before, probability in ((True, leave), (False, back)):
        changed = (here[1:] != here[:-1])[here[:-1] == before]
        if changed.size:
            error = np.sqrt(probability * (1 - probability) / changed.size)
            assert changed.mean() == pytest.approx(probability, abs=5 * error)
    if 0 < leave < 1 and 0 < back < 1:  # who has just returned leaves as often as anybody else
        left = ~here[2:][~here[:-2] & here[1:-1]]
        assert left.mean() == pytest.approx(leave, abs=5 * np.sqrt(leave * (1 - leave) / left.size))


def test_static_is_nominal_for_ever():
    spec, network = NetworkSpec(), network_of(7, 4)
    now = dynamics.start(KEY, network, spec)
    assert dynamics.step(KEY, 0, now, network, spec) is now
    trace = dynamics.record(KEY, network, spec, 3)
    assert trace.shadow_db.shape == (4, 7, 5)
    for rows in (topology.Conditions(*(leaf[None] for leaf in now)), trace):
        assert not rows.shadow_db.any()
        assert not rows.edge_load.any()
        assert rows.available.all()


def test_start_refuses_unknown_dynamics():
    with pytest.raises(ValueError, match=r"network\.dynamics='brownian' is unknown; known: st"):
        dynamics.start(KEY, network_of(1, 1), NetworkSpec(dynamics="brownian"))


@st.composite
def traces(draw):
    """A trace for 3 clients and 2 edge nodes, any axis of it shortened."""
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    side = lambda whole: draw(st.sampled_from((1, whole)))  # noqa: E731
    rows = lambda: draw(st.integers(1, 4))  # noqa: E731
    return dynamics.Trace(
        shadow_db=rng.normal(size=(rows(), side(3), side(3))).astype(np.float32),
        edge_load=rng.normal(size=(rows(), side(2))).astype(np.float32),
        available=rng.random((rows(), side(3))) < 0.5,
    )


@settings(deadline=None, max_examples=15)
@given(traces())
def test_step_of_a_trace_takes_row_after_row_and_then_the_last(trace):
    spec, network = NetworkSpec(dynamics="trace"), network_of(3, 2, trace)
    now = dynamics.start(KEY, network, spec)
    for round_index in range(6):
        for got, rows in zip(now, trace, strict=True):
            row = rows[round_index] if round_index < len(rows) else rows[-1]
            np.testing.assert_array_equal(got, np.broadcast_to(row, got.shape))
        assert [leaf.shape for leaf in now] == [trace.shadow_db.shape[1:], (2,), (3,)]
        assert [leaf.dtype for leaf in now] == [np.float32, np.float32, bool]
        now = dynamics.step(KEY, round_index, now, network, spec)


@pytest.mark.parametrize("dynamic", ["markov", "trace"])
def test_start_and_step_are_not_fused_with_their_readers(dynamic):
    """In the program, as no compiler for CPUs has been seen to make a difference of it."""
    network, spec = network_of(7, 4, simulated(7, 4)), NetworkSpec(dynamics=dynamic)
    start = dynamics.start(KEY, network, spec)
    for program in (
        jax.make_jaxpr(lambda: dynamics.start(KEY, network, spec))(),
        jax.make_jaxpr(lambda now: dynamics.step(KEY, 0, now, network, spec))(start),
    ):
        last = program.eqns[-1]
        assert str(last.primitive) == "optimization_barrier"
        assert last.outvars == program.jaxpr.outvars


@pytest.mark.parametrize(("num_clients", "num_edges"), [(1, 1), (7, 4)])
def test_record_replays_a_markov_run_bit_for_bit(num_clients, num_edges):
    """What the rounds of a jitted scan see, and what they make of it."""
    markov, replay = NetworkSpec(dynamics="markov"), NetworkSpec(dynamics="trace")
    network = network_of(num_clients, num_edges)
    trace = dynamics.record(KEY, network, markov, 20)
    shapes = [(21, num_clients, num_edges + 1), (21, num_edges), (21, num_clients)]
    assert [rows.shape for rows in trace] == shapes
    assert [rows.dtype for rows in trace] == [np.float32, np.float32, bool]
    assert all(type(rows) is np.ndarray for rows in trace)
    seen, made = run(network, markov, 20)
    again, made_again = run(network._replace(trace=trace), replay, 20)
    for rows, lived, replayed in zip(trace, seen, again, strict=True):
        np.testing.assert_array_equal(rows[:20], lived)
        np.testing.assert_array_equal(rows[:20], replayed)
    jax.tree.map(np.testing.assert_array_equal, made, made_again)


def run(network, spec, rounds):
    """Conditions of the rounds, and what depends on them in each, in one compiled program."""
    network = jax.tree.map(jnp.asarray, network)

    @quick_jit
    def program(key):
        def one_round(now, round_index):
            clients = np.arange(network.up_snr.shape[0], dtype=np.int32)[::-1]
            seen = topology.of_clients(network, now, clients)
            after = dynamics.step(key, round_index, now, network, spec)
            return after, (now, (seen.up_bps, seen.servers.flop_per_s, now.shadow_db.sum(0)))

        return jax.lax.scan(one_round, dynamics.start(key, network, spec), np.arange(rounds))[1]

    return program(KEY)
