"""FedAvg, FedProx, SCAFFOLD, FedOpt and FedNova in float64 NumPy, one client and batch at a time.

Written from the papers, for multilayer perceptrons; networks are lists of (W, b), see dense_net.py.
Whatever is random is given from outside. What the papers leave open: a client's optimizer starts
anew in each round and gets the gradient of the client's objective; where a method corrects a step,
it corrects what the optimizer makes of the gradient; the average is weighted by examples, those of
unfinished work by their share of it; a client that weighs nothing has no part in the round, and a
round without any changes nothing.
"""

from typing import NamedTuple

import numpy as np

from tests.oracles.dense_net import (
    backward,
    cross_entropy,
    each,
    forward,
    sgd_step,
    weighted_mean,
    zeros_like,
)


class Client(NamedTuple):
    """What a client of a round does."""

    index: int  # in the population
    weight: float  # examples that it holds, times the share of its steps that it made; 0: lost
    batches: list  # of (x [n, pixels], labels [n]), one for each step that it makes


class Loss:
    """Mean over the samples trained on, each before its step."""

    def __init__(self):
        self.seen = []

    def mean(self):
        """Of all that was seen; of nothing it is not a number."""
        return np.mean(np.concatenate(self.seen)) if self.seen else np.nan


def descend(model, batches, sgd, loss, gradient=lambda grads, w: grads, correction=None):
    """Local training from the global model: a step for each batch, plus its correction."""
    correction = zeros_like(model) if correction is None else correction
    w, buffer = model, zeros_like(model)
    for x, labels in batches:
        trace = forward(w, x)
        losses, d_logits = cross_entropy(trace[-1], labels)
        grads, _ = backward(w, trace, d_logits / len(labels))
        w, buffer = sgd_step(w, buffer, gradient(grads, w), sgd)
        w = each(lambda w, c: w - sgd.learning_rate * c, w, correction)
        loss.seen.append(losses)
    return w


def average(models, clients, otherwise):
    """Sum of n_k / n times w_k over the clients of the round (McMahan et al., algorithm 1)."""
    weights = [client.weight for client in clients]
    return weighted_mean(models, weights) if sum(weights) else otherwise


def fedavg(model, clients, sgd):
    """A round of McMahan et al. 2017, algorithm 1: the new model, and the Loss."""
    loss = Loss()
    models = [descend(model, client.batches, sgd, loss) for client in clients]
    return average(models, clients, model), loss


def fedprox(model, clients, sgd, mu):
    """A round of Li et al. 2020: each client on h_k(w; w_t) = F_k(w) + mu/2 |w - w_t|^2 (eq. 2)."""
    loss = Loss()

    def gradient_of_h(grads, w):
        return each(lambda g, w, w_t: g + mu * (w - w_t), grads, w, model)

    models = [descend(model, client.batches, sgd, loss, gradient_of_h) for client in clients]
    return average(models, clients, model), loss


def scaffold(x, c, c_of, clients, sgd, server_rate):
    """A round of Karimireddy et al. 2020, algorithm 1 with option II.

    Args:
      x: the server's model, and c: its control variate.
      c_of: list of the whole population's control variates, c_i.
      clients: list of Client. sgd: Sgd. server_rate: eta_g.
    Returns:
      x, c and c_of after the round, and the Loss.
    """
    loss, models, changes, new_c_of = Loss(), [], [], list(c_of)
    for client in clients:
        c_i = c_of[client.index]
        correction = each(np.subtract, c, c_i)  # equation 3
        y_i = descend(x, client.batches, sgd, loss, correction=correction)
        models.append(y_i)
        if client.weight > 0:  # equation 4
            pace = 1 / (len(client.batches) * sgd.learning_rate)
            c_plus = each(lambda c_i, c, x, y: c_i - c + pace * (x - y), c_i, c, x, y_i)  # noqa: B023
            changes.append(each(np.subtract, c_plus, c_i))
            new_c_of[client.index] = c_plus
    mean = average(models, clients, x)
    new_x = each(lambda x, y: x + server_rate * (y - x), x, mean)  # equation 5
    for change in changes:  # c <- c + |S|/N times the mean change over S
        c = each(lambda c, d: c + d / len(c_of), c, change)
    return new_x, c, new_c_of, loss


class Server(NamedTuple):
    """The server of Reddi et al. 2021, algorithm 2, or one of SGD with momentum."""

    optimizer: str  # adagrad | adam | yogi | sgd
    rate: float  # eta
    beta1: float
    beta2: float
    tau: float

    def start(self, model):
        """m_{-1} = 0 and v_{-1} = tau^2."""
        return zeros_like(model), each(lambda w: np.full_like(w, self.tau**2), model)

    def step(self, x, m, v, delta):
        """x, m and v after the clients' mean change Delta_t; nothing corrects a bias."""
        b1, b2 = self.beta1, self.beta2
        if self.optimizer == "sgd":  # FedAvgM
            m = each(lambda m, d: b1 * m + d, m, delta)
            return each(lambda x, m: x + self.rate * m, x, m), m, v
        if self.optimizer == "adagrad":  # without momentum, as the paper runs it
            m = delta
            v = each(lambda v, d: v + d**2, v, delta)
        else:
            m = each(lambda m, d: b1 * m + (1 - b1) * d, m, delta)
            second = {
                "yogi": lambda v, d: v - (1 - b2) * d**2 * np.sign(v - d**2),
                "adam": lambda v, d: b2 * v + (1 - b2) * d**2,
            }[self.optimizer]
            v = each(second, v, delta)
        x = each(lambda x, m, v: x + self.rate * m / (np.sqrt(v) + self.tau), x, m, v)
        return x, m, v


def fedopt(x, moments, clients, sgd, server):
    """A round of Reddi et al. 2021, algorithm 2: x and moments after it, and the Loss."""
    mean, loss = fedavg(x, clients, sgd)
    if not any(client.weight > 0 for client in clients):
        return x, moments, loss
    x, *moments = server.step(x, *moments, each(np.subtract, mean, x))
    return x, tuple(moments), loss


def fednova(x, u, clients, sgd, momentum):
    """A round of Wang et al. 2020, theorem 3, with a momentum of the server's own.

    Args:
      x: the server's model, and u: the buffer of its momentum.
      clients: list of Client. sgd: Sgd. momentum: of the server.
    Returns:
      x and u after the round, and the Loss.
    """
    loss, directions, lengths = Loss(), [], []
    for client in clients:
        y = descend(x, client.batches, sgd, loss)
        tau = len(client.batches)
        a = [sum(sgd.momentum**j for j in range(tau - k)) for k in range(tau)]  # of each gradient
        lengths.append(sum(a))
        directions.append(each(lambda y, x: (y - x) / max(sum(a), 1), y, x))  # noqa: B023
    weights = np.array([client.weight for client in clients])
    if not weights.sum():
        return x, u, loss
    p = weights / weights.sum()
    tau_eff = float(p @ lengths)
    change = each(
        lambda *d: tau_eff * sum(p_i * d_i for p_i, d_i in zip(p, d, strict=True)), *directions
    )
    u = each(lambda u, d: momentum * u + d, u, change)
    return each(np.add, x, u), u, loss
