"""What a round of split training costs, worked by hand; random ones are in test_schedule.py."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest

from cefl_jax.network.costs.split import split_cost
from cefl_jax.network.ledger import phase_seconds
from cefl_jax.network.messages import Payload, Sizes, count_bytes
from cefl_jax.network.schedule import simulate
from cefl_jax.network.step_times import Task
from cefl_jax.network.topology import Devices, RoundNetwork
from tests.compare import assert_close
from tests.network import rounds
from tests.quick import quick_jit

# Clients A and B (cluster 0, on X), C (cluster 1, on Y); and D, of no cluster and with hopeless
# links, which is nowhere to be seen in what follows. Servers X and Y.
WORK = dataclasses.replace(
    rounds.WORK,
    front_forward_flop=10.0,
    front_backward_flop=20.0,
    back_train_flop=60.0,
    front_bytes=40,  # 320 bit, 10 parameters
    back_bytes=80,  # 640 bit, 20 parameters
)
# Of n samples 32 (n + 1) bits go up, labels included, and 16 (n + 2) come back.
SIZES = Sizes(smashed=Payload(3, 4), gradient=Payload(2, 4), label=1, front=40, back=80)
SAMPLES = [[3, 1], [2, 2], [4, 0], [0, 0]]  # bits up: A 128 64, B 96 96, C 160; down: A 80 48, ...
UPLOADS = [1, 2, 1, 0]
CLUSTER = [0, 0, 1, 3]  # three clusters, of which the last did not form
NETWORK = RoundNetwork(
    clients=Devices(
        flop_per_s=[10, 20, 5, 1e-9],  # forward s: A 3 1, B 1 1, C 8; backward s: twice that
        idle_w=[1, 1, 2, 1e9],
        busy_w=[3, 5, 4, 1e9],
        transmit_w=[2, 1, 3, 1e9],
        kind=np.int32([0, 0, 1, 5]),
    ),
    servers=Devices(
        flop_per_s=[120, 60],  # s a sample: X .5, Y 1
        idle_w=[10, 20],
        busy_w=[30, 60],
        transmit_w=[5, 4],
        kind=np.int32([2, 2]),
    ),
    front=Devices(flop_per_s=20, idle_w=1e9, busy_w=8, transmit_w=6, kind=np.int32(3)),
    cloud=Devices(flop_per_s=80, idle_w=1e9, busy_w=16, transmit_w=1e9, kind=np.int32(4)),
    distance_km=np.zeros((4, 2), np.float32),
    up_bps=[[64, 1], [32, 1], [32, 32], [1e-9, 1e-9]],  # s: A 2 1, B 3 3, C 5
    down_bps=[[16, 1], [32, 1], [48, 48], [1e-9, 1e-9]],  # s: A 5 3, B 2 2, C 2
    radio_up_bps=[[64, 1], [32, 1], [32, 64], [1e-9, 1e-9]],  # C to Y: half of the time
    radio_down_bps=[[16, 1], [32, 1], [48, 96], [1e-9, 1e-9]],
    front_up_bps=[160, 320, 160, 1e-9],  # s: A 2, B 1, C 2
    front_down_bps=[320, 160, 80, 1e-9],  # s: A 1, B 2, C 4
    backhaul_bps=[640, 128],  # back half s: X 1, Y 5
)
NETWORK = jax.tree.map(  # lists as arrays
    lambda leaf: leaf if isinstance(leaf, np.generic | np.ndarray) else np.float32(leaf),
    NETWORK,
    is_leaf=lambda leaf: isinstance(leaf, list),
)
# Only to the cloud there is a wire after the radio.
ON_EDGES = NETWORK._replace(radio_up_bps=NETWORK.up_bps, radio_down_bps=NETWORK.down_bps)
ON_CLOUD = NETWORK._replace(
    servers=NETWORK.servers._replace(kind=np.int32([2, 4])), backhaul_bps=np.float32([640, np.inf])
)
NUM_KINDS = 6  # A and B; C; servers; front aggregation server; cloud; D


class Case(NamedTuple):
    """A worked round: what is different in it, and what it costs."""

    changes: dict
    phase_s: dict
    link_bytes: dict
    energy_j: list


def seconds(*of_phases):
    """Seconds of the phases of a round of which something counts."""
    names = (
        "model_download front_forward smashed_upload back_training gradient_download "
        "front_backward model_upload averaging distillation"
    )
    return dict(zip(names.split(), of_phases, strict=True))


def sent(**links):
    """{(link, message): bytes} of bytes by message, of each link."""
    return {(link, name): size for link, row in links.items() for name, size in row.items()}


# A computes 3 + 1 + 6 + 2 = 12 s, at 3 - 1 W more: 24 J; B 1 + 1 + 2 + 2 = 6 s at 4 W: 24 J; C
# 8 + 16 = 24 s at 2 W: 48 J. A sends 2 + 1 s, and 2 s the front half, at 2 W: 10 J; B 3 + 3 + 1 s
# at 1 W: 7 J; C 5 + 2 s at 3 W: 21 J. Loading front halves: 1 + 2 + 4 = 7 s at 6 W: 42 J.
# Averaging, 2 FLOP a parameter: a front half 20 / 20 = 1 s, 8 J; a back half 40 / 80 = .5 s, 8 J.
# Distilling, 160 FLOP: 2 s, 32 J.
CASES = {}

# Cluster 0 is ready at 2 (B's front half). Step one: A up 3 + 2 (B 1 + 3) -> 7, X 5 samples -> 9.5,
#   A down 5 + 6 (B 2 + 2) -> 20.5. Step two: B up 1 + 3 (A 1 + 1) -> 24.5, X 3 samples -> 26,
#   A down 3 + 2 (B 2 + 2) -> 31. Front halves arrive at 33 and 32, 640 + 64 + 192 bits from X at
#   32.4: closed at 33.
# Cluster 1 is ready at 5 (the back half). C up 8 + 5 -> 18, Y 4 samples -> 22, down 2 + 16 -> 40.
#   Its front half arrives at 42, 640 + 160 bits from Y at 46.25. With 4 s of averaging: 52.25 s.
# X idles 33 s at 10 W, computes 4 s at 20 W, sends 5 + 3 + 2 + 2 s at 5 W: 470 J.
# Y idles 46.25 s at 20 W, computes 4 s at 40 W, sends 2 s at 4 W: 1093 J.
CASES["everybody finishes"] = Case(
    {},
    seconds(5, 8, 5, 4, 2, 16, 6.25, 4, 2),
    sent(
        client_down={"front_half": 3 * 40, "cut_gradient": 10 + 6 + 8 + 8 + 12},
        client_up={"front_half": 3 * 40, "smashed_data": 13 + 7 + 10 + 10 + 16, "labels": 12},
        edge_down={"back_half": 2 * 80},
        edge_up={"back_half": 2 * 80, "smashed_data": 7 + 10 + 10 + 16, "labels": 1 + 4 + 4},
    ),
    [52.25 + 34 + 52.25 + 31, 2 * 52.25 + 69, 470 + 1093, 3 * 8 + 42, 2 * 8 + 32, 0],
)

# C's features go through the cloud's wire as well; nothing else of it does. Ready at 4, trained at
# 39, closed at 41 when its front half arrives. The cloud idles 41 s at 20 W, and computes as Y. By
# radio C sends 2.5 s instead of 5, and the front server, not the cloud, 1 s instead of 2, at 6 W.
CASES["the cloud serves"] = Case(
    {"network": ON_CLOUD},
    CASES["everybody finishes"].phase_s | {"model_download": 4, "model_upload": 2},
    CASES["everybody finishes"].link_bytes
    | {
        ("edge_down", "back_half"): 80,
        ("edge_up", "back_half"): 80,
        ("edge_down", "cut_gradient"): 12,
    },
    [47 + 34 + 47 + 31, 2 * 47 + 69 - 7.5, 470, 66 + 6, 820 + 160 + 48, 0],
)

# C alone would need max(4, 5) + 8 + 5 + 4 + 2 + 16 + 2 = 42 s, and does not start. Cluster 0 sets
# the pace: up A, then B; down A, both times. Before step two, at 20.5, A alone would need
# 1 + 1 + .5 + 3 + 2 + 2 s and be done at 30; held up by B it ends the step at 31 and would arrive
# at 33. B's 640 + 192 bits leave X by 32.3. A takes part for 31 s, and has sent for 3 s.
CASES["one is too slow to start, one is held up and late"] = Case(
    {"deadline_s": np.float32(32.5)},
    seconds(2, 3 + 1, 2 + 3, 2.5 + 1.5, 5 + 3, 6 + 2, 1.3, 1.5, 2),
    sent(
        client_down={"front_half": 2 * 40, "cut_gradient": 10 + 6 + 8 + 8},
        client_up={"front_half": 40, "smashed_data": 13 + 7 + 10 + 10, "labels": 8},
        edge_down={"back_half": 80},
        edge_up={"back_half": 80, "smashed_data": 10 + 10, "labels": 4},
    ),
    [31 + 24 + 6 + 35.8 + 31, 0, 323 + 80 + 60, 8 + 18, 40, 0],
)

# A leaves at 20.5. Step two is B's: up 1 + 3 -> 24.5, X 2 samples -> 25.5, down 2 + 2 -> 29.5. A's
# front half arrives at 22.5, B's at 30.5; 640 + 128 + 192 bits from X at 31.
# A takes part for 22.5 s, computes 9, sends 2 + 2. X idles 31 s, computes 3.5 s, sends 9 s.
CASES["one leaves, and what it did is kept"] = Case(
    {"deadline_s": np.float32(40), "keep": True, "stays": [1, 2, 2, 2]},
    seconds(2, 3 + 1, 2 + 3, 2.5 + 1, 5 + 2, 6 + 2, 1.5, 2.5, 2),
    sent(
        client_down={"front_half": 2 * 40, "cut_gradient": 10 + 8 + 8},
        client_up={"front_half": 2 * 40, "smashed_data": 13 + 10 + 10, "labels": 7},
        edge_down={"back_half": 80},
        edge_up={"back_half": 80, "smashed_data": 13 + 10 + 10, "labels": 3 + 4},
    ),
    [22.5 + 18 + 8 + 35.5 + 31, 0, 310 + 70 + 45, 2 * 8 + 18, 40, 0],
)

# Before step two, at 20.5, A alone would be done at 30 and B at 30.5; together they would end it at
# 31, too late. So nothing counts. All take part until 20.5, X among them, and deliver nothing.
CASES["a step that would end late is not begun, and the round waits"] = Case(
    {"deadline_s": np.float32(30.75)},
    {"waiting": 30.75, "distillation": 2},
    sent(
        client_down={"front_half": 2 * 40, "cut_gradient": 10 + 8},
        client_up={"smashed_data": 13 + 10, "labels": 5},
        edge_down={"back_half": 80},
    ),
    [20.5 + 18 + 4 + 20.5 + 12 + 3, 0, 205 + 50 + 35, 18, 32, 0],
)


def cost_of(network=ON_EDGES, stays=(2, 2, 2, 2), deadline_s=None, keep=False):
    """The RoundCost of the worked round with changes."""
    task = Task(*map(np.int32, (SAMPLES, CLUSTER, [0, 1, -1], stays, UPLOADS)))
    return _program(keep)(task, network, deadline_s)


@functools.cache
def _program(keep):
    def run(task, network, deadline_s):
        schedule = simulate(task, network, WORK, SIZES, deadline_s, keep)
        return split_cost(task, schedule, network, WORK, SIZES, 160.0, NUM_KINDS)

    return quick_jit(run)


@pytest.mark.parametrize("name", CASES)
def test_split_cost_of_a_round_worked_by_hand(name):
    case = CASES[name]
    cost = cost_of(**case.changes)
    assert_close(rounds.phases(cost.phase_s), case.phase_s, 2e-6)
    assert rounds.messages(cost.link_bytes) == case.link_bytes
    assert_close(cost.energy_j, case.energy_j, 1e-6, each=True)


def test_phase_seconds_and_count_bytes_refuse_unknown_names():
    with pytest.raises(ValueError, match=r"^unknown phases \['avraging'\]; known: "):
        phase_seconds(avraging=1.0)
    for sent in ({"client_upp": {"model": [(1, 4)]}}, {"client_up": {"modell": [(1, 4)]}}):
        with pytest.raises(ValueError, match=r"^unknown links or messages "):
            count_bytes(sent)
