"""What a round of whole models costs, and one of SplitFed V1, against ledgers in plain Python."""

import itertools

import jax
import numpy as np
import pytest

from cefl_jax.network import dynamics
from cefl_jax.network.messages import LINKS, MESSAGES
from cefl_jax.network.schedule import PHASES
from cefl_jax.types import Purpose, purpose_key, round_key
from tests import world
from tests.compare import assert_close
from tests.methods.test_whole_round import make_setup
from tests.methods.whole_rounds import planned_steps
from tests.oracles import whole_bill

EPOCH = {
    "network.preset": "device_zoo",  # devices of several classes
    "train.rounds": 4,
    "train.local_steps": None,
    "train.local_epochs": 1,
}
MARKOV = {
    "network.dynamics": "markov",
    "network.leave_probability": 0.3,
    "network.return_probability": 0.4,
}
DEADLINE_S = 0.5
CASES = {
    "static": {"method.name": "fedavg"},
    "static, deadline": {"method.name": "scaffold", "network.deadline_s": DEADLINE_S},
    "markov": {"method.name": "scaffold"} | MARKOV,
    "markov, deadline": {"method.name": "fedavg", "network.deadline_s": DEADLINE_S} | MARKOV,
    "markov, deadline, keep": {
        "method.name": "fedavg",
        "network.deadline_s": DEADLINE_S,
        "network.late": "keep",
    }
    | MARKOV,
}


def rates(setup, conditions):
    """Bits per second of every client to the front aggregation server and back, float64 [N]."""
    network, fade = setup.network, 10 ** (np.float64(conditions.shadow_db[:, -1]) / 10)
    return (
        network.bandwidth_hz * np.log2(1 + np.float64(snr[:, -1]) * fade)
        for snr in (network.up_snr, network.down_snr)
    )


def device(devices, *at):
    """One device in the words of the oracle."""
    *numbers, kind = (leaf[at] for leaf in devices)
    return *map(float, numbers), int(kind)


def batches(setup, size):
    """Samples of each planned local step of a client with so many examples."""
    width = setup.spec.train.batch_size
    one_pass = [min(width, size - begin) for begin in range(0, size, width)]
    return [one_pass[s % len(one_pass)] for s in range(planned_steps(setup, size))]


def clients_of(setup, index, clients, now, after):
    """The sampled ones, in the words of the oracle."""
    up_bps, down_bps = rates(setup, now)
    key = round_key(jax.random.key(setup.spec.seed), index, Purpose.DEPARTURE)
    for client in clients:
        samples = batches(setup, len(setup.partition[client]))
        stays = len(samples)
        if now.available[client] and not after.available[client]:
            moment = np.float32(jax.random.uniform(jax.random.fold_in(key, client)))
            stays = int(moment * np.float32(len(samples)))
        yield whole_bill.Client(
            device(setup.network.clients, client), up_bps[client], down_bps[client], samples, stays
        )


def assert_same(ledger, spent):
    """`spent` are seconds, bytes and joules of the rounds so far."""
    phase_s, link_bytes, energy_j = zip(*spent, strict=True)
    seconds = [sum(one.get(phase, 0.0) for one in phase_s) for phase in PHASES]
    assert_close(ledger.phase_s, seconds, 1e-4, atol=1e-6 * sum(seconds), each=True)
    for (i, link), (j, message) in itertools.product(enumerate(LINKS), enumerate(MESSAGES)):
        sent = sum(one.get((link, message), 0) for one in link_bytes)
        assert int(ledger.link_bytes[i, j]) == sent, (link, message)
    assert_close(ledger.energy_j, np.sum(energy_j, 0), 1e-4, each=True)


@pytest.mark.parametrize("case", CASES)
def test_ledger_of_whole_models(case):
    setup = make_setup(EPOCH | CASES[case])
    spec, work = setup.spec, setup.planner.work
    decisions, ledgers = world.decide_rounds(setup)
    key = purpose_key(jax.random.key(spec.seed), Purpose.NETWORK)
    now = jax.device_get(dynamics.start(key, setup.network, spec.network))
    size = 4 * (64 * 200 + 200 + 200 * 200 + 200 + 200 * 4 + 4)  # of the mlp
    sizes = {"model": size} | ({"control_variate": size} if spec.method.name == "scaffold" else {})
    spent, seen = [], []
    for index in range(spec.train.rounds):
        decision, ledger = world.row_of((decisions, ledgers), index)
        sampled = [c for c in decision.plan.clients.tolist() if c < len(setup.partition)]
        clients = list(clients_of(setup, index, sampled, now, decision.conditions))
        spent.append(
            whole_bill.bill(
                clients,
                device(setup.network.front),
                sizes,
                (work.front_forward_flop, work.front_backward_flop),
                len(setup.device_names),
                spec.network.deadline_s,
                spec.network.late == "keep",
            )
        )
        assert_same(ledger, spent)
        for name in ("started", "steps", "counts", "finished"):
            wanted = [getattr(client, name) for client in clients]
            got = getattr(decision.schedule, name)[: len(clients)]
            np.testing.assert_array_equal(got, wanted, name)
        now, seen = decision.conditions, seen + clients
    says_something(spec.network, seen)


def says_something(network, clients):
    """Or the case would leave something untried."""
    assert len({client.device[4] for client in clients}) > 2
    late = [client for client in clients if not client.finished]
    moves = network.dynamics == "markov"
    assert bool(late) == (moves or network.deadline_s is not None)
    assert any(client.finished for client in clients)
    if moves:
        assert any(0 < client.steps < len(client.samples) for client in late)
    if network.deadline_s is not None:
        assert not all(client.started for client in clients)
    assert any(client.counts for client in late) == (network.late == "keep")


def test_ledger_of_splitfed_v1():
    """Every back half is trained in the cloud, which K clients share evenly."""
    setup = make_setup(EPOCH | {"method.name": "splitfed_v1", "train.rounds": 1})
    network, work, num_clients = setup.network, setup.planner.work, 7
    decisions, ledgers = world.decide_rounds(setup)
    decision, ledger = world.row_of((decisions, ledgers), 0)
    conditions = jax.device_get(dynamics.start(jax.random.key(0), network, setup.spec.network))
    up_bps, down_bps = rates(setup, conditions)
    wire_bps, front, cloud = (
        float(network.backhaul_bps[-1]),
        device(network.front),
        device(network.cloud),
    )
    ways, energy_j, sent = [], np.zeros(len(setup.device_names)), {}
    loads_s = gradients_s = served_s = 0.0
    clients = decision.plan.clients.tolist()
    assert len(clients) == num_clients
    for client in clients:
        flop_per_s, idle_w, busy_w, radiated_w, _ = device(network.clients, client)
        samples = batches(setup, len(setup.partition[client]))
        n = sum(samples)
        smashed, labels, gradient = n * work.feature_bytes, 4 * n, n * work.feature_bytes
        way = {
            "model_download": 8 * work.front_bytes / down_bps[client],
            "front_forward": n * work.front_forward_flop / flop_per_s,
            "smashed_upload": 8 * (smashed + labels) * (1 / up_bps[client] + 1 / wire_bps),
            "back_training": n * work.back_train_flop / (cloud[0] / num_clients),
            "gradient_download": 8 * gradient * (1 / down_bps[client] + 1 / wire_bps),
            "front_backward": n * work.front_backward_flop / flop_per_s,
            "model_upload": 8 * work.front_bytes / up_bps[client],
        }
        ways.append((client, way))
        loads_s += way["model_download"]
        gradients_s += 8 * gradient / down_bps[client]
        served_s += n * work.back_train_flop / cloud[0]
        for key, size in {
            ("client_down", "front_half"): work.front_bytes,
            ("client_up", "front_half"): work.front_bytes,
            ("client_up", "smashed_data"): smashed,
            ("client_up", "labels"): labels,
            ("client_down", "cut_gradient"): gradient,
            ("edge_up", "smashed_data"): smashed,
            ("edge_up", "labels"): labels,
            ("edge_down", "cut_gradient"): gradient,
        }.items():
            sent[key] = sent.get(key, 0) + size
    _, phase_s = max(ways, key=lambda way: sum(way[1].values()))
    closed_s = sum(phase_s.values())
    fronts_s = 2 * num_clients * work.front_params / front[0]
    backs_s = 2 * num_clients * work.back_params / cloud[0]
    phase_s = phase_s | {"averaging": fronts_s + backs_s}
    for client, way in ways:
        _, idle_w, busy_w, radiated_w, kind = device(network.clients, client)
        computing_s = way["front_forward"] + way["front_backward"]
        n = sum(batches(setup, len(setup.partition[client])))
        radio_s = 8 * n * (work.feature_bytes + 4) / up_bps[client] + way["model_upload"]
        energy_j[kind] += idle_w * (closed_s + fronts_s + backs_s - computing_s)
        energy_j[kind] += busy_w * computing_s + radiated_w * radio_s
    energy_j[front[4]] += front[3] * (loads_s + gradients_s) + front[2] * fronts_s
    energy_j[cloud[4]] += cloud[1] * (closed_s - served_s) + cloud[2] * (served_s + backs_s)
    assert_same(ledger, [(phase_s, sent, energy_j)])
