"""Multilayer perceptrons, their gradients by hand, losses and SGD, in float64 NumPy.

A network is a list of layers (W [in, out], b [out]) with a ReLU between layers. `relu_last` says
whether one follows the last layer too: at the cut of a split model it does.
"""

from typing import NamedTuple

import numpy as np


class Sgd(NamedTuple):
    """The optimizer's settings; the order in which they act is that of `sgd_step`."""

    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None


def features_of(images, mean, std):
    """[n, pixels] of images in bytes, normalised and flattened row by row."""
    x = (np.asarray(images, np.float64) / 255 - np.asarray(mean)) / np.asarray(std)
    return x.reshape(len(x), -1)


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


def divergence(teacher, student, temperature):
    """KL(teacher_T || student_T) of each sample [n], and its gradient by the student's logits."""
    log_p, log_q = log_softmax(teacher / temperature), log_softmax(student / temperature)
    loss = (np.exp(log_p) * (log_p - log_q)).sum(1)
    return loss, (np.exp(log_q) - np.exp(log_p)) / temperature


def zeros_like(layers):
    """A network of zeros: the optimizer's buffer at its restart."""
    return each(np.zeros_like, layers)


def each(function, *networks):
    """`function` over the arrays of networks that have the same layers."""
    return [
        tuple(function(*arrays) for arrays in zip(*layers, strict=True))
        for layers in zip(*networks, strict=True)
    ]


def weighted_mean(networks, weights):
    """Average of networks; the weights need not sum to one, but one of them must be positive."""
    total = float(sum(weights))
    return each(lambda *a: sum(w / total * x for w, x in zip(weights, a, strict=True)), *networks)


def sgd_step(layers, buffer, grads, sgd):
    """One step: clip by the network's global norm, add weight decay, then momentum, then move."""
    if sgd.clip_norm is not None:
        norm = np.sqrt(sum((g**2).sum() for layer in grads for g in layer))
        shrink = min(1.0, sgd.clip_norm / norm) if norm > 0 else 1.0
        grads = each(lambda g: g * shrink, grads)
    grads = each(lambda g, p: g + sgd.weight_decay * p, grads, layers)
    buffer = each(lambda m, g: sgd.momentum * m + g, buffer, grads)
    return each(lambda p, m: p - sgd.learning_rate * m, layers, buffer), buffer


def train(layers, batches, sgd, buffer=None, gradient=None, correction=None):
    """Local SGD on cross-entropy: a step for each batch (x, labels).

    Args:
      layers: the network to start from.
      batches: list of (x [n, pixels], labels [n]).
      sgd: Sgd.
      buffer: of momentum; None: the optimizer starts anew.
      gradient: from (gradients, network) to what the optimizer takes; None: gradients.
      correction: a network; a step moves by the learning rate times it, besides.
    Returns:
      The network, the buffer, and the losses of all samples, each before its step.
    """
    buffer, losses = zeros_like(layers) if buffer is None else buffer, []
    for x, labels in batches:
        trace = forward(layers, x)
        loss, d_logits = cross_entropy(trace[-1], labels)
        grads, _ = backward(layers, trace, d_logits / len(labels))
        grads = grads if gradient is None else gradient(grads, layers)
        layers, buffer = sgd_step(layers, buffer, grads, sgd)
        if correction is not None:
            layers = each(lambda w, c: w - sgd.learning_rate * c, layers, correction)
        losses += loss.tolist()
    return layers, buffer, losses
