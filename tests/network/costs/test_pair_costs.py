"""What a server would take to train a cluster: random pairs against the slow reference."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.network.costs.pair_costs import PairCost
from tests.compare import assert_close
from tests.network import rounds
from tests.network.rounds import CLIENTS, CLUSTERS, SERVERS, SIZES, WORK
from tests.oracles import split_cost


@settings(deadline=None, max_examples=60)
@given(rounds.rounds())
def test_pair_costs_equal_the_reference(case):
    pairs, _ = rounds.compute_pairs(case.task, case.network)
    expected = np.zeros((5, CLUSTERS, SERVERS))
    samples = case.task.samples.tolist()
    for m in range(CLUSTERS):
        members = np.flatnonzero(case.task.cluster == m).tolist()
        for e in range(SERVERS) if members else ():
            pair = members, samples, case.task.uploads, e, case.network, WORK, SIZES
            expected[:, m, e] = split_cost.pair_cost(*pair)
    for field, values in zip(PairCost._fields, expected, strict=True):
        assert_close(getattr(pairs, field), values, each=True, err_msg=field)


@settings(deadline=None, max_examples=30)
@given(rounds.rounds())
def test_client_seconds_are_those_of_a_cluster_of_its_own(case):
    _, (client_s, server_s) = rounds.compute_pairs(case.task, case.network)
    samples = case.task.samples.tolist()
    for k in range(CLIENTS):
        for e in range(SERVERS):
            uploads = case.task.uploads
            pair = split_cost.pair_cost([k], samples, uploads, e, case.network, WORK, SIZES)
            back_s = 16 * SIZES.back / float(case.network.backhaul_bps[e])
            assert_close(client_s[k, e], pair.clients_s)
            served_s = pair.node_s + pair.backhaul_s
            assert_close(server_s[k, e], served_s - back_s, 0, atol=1e-5 * served_s)


WEIGHTS = st.just(0.0) | st.floats(1e-3, 10)


@given(WEIGHTS, WEIGHTS)
def test_weigh_adds_up_to_seconds_and_joules(time_weight, energy_weight):
    """Of a pair that takes 5 s and then 1.5 + .5 s, 70 J and 3 W; on the j-th copy 5 + 2 j s."""
    pair = PairCost(*(jnp.float32([[value]]) for value in (5.0, 1.5, 0.5, 70.0, 3.0)))
    first, second = pair.weigh(time_weight, energy_weight)
    for copy in (1, 2):
        seconds = 5 + 2 * copy
        expected = time_weight * seconds + energy_weight * (70 + 3 * seconds)
        assert_close(first + copy * second, [[expected]], 1e-6)
