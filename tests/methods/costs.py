"""Ledgers of the library against costs of the oracles."""

import itertools

import numpy as np

from cefl_jax.network.messages import LINKS, MESSAGES
from cefl_jax.network.schedule import PHASES
from tests.compare import assert_close


def assert_same_ledger(ledger, costs):
    """`costs` are those of all rounds so far, each with phase_s, link_bytes and energy_j."""
    seconds = [sum(cost.phase_s.get(phase, 0.0) for cost in costs) for phase in PHASES]
    assert_close(ledger.phase_s, seconds, 1e-4, atol=1e-6 * sum(seconds), each=True)
    for (i, link), (j, message) in itertools.product(enumerate(LINKS), enumerate(MESSAGES)):
        sent = sum(cost.link_bytes.get((link, message), 0) for cost in costs)
        assert int(ledger.link_bytes[i, j]) == sent, (link, message)
    assert_close(ledger.energy_j, np.sum([cost.energy_j for cost in costs], 0), 1e-4, each=True)
