"""Methods of whole models, and of turns, against oracles from their papers; and where they meet.

FedAvg is the root: where another method degenerates to it, it equals it.
"""

import jax
import numpy as np
import pytest

from cefl_jax.methods import METHODS
from cefl_jax.methods.fednova import local_lengths
from cefl_jax.methods.fedopt import FedoptSpec, Moments, server_update
from tests.compare import assert_close
from tests.methods import replay
from tests.oracles import federated
from tests.oracles.mlp import backward, cross_entropy, each, forward

CLOSE = 1e-4
EVERYTHING = {  # for the client's optimizer
    "train.local_steps": 5,  # more than a pass for some clients, less for others
    "train.optimizer.momentum": 0.9,
    "train.optimizer.weight_decay": 1e-2,
    "train.optimizer.clip_norm": 0.7,
    "run.client_chunk": 3,
}
EPOCHS = {"train.local_steps": None, "train.local_epochs": 2}
KEEP = EPOCHS | {"network.late": "keep"}
DROP = EVERYTHING | EPOCHS
TURNS = DROP | {"run.client_chunk": None}
EMPTYING = (11, 4, 0, 11)  # clients of each round, and of one more; who goes leaves in this round
THINNING = (11, 5, 1, 7)
CASES = {  # name: (method, changed settings, clients of each round, HParams)
    "fedavg": ("fedavg", EVERYTHING, None, {}),
    "fedavg, leaving": ("fedavg", KEEP, EMPTYING, {}),
    "fedprox, leaving": ("fedprox", KEEP, EMPTYING, {"mu": 1.5}),
    "fedprox": ("fedprox", EVERYTHING, None, {"mu": 0.8}),
    "scaffold": ("scaffold", EVERYTHING, None, {"server_learning_rate": 0.6}),
    # Unfinished work is lost, and its client's control variate stays as it was.
    "scaffold, leaving": ("scaffold", DROP, EMPTYING, {}),
    # With the start of the second moment visible: tau is large.
    "fedopt, leaving": ("fedopt", KEEP | {"fedopt.tau": 0.02}, EMPTYING, {}),
    **{
        f"fedopt, {rule}": (
            "fedopt",
            # Yogi with seed 0: a change is so near the root of v that rounding decides.
            EVERYTHING | {"fedopt.optimizer": rule, "seed": int(rule == "yogi")},
            None,
            {"server_learning_rate": 0.05},
        )
        for rule in ("adam", "yogi", "adagrad", "sgd")
    },
    "fednova, leaving": ("fednova", DROP | KEEP, EMPTYING, {"server_momentum": 0.6}),
    "hierfavg, leaving": ("hierfavg", DROP | {"hierfavg.edge_rounds": 3}, THINNING, {}),
    "hierfavg": ("hierfavg", EVERYTHING | {"hierfavg.edge_rounds": 2}, None, {}),
    "sequential_split, leaving": ("sequential_split", TURNS, THINNING, {}),
    "splitfed_v2, leaving": ("splitfed_v2", TURNS, THINNING, {}),
}
SLOW = {"fedprox", "hierfavg", "fedopt, adam", "fedopt, yogi", "fedopt, adagrad", "fedopt, sgd"}
FLAT = ("scaffold, leaving", "hierfavg, leaving", "splitfed_v2, leaving")


def play(case, layout="loop"):
    method, changes, present, own = CASES[case]
    changes = {"method.name": method, "run.layout": layout} | changes
    return replay.play(changes, 3 if present else 2, present, **own)


@pytest.mark.parametrize(
    ("case", "layout"),
    [
        *(pytest.param(case, "loop", marks=[pytest.mark.slow] * (case in SLOW)) for case in CASES),
        *(pytest.param(case, "flat", marks=pytest.mark.slow) for case in FLAT),
    ],
)
def test_methods_equal_their_oracles(case, layout):
    method, _, present, own = CASES[case]
    rounds = play(case, layout)
    setup = rounds[0].setup
    model = model_of(rounds[0].before)
    settings = (vars(getattr(setup.spec, method)) if METHODS[method].settings else {}) | own
    if method == "splitfed_v2":
        settings["cut"] = setup.spec.model.cut
    memory = federated.STARTS.get(method, federated.no_memory)(model, 11, **settings)
    for index, played in enumerate(rounds):
        clients = replay.clients_of(played)
        model, memory, losses = federated.ROUNDS[method](
            model, memory, clients, replay.sgd_of(setup.spec), **settings
        )
        assert played.after.round == index + 1
        assert_close(model_of(played.after), model, CLOSE)
        loss = np.mean(losses) if losses else np.nan
        assert_close(played.metrics.train_loss, loss, CLOSE)
        if memory is not None:
            assert_close(memory_of(method, played.after.memory), memory, CLOSE)
        seen = played.metrics.sampled, played.metrics.counted
        assert seen == (len(clients), sum(client.counts for client in clients))
        assert (played.metrics.round_trace is None) == (method in ("hierfavg", "sequential_split"))
        assert_charged(rounds[: index + 1])
    assert_says_something(rounds, present)


def model_of(state):
    return replay.layers(state.halves if hasattr(state, "halves") else state.params)


def memory_of(method, memory):
    if method == "scaffold":
        return replay.layers(memory.server), replay.stacked(memory.clients)
    return tuple(map(replay.layers, memory)) if method == "fedopt" else replay.layers(memory)


def assert_charged(rounds):
    """The ledger has what the decisions of the rounds cost, and nothing else."""
    ledger = rounds[-1].after.ledger
    for name in ("phase_s", "link_bytes", "energy_j"):
        total = np.sum([np.float64(getattr(played.cost, name)) for played in rounds], 0)
        assert_close(np.float64(getattr(ledger, name)), total, 1e-6, each=True)


def assert_says_something(rounds, present):
    """Or the case would leave something untried: some leave after a part of their steps."""
    setup, sizes = rounds[0].setup, [int(played.metrics.sampled) for played in rounds]
    made = [(c, len(c.batches)) for played in rounds for c in replay.clients_of(played)]
    if present is None:
        assert sizes == [7] * len(rounds)
        assert all(client.counts and steps == client.planned for client, steps in made)
        return
    assert sizes == [min(7, count) for count in present[:3]]
    partly = [client for client, steps in made if 0 < steps < client.planned]
    assert len(partly) > 2
    assert any(client.counts and steps == client.planned for client, steps in made)
    keeps = setup.spec.network.late == "keep"
    assert all(client.counts == keeps for client in partly)
    if setup.spec.method.name == "hierfavg":
        block = [client.planned // 3 for client in partly]
        done = [len(client.batches) // n for client, n in zip(partly, block, strict=True)]
        assert {0} < {*done}  # in the first edge round, and in a later one
        nodes = [{client.edge for client in replay.clients_of(played)} for played in rounds]
        assert min(map(len, nodes)) < len(setup.network.edge_km)  # some have no clients


EQUAL = {  # what FedAvg is: (its case, changes under which another method is it, HParams)
    "fedprox": ("fedavg, leaving", {"method.name": "fedprox"}, {"mu": 0.0}),
    "splitfed_v1": ("fedavg, leaving", {"method.name": "splitfed_v1"}, {}),
    "fedopt": (
        "fedavg, leaving",
        {
            "method.name": "fedopt",
            "fedopt.optimizer": "sgd",
            "fedopt.beta1": 0.0,
            "fedopt.server_learning_rate": 1.0,
        },
        {},
    ),
    "clusters of one": (
        "fedavg, leaving",
        {
            "method.name": "cefl",
            "cefl.clustering.rule": "singleton",
            "cefl.distill.rule": "none",
            "network.num_edges": 7,
        },
        {},
    ),
    "fednova": ("fedavg", {"method.name": "fednova"}, {}),
    "hierfavg": (
        "fedavg",
        {"method.name": "hierfavg", "hierfavg.edge_rounds": 1, "network.num_edges": 1},
        {},
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("fedprox", "splitfed_v1")))
        for name in EQUAL
    ],
)
def test_degenerate_methods_equal_fedavg(name):
    """FedProx without its term, FedNova of equal steps, HierFAVG of one edge node and round, ..."""
    case, changes, hparams = EQUAL[name]
    _, common, present, _ = CASES[case]
    ours = replay.play(common | changes, 3 if present else 2, present, **hparams)
    theirs = play(case)
    for got, wanted in zip(ours, theirs, strict=True):
        assert_close(model_of(got.after), model_of(wanted.after), 0 if name == "fedprox" else CLOSE)
        assert_close(got.metrics.train_loss, wanted.metrics.train_loss, CLOSE)
        for field in ("clients", "steps", "weight"):
            pair = (getattr(played.decision.plan, field) for played in (got, wanted))
            np.testing.assert_array_equal(*pair)


@pytest.mark.slow
def test_splitfed_v1_is_clusters_of_one_without_distillation():
    """To the bit: only the servers are others, which nothing that is learned depends on."""
    _, common, present, _ = CASES["fedavg, leaving"]
    ours, theirs = (
        replay.play(common | EQUAL[name][1], 3, present)[-1].after
        for name in ("splitfed_v1", "clusters of one")
    )
    jax.tree.map(np.testing.assert_array_equal, ours.halves, theirs.halves)
    assert not np.array_equal(ours.ledger.energy_j, theirs.ledger.energy_j)


@pytest.mark.parametrize(
    "method", ["cefl", *(pytest.param(m, marks=pytest.mark.slow) for m in federated.TURNS)]
)
def test_a_round_of_one_client_is_its_own_sgd(method):
    changes = {"method.name": method, "train.clients_per_round": 1, "train.local_steps": 6}
    if method == "cefl":
        changes |= {"cefl.clustering.rule": "single", "cefl.distill.rule": "none"}
    (played,) = replay.play(changes, 1)
    clients, sgd = replay.clients_of(played), replay.sgd_of(played.setup.spec)
    expected, *_ = federated.fedavg(model_of(played.before), None, clients, sgd)
    assert_close(model_of(played.after), expected, 2e-5)


@pytest.mark.parametrize(
    "method", [pytest.param("scaffold", marks=pytest.mark.slow), "splitfed_v1"]
)
def test_one_step_of_all_clients_is_a_gradient_step_on_their_mean(method):
    """With clients of one size: SGD with a batch as large as all of theirs.

    In SCAFFOLD c is the mean of the c_i as long as everybody takes part, so that over all clients
    the corrections c - c_i add up to nothing; and a client's mean step is its gradient, so that
    c_i is the client's, and c the mean, gradient at the model of the round before.
    """
    changes = {"train.local_steps": 1, "train.clients_per_round": 6, "run.client_chunk": 4}
    for played in replay.play({"method.name": method} | changes, 3, sizes=(12,) * 6):
        model, grads = model_of(played.before), {}
        for client in replay.clients_of(played):
            ((x, labels),) = client.batches
            trace = forward(model, x)
            _, d_logits = cross_entropy(trace[-1], labels)
            grads[client.index], _ = backward(model, trace, d_logits / len(labels))
        mean = each(lambda *g: sum(g) / 6, *grads.values())
        rate = played.setup.spec.train.optimizer.learning_rate
        assert_close(model_of(played.after), each(lambda w, g, r=rate: w - r * g, model, mean))
        if method == "scaffold":
            server, clients = memory_of(method, played.after.memory)
            assert_close(server, mean, 2e-4)
            assert_close(clients, [grads[n] for n in range(6)], 2e-4)


@pytest.mark.slow
def test_scaffold_learns_with_momentum():
    """Were gradients corrected and not steps, the loss would be 1e32 after 30 rounds."""
    rates = {"train.optimizer.momentum": 0.9, "train.optimizer.learning_rate": 0.01}
    rounds = replay.play({"method.name": "scaffold", "train.local_steps": 5} | rates, 30)
    assert rounds[-1].metrics.train_loss < 0.1 * rounds[0].metrics.train_loss


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.9999, 1.0])
def test_local_lengths_count_each_gradient_in_each_later_step(momentum):
    expected = [
        sum(momentum ** (step - k) for k in range(t) for step in range(k, t)) for t in range(9)
    ]
    assert_close(local_lengths(8, momentum), expected, 1e-6, each=True)


@pytest.mark.parametrize("optimizer", ["adam", "yogi", "adagrad", "sgd"])
def test_server_update_equals_the_oracle(optimizer):
    """Four steps, with changes both smaller and larger than the second moment's root."""
    own = {"beta1": 0.8, "beta2": 0.7, "tau": 0.05}
    settings = {"optimizer": optimizer, "server_learning_rate": 0.3, **own}
    rng = np.random.default_rng(0)
    x = [(rng.normal(size=(3, 2)), rng.normal(size=2))]
    first, second = federated.start_fedopt(x, 1, **settings)
    moments, spec = Moments(first, second), FedoptSpec(optimizer, 0.3, **own)
    for scale in (1.0, 0.1, 3.0, 0.01):
        delta = [(scale * rng.normal(size=(3, 2)), scale * rng.normal(size=2))]
        moments, update = server_update(spec, moments, delta)
        after, first, second = federated.server_step(x, first, second, delta, **settings)
        assert_close(each(lambda w, u: w + 0.3 * u, x, update), after)
        assert_close([moments.first, moments.second], [first, second])
        x = after
