"""FedGKT (He et al., NeurIPS 2020, algorithm 1) in float64 NumPy, one client and batch at a time.

A client's model is a list of dense layers [(W, b)], the last of which is its head; the outputs of
the layer before it are the features. The server's model takes these.
"""

from typing import NamedTuple

import numpy as np

from tests.oracles.mlp import (
    Sgd,
    backward,
    cross_entropy,
    divergence,
    forward,
    sgd_step,
    zeros_like,
)


class Settings(NamedTuple):
    """How both sides learn."""

    client: Sgd
    server: Sgd
    weight: float  # of the divergence
    temperature: float


class State(NamedTuple):
    """What one round hands to the next."""

    clients: dict  # {client: layers}
    server: list
    buffer: list  # momentum of the server's optimizer
    teacher: dict  # {example: the server's logits [Y]}; nothing of one that was never uploaded


def step(layers, buffer, x, labels, teachers, sgd, settings):
    """A model and its momentum after one batch, and the losses before it.

    The loss is the mean of CE + weight KL(teacher_T || student_T); a teacher of None has said
    nothing of its sample.
    """
    trace = forward(layers, x)
    losses, gradient = cross_entropy(trace[-1], labels)
    for i, teacher in enumerate(teachers):
        if teacher is not None:
            student = trace[-1][i : i + 1]
            loss, d_logits = divergence(teacher[None], student, settings.temperature)
            losses[i] += settings.weight * loss[0]
            gradient[i] += settings.weight * d_logits[0]
    grads, _ = backward(layers, trace, gradient / len(labels))
    return *sgd_step(layers, buffer, grads, sgd), losses


def one_round(state, x, labels, draws, counts, settings):
    """The State after a round of cefl.Draws, and the clients' mean loss.

    `x` [n, pixels] and `labels` [n] are those of all examples; `counts` [K] says whose model and
    uploads count.
    """
    clients, sent, losses = dict(state.clients), {}, []
    for k, client in enumerate(draws.clients):
        layers, buffer = clients[client], zeros_like(clients[client])
        for batch in draws.batches[k]:
            teachers = [state.teacher.get(example) for example in batch]
            layers, buffer, lost = step(
                layers, buffer, x[batch], labels[batch], teachers, settings.client, settings
            )
            losses += lost.tolist()
        if not counts[k]:
            continue
        clients[client] = layers
        for s in [s for own, s in draws.uploads if own == k]:
            for slot, example in enumerate(draws.batches[k][s]):
                *_, features, logits = forward(layers, x[[example]])
                sent[k, s, slot] = features[0], logits[0], example
    server, buffer = state.server, state.buffer
    for batch in draws.cloud_order:
        features, teachers, examples = zip(*(sent[row] for row in batch), strict=True)
        own = labels[list(examples)]
        server, buffer, _ = step(
            server, buffer, np.stack(features), own, teachers, settings.server, settings
        )
    teacher = dict(state.teacher)
    for features, _, example in sent.values():
        teacher[example] = forward(server, features[None])[-1][0]
    return State(clients, server, buffer, teacher), np.mean(losses)
