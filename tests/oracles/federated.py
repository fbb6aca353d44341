"""Methods that train whole models or split them in turn, in float64 NumPy, client by client.

Written from the papers, for multilayer perceptrons: networks are lists of (W, b), see mlp.py.
Whatever is random is given from outside. A method is `start(model, population, **settings)`, which
returns its memory, and `round(model, memory, clients, sgd, **settings)`, which returns model,
memory and the losses of all samples.

What the papers leave open: a client's optimizer starts anew in each round; where a method corrects
a step, it corrects what the optimizer makes of the gradient; the average is weighted by examples,
those of unfinished work by their share of it; a client that does not count has no part in the
round, and a round without any changes nothing.
"""

from typing import NamedTuple

import numpy as np

from tests.oracles.mlp import (
    backward,
    cross_entropy,
    each,
    forward,
    sgd_step,
    train,
    weighted_mean,
    zeros_like,
)


class Client(NamedTuple):
    """What a client of a round does, in the order of sampling."""

    index: int  # in the population
    size: int  # examples that it holds
    planned: int  # local steps
    batches: list  # (x [n, pixels], labels [n]) of each step that it makes
    counts: bool
    edge: int = 0  # its nearest edge node

    @property
    def weight(self):
        """In an average."""
        return self.counts * self.size * len(self.batches) / self.planned


def no_memory(model, population, **_):
    """Nothing is kept from round to round."""


def average(models, weights, otherwise):
    """Sum of n_k / n times w_k (McMahan et al., algorithm 1)."""
    return weighted_mean(models, weights) if sum(weights) else otherwise


def train_all(model, clients, sgd, **options):
    """Every client's model after local SGD from `model`, and all losses."""
    trained = [train(model, client.batches, sgd, **options) for client in clients]
    return [own for own, _, _ in trained], [loss for *_, losses in trained for loss in losses]


def fedavg(model, memory, clients, sgd):
    """McMahan et al. 2017, algorithm 1."""
    models, losses = train_all(model, clients, sgd)
    return average(models, [client.weight for client in clients], model), memory, losses


def fedprox(model, memory, clients, sgd, mu):
    """Li et al. 2020: each client on h_k(w; w_t) = F_k(w) + mu/2 |w - w_t|^2 (eq. 2)."""

    def gradient_of_h(grads, w):
        return each(lambda g, w, w_t: g + mu * (w - w_t), grads, w, model)

    models, losses = train_all(model, clients, sgd, gradient=gradient_of_h)
    return average(models, [client.weight for client in clients], model), memory, losses


def start_scaffold(model, population, **_):
    """The server's control variate c, and c_i of the whole population."""
    return zeros_like(model), [zeros_like(model) for _ in range(population)]


def scaffold(x, memory, clients, sgd, server_learning_rate):
    """Karimireddy et al. 2020, algorithm 1 with option II."""
    (c, c_of), models, losses = memory, [], []
    new_c, new_c_of = c, list(c_of)
    for client in clients:
        c_i = c_of[client.index]
        correction = each(np.subtract, c, c_i)  # equation 3
        y, _, own = train(x, client.batches, sgd, correction=correction)
        models, losses = [*models, y], losses + own
        if client.weight > 0:  # equation 4
            rate = len(client.batches) * sgd.learning_rate
            c_plus = each(lambda c_i, c, x, y, r=rate: c_i - c + (x - y) / r, c_i, c, x, y)
            new_c_of[client.index] = c_plus
            # c <- c + |S|/N times the mean change over S
            new_c = each(lambda new, a, b: new + (a - b) / len(c_of), new_c, c_plus, c_i)
    mean = average(models, [client.weight for client in clients], x)
    x = each(lambda x, y: x + server_learning_rate * (y - x), x, mean)  # equation 5
    return x, (new_c, new_c_of), losses


def start_fedopt(model, population, tau, **_):
    """m_{-1} = 0 and v_{-1} = tau^2."""
    return zeros_like(model), each(lambda w: np.full_like(w, tau**2), model)


def fedopt(x, memory, clients, sgd, **server):
    """Reddi et al. 2021, algorithm 2."""
    mean, _, losses = fedavg(x, None, clients, sgd)
    if any(client.weight for client in clients):
        x, *memory = server_step(x, *memory, each(np.subtract, mean, x), **server)
    return x, tuple(memory), losses


def server_step(x, m, v, delta, optimizer, server_learning_rate, beta1, beta2, tau):
    """x, m and v after the clients' mean change Delta_t; nothing corrects a bias."""
    if optimizer == "sgd":  # FedAvgM
        m = each(lambda m, d: beta1 * m + d, m, delta)
        return each(lambda x, m: x + server_learning_rate * m, x, m), m, v
    if optimizer == "adagrad":  # without momentum, as the paper runs it
        m, v = delta, each(lambda v, d: v + d**2, v, delta)
    else:
        m = each(lambda m, d: beta1 * m + (1 - beta1) * d, m, delta)
        second = {
            "yogi": lambda v, d: v - (1 - beta2) * d**2 * np.sign(v - d**2),
            "adam": lambda v, d: beta2 * v + (1 - beta2) * d**2,
        }
        v = each(second[optimizer], v, delta)
    x = each(lambda x, m, v: x + server_learning_rate * m / (np.sqrt(v) + tau), x, m, v)
    return x, m, v


def start_fednova(model, population, **_):
    """The buffer of the server's momentum."""
    return zeros_like(model)


def fednova(x, u, clients, sgd, server_momentum):
    """Wang et al. 2020, theorem 3, with a momentum of the server's own."""
    models, losses = train_all(x, clients, sgd)
    weights = np.array([client.counts * client.size for client in clients])
    if not weights.sum():
        return x, u, losses
    # |a_i|_1: in step j of the t to go, the gradient of a step weighs momentum^j more.
    steps = [len(client.batches) for client in clients]
    norms = [sum(sgd.momentum**j for k in range(t) for j in range(t - k)) for t in steps]
    p = weights / weights.sum()
    directions = [
        each(lambda y, x, a=a: (y - x) / max(a, 1), y, x)
        for y, a in zip(models, norms, strict=True)
    ]
    tau_eff = float(p @ norms)
    change = each(lambda *d: tau_eff * sum(map(np.multiply, p, d)), *directions)
    u = each(lambda u, d: server_momentum * u + d, u, change)
    return each(np.add, x, u), u, losses


def hierfavg(model, memory, clients, sgd, edge_rounds):
    """Liu et al. 2020, algorithm 1; a client that leaves is in no average of the round."""
    edges, losses = {client.edge: model for client in clients}, []
    for r in range(edge_rounds):
        edges, more = edge_round(edges, clients, sgd, r, edge_rounds)
        losses += more
    return average_edges(edges, clients, model), memory, losses


def edge_round(edges, clients, sgd, r, edge_rounds):
    """The models of edge nodes {edge: network} after one edge round, and the losses."""
    models, losses = dict(edges), []
    for edge in edges:
        here = [client for client in clients if client.edge == edge]
        blocks = [client.planned // edge_rounds for client in here]
        now = [
            client._replace(batches=client.batches[r * block : (r + 1) * block])
            for client, block in zip(here, blocks, strict=True)
        ]
        trained, more = train_all(edges[edge], now, sgd)
        models[edge] = average(trained, [c.counts * c.size for c in here], edges[edge])
        losses += more
    return models, losses


def average_edges(edges, clients, otherwise):
    """The cloud's model."""
    sizes = [sum(c.counts * c.size for c in clients if c.edge == edge) for edge in edges]
    return average(list(edges.values()), sizes, otherwise)


def sequential_split(model, memory, clients, sgd):
    """Li and Lyu 2023, algorithm 1: each client starts from where the one before ended.

    One that does not count leaves the model as it was before it.
    """
    losses = []
    for client in clients:
        own, _, more = train(model, client.batches, sgd)
        model, losses = own if client.counts else model, losses + more
    return model, memory, losses


def splitfed_v2(model, memory, clients, sgd, cut):
    """Thapa et al. 2022, algorithm 2.

    There is one back half, and it takes a step on every client's smashed data, one client after
    another; each client steps its own front half by the gradient that the back half gave it; the
    front halves are averaged in the end.
    """
    fronts, back, losses = [model[:cut] for _ in clients], model[cut:], []
    front_buffers, buffer = [zeros_like(front) for front in fronts], zeros_like(back)
    for s in range(max(len(client.batches) for client in clients)):
        for k, client in enumerate(clients):
            if s >= len(client.batches):
                continue
            x, labels = client.batches[s]
            smashed = forward(fronts[k], x, relu_last=True)
            trace = forward(back, smashed[-1])
            loss, d_logits = cross_entropy(trace[-1], labels)
            back_grads, d_smashed = backward(back, trace, d_logits / len(labels))
            front_grads, _ = backward(fronts[k], smashed, d_smashed, relu_last=True)
            back, buffer = sgd_step(back, buffer, back_grads, sgd)
            fronts[k], front_buffers[k] = sgd_step(fronts[k], front_buffers[k], front_grads, sgd)
            losses += loss.tolist()
    front = average(fronts, [client.weight for client in clients], model[:cut])
    return front + back, memory, losses


TURNS = "sequential_split", "splitfed_v2"
"""Methods in which one client steps after another."""

STARTS = {"scaffold": start_scaffold, "fedopt": start_fedopt, "fednova": start_fednova}
ROUNDS = {
    method.__name__: method
    for method in (
        fedavg,
        fedprox,
        scaffold,
        fedopt,
        fednova,
        hierfavg,
        sequential_split,
        splitfed_v2,
    )
}
