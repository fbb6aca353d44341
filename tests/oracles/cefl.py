"""One whole round of `cefl` for a multilayer perceptron, in plain float64 NumPy.

This is DESIGN.md section 2 written down one client, one step and one minibatch at a time. Whatever
is random is given from outside, so that two implementations can be held to one round. Networks are
lists of (W, b), see mlp.py. The model is front + back, cut after `cut` layers; the front half ends
in a ReLU, and its output is the smashed data that back half and cloud model take.
"""

from typing import NamedTuple

import numpy as np

from tests.oracles.mlp import (
    Sgd,
    backward,
    cross_entropy,
    divergence,
    each,
    forward,
    sgd_step,
    weighted_mean,
    zeros_like,
)


class Teaching(NamedTuple):
    """One direction of the mutual distillation."""

    weight: float  # lambda, after its warm-up
    temperature: float
    sgd: Sgd


class Settings(NamedTuple):
    """What a round depends on beside its state and its draws."""

    cut: int
    sgd: Sgd  # of both halves
    cloud_teaches: Teaching | None  # phase 1: the back half learns; None: nothing is distilled
    edge_teaches: Teaching | None  # phase 2: the cloud model learns


class Draws(NamedTuple):
    """The round's random choices, and what follows from them; K clients in any order."""

    clients: list  # [K] of the population
    sizes: list  # [K] examples of each, by the share of its steps made; 0: it does not count
    cluster: list  # [K]
    batches: list  # [K][S] lists of example indices, as long as they happen to be
    uploads: list = ()  # (position, step) whose smashed data go to the cloud
    edge_order: list = ()  # minibatches of (position, step, slot) of all passes
    cloud_order: list = ()


class State(NamedTuple):
    """What one round hands to the next; a buffer of None is a buffer of zeros."""

    model: list
    cloud: list
    edge_buffer: list | None = None  # momentum of phase 1, on the back half
    cloud_buffer: list | None = None  # momentum of phase 2


def one_round(state, x, labels, draws, settings):
    """The State after a round, and the mean loss over all samples, each before its step.

    `x` [n, pixels] and `labels` [n] are those of all examples.
    """
    front, back = state.model[: settings.cut], state.model[settings.cut :]
    fronts, backs, smashed, losses = {}, {}, {}, []
    for m in sorted({*draws.cluster}):
        members = [k for k, own in enumerate(draws.cluster) if own == m]
        own, backs[m], sent, lost = train_cluster(front, back, members, x, labels, draws, settings)
        fronts, smashed, losses = fronts | own, smashed | sent, losses + lost
    if sum(draws.sizes):  # fronts weigh by their client's data, backs by their cluster's
        rows = list(zip(draws.cluster, draws.sizes, strict=True))
        front = weighted_mean([fronts[k] for k in range(len(rows))], draws.sizes)
        weights = [sum(size for own, size in rows if own == m) for m in backs]
        back = weighted_mean(list(backs.values()), weights)
    cloud = state.cloud
    archive = {
        (k, s, slot): (smashed[k, s][slot], labels[example])
        for k, s in draws.uploads
        for slot, example in enumerate(draws.batches[k][s])
    }
    buffers = state.edge_buffer or zeros_like(back), state.cloud_buffer or zeros_like(cloud)
    edge_buffer, cloud_buffer = buffers
    if settings.cloud_teaches:
        back, edge_buffer = teach(
            back, edge_buffer, cloud, archive, draws.edge_order, settings.cloud_teaches
        )
        cloud, cloud_buffer = teach(
            cloud, cloud_buffer, back, archive, draws.cloud_order, settings.edge_teaches
        )
    return State(front + back, cloud, edge_buffer, cloud_buffer), np.mean(
        losses
    ) if losses else np.nan


def train_cluster(front, back, members, x, labels, draws, settings):
    """All local steps of one cluster (step 5 of the method).

    Returns:
      Fronts {position: network}, the back half, smashed data {(position, step): [n, F]}, and the
      losses of all samples.
    """
    fronts = dict.fromkeys(members, front)
    front_buffers = {k: zeros_like(front) for k in members}
    back_buffer, smashed, losses = zeros_like(back), {}, []
    for s in range(max(len(draws.batches[k]) for k in members)):
        rows = {k: draws.batches[k][s] for k in members if s < len(draws.batches[k])}
        num_samples = sum(map(len, rows.values()))
        back_grads = zeros_like(back)
        for k, examples in rows.items():
            front_trace = forward(fronts[k], x[examples], relu_last=True)
            smashed[k, s] = front_trace[-1]
            back_trace = forward(back, smashed[k, s])
            loss, d_logits = cross_entropy(back_trace[-1], labels[examples])
            losses += loss.tolist()
            # The node learns from its mean loss over the cluster ...
            grads, _ = backward(back, back_trace, d_logits / num_samples)
            back_grads = each(np.add, back_grads, grads)
            # ... and the client gets the gradient of its own mean loss, at the back half as it was.
            _, d_cut = backward(back, back_trace, d_logits / len(examples))
            grads, _ = backward(fronts[k], front_trace, d_cut, relu_last=True)
            fronts[k], front_buffers[k] = sgd_step(fronts[k], front_buffers[k], grads, settings.sgd)
        if num_samples:
            back, back_buffer = sgd_step(back, back_buffer, back_grads, settings.sgd)
    return fronts, back, smashed, losses


def teach(student, buffer, teacher, archive, order, teaching):
    """One phase of step 7: `student` learns from labels and from `teacher`, which is fixed.

    The loss of a minibatch is the mean of (1 - weight) CE + weight T^2 KL(teacher_T || student_T).
    """
    weight, temperature, sgd = teaching
    for minibatch in order:
        x, y = (
            np.array(column) for column in zip(*(archive[row] for row in minibatch), strict=True)
        )
        trace = forward(student, x)
        _, hard = cross_entropy(trace[-1], y)
        _, soft = divergence(forward(teacher, x)[-1], trace[-1], temperature)
        d_logits = (1 - weight) * hard + weight * temperature**2 * soft
        grads, _ = backward(student, trace, d_logits / len(y))
        student, buffer = sgd_step(student, buffer, grads, sgd)
    return student, buffer
