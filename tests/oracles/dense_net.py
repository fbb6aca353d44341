"""Dense layers, their gradients by hand, losses and SGD in float64 NumPy.

A network is a list of layers (W [in, out], b [out]) with a ReLU between layers. `relu_last` says
whether one follows the last layer too: after a front half, which goes on, it does.
"""

import itertools
from typing import NamedTuple

import numpy as np


class Sgd(NamedTuple):
    """The optimizer's settings; the order in which they act is that of `sgd_step`."""

    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None


def forward(layers, x, relu_last=False):
    """The inputs of every layer followed by the output: [n, width] each."""
    trace = [np.asarray(x, np.float64)]
    for i, (w, b) in enumerate(layers):
        z = trace[-1] @ w + b
        trace.append(np.maximum(z, 0.0) if relu_last or i < len(layers) - 1 else z)
    return trace


def backward(layers, trace, d_out, relu_last=False):
    """Gradients of the layers and of the network's input, from the gradient of its output."""
    grads, d = [], d_out
    for i in reversed(range(len(layers))):
        if relu_last or i < len(layers) - 1:
            d = d * (trace[i + 1] > 0)
        grads.append((trace[i].T @ d, d.sum(0)))
        d = d @ layers[i][0].T
    return grads[::-1], d


def log_softmax(logits):
    """Log-probabilities [n, Y]."""
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def cross_entropy(logits, labels):
    """Loss of each sample [n], nats, and its gradient by that sample's logits [n, Y]."""
    log_p = log_softmax(logits)
    hot = np.eye(logits.shape[1])[labels]
    return -(hot * log_p).sum(1), np.exp(log_p) - hot


def soft_divergence(teacher, student, temperature):
    """T^2 KL(teacher_T || student_T) of each sample [n], and its gradient by the student."""
    log_p = log_softmax(teacher / temperature)
    log_q = log_softmax(student / temperature)
    loss = temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(1)
    return loss, temperature * (np.exp(log_q) - np.exp(log_p))


def taught_loss(teacher, student, labels, weight, temperature):
    """(1 - weight) CE + weight T^2 KL, mean over the samples, and its gradient by the student."""
    hard, d_hard = cross_entropy(student, labels)
    soft, d_soft = soft_divergence(teacher, student, temperature)
    loss = (1 - weight) * hard + weight * soft
    return loss.mean(), ((1 - weight) * d_hard + weight * d_soft) / len(labels)


def zeros_like(layers):
    """A network of zeros: the optimizer's buffer at its restart."""
    return [(np.zeros_like(w), np.zeros_like(b)) for w, b in layers]


def each(function, *networks):
    """`function` over the arrays of networks that have the same layers."""
    return [
        tuple(function(*arrays) for arrays in zip(*layers, strict=True))
        for layers in zip(*networks, strict=True)
    ]


def sgd_step(layers, buffer, grads, sgd):
    """One step: clip by the network's global norm, add weight decay, then momentum, then move."""
    if sgd.clip_norm is not None:
        norm = np.sqrt(sum((g**2).sum() for layer in grads for g in layer))
        shrink = min(1.0, sgd.clip_norm / norm) if norm > 0 else 1.0
        grads = each(lambda g: g * shrink, grads)
    grads = each(lambda g, p: g + sgd.weight_decay * p, grads, layers)
    buffer = each(lambda m, g: sgd.momentum * m + g, buffer, grads)
    return each(lambda p, m: p - sgd.learning_rate * m, layers, buffer), buffer


def weighted_mean(networks, weights):
    """Average of networks; the weights need not sum to one, but one of them must be positive."""
    total = float(sum(weights))
    return each(lambda *a: sum(w / total * x for w, x in zip(weights, a, strict=True)), *networks)


def drawn_network(*widths, seed=0):
    """Layers whose biases keep most units alive, so that no gradient is trivially zero."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(i, o)), rng.uniform(0.1, 0.5, o)) for i, o in itertools.pairwise(widths)
    ]
