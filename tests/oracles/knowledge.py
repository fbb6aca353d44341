"""Group knowledge transfer in float64 NumPy, one client, one batch and one sample's say at a time.

A client's model is a list of dense layers [(W, b)], the last of which is its head; what comes out
of the layer before it are the features. The server's model takes these.
"""

from typing import NamedTuple

import numpy as np

from tests.oracles.dense_net import (
    Sgd,
    backward,
    cross_entropy,
    forward,
    log_softmax,
    sgd_step,
    zeros_like,
)


class Rules(NamedTuple):
    """How both sides learn."""

    client: Sgd
    server: Sgd
    weight: float  # of the divergence
    temperature: float


class World(NamedTuple):
    """Who knows what between two rounds."""

    clients: dict  # {client: layers}
    server: list
    buffer: list  # momentum of the server's optimizer
    told: dict  # {example: logits of the server [Y]}


def loss_gradient(logits, labels, teachers, rules):
    """By the logits of a batch, of the mean of CE + weight KL(teacher_T || student_T).

    A teacher of None has said nothing of its sample. Also the loss of each sample.
    """
    losses, gradient = cross_entropy(logits, labels)
    for i, teacher in enumerate(teachers):
        if teacher is not None:
            log_p = log_softmax(teacher[None] / rules.temperature)[0]
            log_q = log_softmax(logits[i : i + 1] / rules.temperature)[0]
            losses[i] += rules.weight * (np.exp(log_p) * (log_p - log_q)).sum()
            gradient[i] += rules.weight * (np.exp(log_q) - np.exp(log_p)) / rules.temperature
    return losses, gradient / len(labels)


def step(layers, buffer, x, labels, teachers, sgd, rules):
    """A model and its momentum after one batch, and the losses before it."""
    trace = forward(layers, x)
    losses, gradient = loss_gradient(trace[-1], labels, teachers, rules)
    grads, _ = backward(layers, trace, gradient)
    return *sgd_step(layers, buffer, grads, sgd), losses


def one_round(world, draws, x, labels, rules):
    """The World after a round of round_types.Draws, and the clients' mean loss.

    `x` [n, pixels] and `labels` [n] are those of all examples.
    """
    clients, sent, losses = dict(world.clients), {}, []
    for place, client in enumerate(draws.clients):
        layers = clients[client]
        buffer = zeros_like(layers)
        for batch in draws.batches[place]:
            teachers = [world.told.get(example) for example in batch]
            layers, buffer, made = step(
                layers, buffer, x[batch], labels[batch], teachers, rules.client, rules
            )
            losses += made.tolist()
        clients[client] = layers
        for s in [s for own, s in draws.uploads if own == place]:
            for slot, example in enumerate(draws.batches[place][s]):
                *_, features, logits = forward(layers, x[[example]])
                sent[place, s, slot] = features[0], logits[0], example
    server, buffer = world.server, world.buffer
    for batch in (batch for epoch in draws.cloud_order for batch in epoch):
        features, teachers, examples = zip(*(sent[key] for key in batch), strict=True)
        own = labels[list(examples)]
        server, buffer, _ = step(
            server, buffer, np.stack(features), own, teachers, rules.server, rules
        )
    told = dict(world.told)
    for features, _, example in sent.values():
        told[example] = forward(server, features[None])[-1][0]
    return World(clients, server, buffer, told), np.mean(losses)
