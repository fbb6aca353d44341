"""The network's changes against the closed forms of their processes, and replay bit for bit.

Tolerances are five standard errors of the statistic at the size of its sample.
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
from tests.quick import quick_jit

KEY = jax.random.key(0)
MANY = 4000
ROUNDS = 50
SIZES = [(1, 1), (7, 4), (130, 5)]
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
WORLDS = [
    NORMALS,
    {},
    {
        "shadow_correlation": 0.5,
        "shadow_std_db": 3.0,
        "load_correlation": 0.7,
        "load_std": 0.5,
        "load_mean": 0.9,
        "leave_probability": 1.0,
        "return_probability": 0.3,
    },
]


def network_of(num_clients, num_edges, trace=None):
    rng = np.random.default_rng(0)
    positive = lambda *shape: rng.uniform(0.5, 2.0, shape).astype(np.float32)  # noqa: E731
    devices = lambda *shape: topology.Devices(  # noqa: E731
        *(positive(*shape) for _ in range(4)), np.zeros(shape, np.int32)
    )
    return topology.Network(
        clients=devices(num_clients),
        edges=devices(num_edges),
        front=devices(),
        cloud=devices(),
        client_km=positive(num_clients, 2),
        edge_km=positive(num_edges, 2),
        front_km=positive(2),
        bandwidth_hz=1e6 * positive(num_clients),
        up_snr=positive(num_clients, num_edges + 1),
        down_snr=positive(num_clients, num_edges + 1),
        backhaul_bps=positive(num_edges + 1),
        trace=trace,
    )


@functools.cache
def simulated(num_clients, num_edges, **fields):
    """Trace of rounds 0 to `ROUNDS`, by `step` and not by `record`."""
    spec, network = NetworkSpec(dynamics="markov", **fields), network_of(num_clients, num_edges)

    @quick_jit
    def program(key):
        def one_round(now, round_index):
            return dynamics.step(key, round_index, now, network, spec), now

        start = dynamics.start(key, network, spec)
        return jax.lax.scan(one_round, start, np.arange(ROUNDS + 1))[1]

    return dynamics.Trace(*map(np.asarray, program(KEY)))


def processes(fields):
    """Many samples [rounds, ...] of each Gauss-Markov process; mean, correlation and deviation."""
    spec = NetworkSpec(**fields)
    fading, load = simulated(MANY, 1, **fields).shadow_db, simulated(1, MANY, **fields).edge_load
    yield fading, 0.0, spec.shadow_correlation, spec.shadow_std_db
    yield load, spec.load_mean, spec.load_correlation, spec.load_std


def correlation(x, y):
    return float(np.corrcoef(x.ravel(), y.ravel())[0, 1])


class TestMarkov:
    def test_shapes(self):
        spec, network = NetworkSpec(dynamics="markov"), network_of(7, 4)
        start = dynamics.start(KEY, network, spec)
        for now in (start, dynamics.step(KEY, 3, start, network, spec)):
            assert isinstance(now, topology.Conditions)
            assert [leaf.shape for leaf in now] == [(7, 5), (4,), (7,)]
            assert [leaf.dtype for leaf in now] == [np.float32, np.float32, bool]

    @pytest.mark.parametrize("fields", WORLDS)
    def test_fading_and_load_keep_their_distribution(self, fields):
        for trace, mean, _, std in processes(fields):
            for now in (0, 1, ROUNDS):
                sample = (trace[now].ravel() - mean) / std
                assert sample.mean() == pytest.approx(0.0, abs=5 / np.sqrt(sample.size))
                assert sample.var() == pytest.approx(1.0, abs=5 * np.sqrt(2 / sample.size))
                assert stats.kstest(sample, stats.norm.cdf).pvalue > 1e-4

    @pytest.mark.parametrize("fields", WORLDS)
    def test_correlation_falls_as_a_power_of_the_lag(self, fields):
        for trace, _, rho, _ in processes(fields):
            for lag in (1, 3):
                error = (1 - rho ** (2 * lag)) / np.sqrt(trace[0].size)
                for now in (0, ROUNDS - lag):
                    got = correlation(trace[now], trace[now + lag])
                    assert got == pytest.approx(rho**lag, abs=5 * error)

    def test_each_link_fades_on_its_own(self):
        fading = simulated(MANY, 1).shadow_db[ROUNDS]
        assert abs(correlation(fading[:, 0], fading[:, 1])) < 5 / np.sqrt(MANY)
        assert abs(correlation(fading[1:], fading[:-1])) < 5 / np.sqrt(2 * MANY)

    @pytest.mark.parametrize("field", ["shadow_db", "edge_load"])
    def test_equals_the_recursion_on_the_same_normals(self, field):
        normals = getattr(simulated(7, 4, **NORMALS), field).astype(np.float64)
        got = getattr(simulated(7, 4), field)
        mean, rho, std = {"shadow_db": (0.0, 0.9, 8.0), "edge_load": (0.3, 0.9, 0.15)}[field]
        x = std * normals[0]
        for now in range(ROUNDS):
            assert_close(got[now], mean + x, 0, atol=3e-6 * std)
            x = rho * x + np.sqrt(1 - rho**2) * std * normals[now + 1]

    def test_nothing_is_drawn_twice(self):
        """Neither in two rounds nor for two quantities: uncorrelated with the correlation off.

        Where leaving and returning are as likely as not, who changes is the luck of the round.
        """
        tall, wide = simulated(MANY, 1, **NORMALS), simulated(1, MANY, **NORMALS)
        luck = np.concatenate([tall.available[:1], tall.available[1:] ^ tall.available[:-1]])
        for draws in (
            [*tall.shadow_db[:6].reshape(6, -1)[:, :MANY], *luck[:6]],
            [*wide.shadow_db[:6, 0, :MANY], *wide.edge_load[:6]],
        ):
            related = np.abs(np.corrcoef(np.array(draws, float)))
            assert (related[~np.eye(len(related), dtype=bool)] < 5 / np.sqrt(MANY)).all()

    def test_another_key_is_another_run(self):
        network, spec = network_of(7, 4), NetworkSpec(dynamics="markov")
        one, other = (dynamics.start(jax.random.key(seed), network, spec) for seed in (0, 1))
        assert (one.shadow_db != other.shadow_db).all()
        assert (one.edge_load != other.edge_load).all()

    @pytest.mark.parametrize("rho", [1.0, 1.0 - 1e-6])
    def test_a_correlation_of_one_or_nearly_stands_still(self, rho):
        trace = simulated(MANY, 1, shadow_correlation=rho, load_correlation=rho, shadow_std_db=6.0)
        step = np.diff(trace.shadow_db, axis=0)
        if rho == 1.0:
            assert not step.any()
            assert not np.diff(trace.edge_load, axis=0).any()
        else:
            usual = 6.0 * np.sqrt(2 * (1 - rho))
            assert step.std() == pytest.approx(usual, rel=5 / np.sqrt(2 * step.size) + 1e-3)
        assert trace.shadow_db[ROUNDS].var() == pytest.approx(36.0, rel=5 * np.sqrt(2 / 8000))

    def test_without_deviation_there_is_no_fading_and_the_mean_load(self):
        trace = simulated(7, 4, shadow_std_db=0.0, load_std=0.0, load_mean=0.25)
        assert not trace.shadow_db.any()
        assert_close(trace.edge_load, 0.25, 1e-6)

    def test_load_is_kept_unclipped(self):
        load = simulated(1, MANY, **NORMALS).edge_load
        assert load.min() < -1.0
        assert load.max() > 1.0


class TestAvailability:
    @pytest.mark.parametrize("fields", WORLDS)
    def test_shares_and_transitions(self, fields):
        spec, here = NetworkSpec(**fields), simulated(MANY, 1, **fields).available
        leave, back = spec.leave_probability, spec.return_probability
        share = back / (leave + back)
        error = np.sqrt(share * (1 - share) / MANY)
        for now in (0, 1, ROUNDS):
            assert here[now].mean() == pytest.approx(share, abs=5 * error)
        for before, probability in ((True, leave), (False, back)):
            changed = (here[1:] != here[:-1])[here[:-1] == before]
            error = np.sqrt(probability * (1 - probability) / changed.size)
            assert changed.mean() == pytest.approx(probability, abs=5 * error)

    def test_the_past_does_not_matter_but_for_the_present(self):
        """Markov: who has just returned leaves as often as anybody else."""
        here, leave = simulated(MANY, 1).available, NetworkSpec().leave_probability
        left = ~here[2:][~here[:-2] & here[1:-1]]
        assert left.mean() == pytest.approx(leave, abs=5 * np.sqrt(leave * (1 - leave) / left.size))

    @pytest.mark.parametrize(
        ("leave", "back", "share"),
        [(0.0, 0.0, 1.0), (0.0, 0.4, 1.0), (0.4, 0.0, 0.0)],
    )
    def test_nobody_leaves_or_nobody_returns(self, leave, back, share):
        here = simulated(MANY, 1, leave_probability=leave, return_probability=back).available
        assert (here == share).all()

    def test_who_surely_leaves_and_surely_returns_alternates(self):
        here = simulated(MANY, 1, leave_probability=1.0, return_probability=1.0).available
        assert here[0].mean() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(MANY))
        assert (here[1:] == ~here[:-1]).all()


class TestStatic:
    def test_is_nominal_for_ever(self):
        spec, network = NetworkSpec(), network_of(7, 4)
        now = dynamics.start(KEY, network, spec)
        assert not now.shadow_db.any()
        assert now.shadow_db.shape == (7, 5)
        assert not now.edge_load.any()
        assert now.available.all()
        assert dynamics.step(KEY, 0, now, network, spec) is now
        trace = dynamics.record(KEY, network, spec, 3)
        assert trace.shadow_db.shape == (4, 7, 5)
        assert not trace.shadow_db.any()
        assert trace.available.all()

    def test_unknown_dynamics_are_refused(self):
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


class TestTrace:
    @settings(deadline=None, max_examples=15)
    @given(traces())
    def test_row_r_is_round_r_and_the_last_holds_for_ever(self, trace):
        spec, network = NetworkSpec(dynamics="trace"), network_of(3, 2, trace)
        now = dynamics.start(KEY, network, spec)
        for round_index in range(6):
            for got, rows in zip(now, trace, strict=True):
                row = rows[round_index] if round_index < len(rows) else rows[-1]
                np.testing.assert_array_equal(got, np.broadcast_to(row, got.shape))
            assert [leaf.shape for leaf in now] == [(3, 3), (2,), (3,)]
            assert [leaf.dtype for leaf in now] == [np.float32, np.float32, bool]
            now = dynamics.step(KEY, round_index, now, network, spec)

    @pytest.mark.parametrize(("num_clients", "num_edges"), SIZES)
    def test_replays_a_markov_run_bit_for_bit(self, num_clients, num_edges):
        """Both what the rounds of a jitted scan see, and what they make of it."""
        markov, replay = NetworkSpec(dynamics="markov"), NetworkSpec(dynamics="trace")
        network = network_of(num_clients, num_edges)
        trace = dynamics.record(KEY, network, markov, 20)
        assert [len(rows) for rows in trace] == [21, 21, 21]
        assert all(type(rows) is np.ndarray for rows in trace)
        seen, made = run(network, markov)
        again, made_again = run(network._replace(trace=trace), replay)
        for rows, lived, replayed in zip(trace, seen, again, strict=True):
            np.testing.assert_array_equal(rows[:20], lived)
            np.testing.assert_array_equal(rows[:20], replayed)
        jax.tree.map(np.testing.assert_array_equal, made, made_again)

    @pytest.mark.parametrize("dynamic", ["markov", "trace"])
    def test_readers_see_values_that_are_not_fused_with_theirs(self, dynamic):
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

    @pytest.mark.parametrize("dynamic", ["markov", "trace"])
    def test_a_run_cut_in_two_is_the_same_run(self, dynamic):
        network = network_of(7, 4)
        trace = dynamics.record(KEY, network, NetworkSpec(dynamics="markov"), 20)
        network, spec = network._replace(trace=trace), NetworkSpec(dynamics=dynamic)
        now = topology.Conditions(*(rows[8] for rows in trace))
        step = quick_jit(lambda key, r, now: dynamics.step(key, r, now, network, spec))
        for round_index in range(8, 20):
            now = step(KEY, round_index, now)
            for rows, leaf in zip(trace, now, strict=True):
                np.testing.assert_array_equal(rows[round_index + 1], leaf)


def run(network, spec):
    """Conditions of 20 rounds, and what depends on them in each, in one compiled program."""
    network = jax.tree.map(jnp.asarray, network)

    @quick_jit
    def program(key):
        def one_round(now, round_index):
            clients = np.arange(network.up_snr.shape[0], dtype=np.int32)[::-1]
            seen = topology.of_clients(network, now, clients)
            after = dynamics.step(key, round_index, now, network, spec)
            return after, (now, (seen.up_bps, seen.servers.flop_per_s, now.shadow_db.sum(0)))

        return jax.lax.scan(one_round, dynamics.start(key, network, spec), np.arange(20))[1]

    return program(KEY)
