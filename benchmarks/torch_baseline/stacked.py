"""Rounds with all clients at once: their parameters stacked, `torch.func.vmap` over them.

Batches are padded to full size and their samples masked, so that shapes never change.
"""

import torch
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from benchmarks.torch_baseline.rounds import count_samples, make_net


class Stacked:
    """Rounds of clustered split training, as `rounds.Split`; with clusters of one client FedAvg.

    Args:
      model: models.Model.
      examples: draws.Examples.
      spec: Spec; its clusters must be of one size.
      distillation: Distillation, or None.
      compiled: whether a local step is compiled.
    """

    def __init__(self, model, examples, spec, distillation=None, compiled=False):
        self.examples, self.batch_size = examples, spec.train.batch_size
        self.distillation = distillation
        self.halves = make_net(model.back).values, make_net(model.front).values
        step = vmap(make_step(model, spec.train.optimizer.learning_rate))
        self.step = torch.compile(step, fullgraph=True, dynamic=False) if compiled else step

    def round(self, clusters):
        """One round; the mean loss."""
        rows, valid, uploaded = pad(clusters, self.batch_size)
        weight = [[client.weight for client in cluster] for cluster in clusters]
        weight = torch.tensor(weight, device=rows.device)
        weight /= weight.sum()
        shares = weight.sum(1), weight
        halves = [
            [p.expand(*share.shape, *p.shape).clone() for p in half]
            for half, share in zip(self.halves, shares, strict=True)
        ]
        losses, smashed = 0.0, []
        for step in range(rows.shape[2]):
            now = rows[:, :, step]
            batch = self.examples.images[now], self.examples.labels[now], valid[:, :, step]
            halves, loss, features = self.step(halves, *batch)
            losses += loss.sum()
            smashed.append(features)
        for half, new, share in zip(self.halves, halves, shares, strict=True):
            torch._foreach_copy_(half, [torch.tensordot(share, p, share.ndim) for p in new])
        if self.distillation and uploaded.any():
            features = torch.stack(smashed, 2)[uploaded]
            self.distillation.distil(features, self.examples.labels[rows[uploaded]])
        return losses / count_samples(clusters)


def make_step(model, learning_rate):
    """One local step of a cluster: a function of back half, stacked front halves, and a batch."""
    names = [[name for name, _ in half.named_parameters()] for half in (model.back, model.front)]

    def back_half(params, smashed):
        return functional_call(model.back, dict(zip(names[0], params, strict=True)), smashed)

    def front_half(params, images):
        return functional_call(model.front, dict(zip(names[1], params, strict=True)), images)

    def mean_loss(halves, images, labels, valid):
        back, fronts = halves
        smashed = vmap(front_half)(fronts, images)
        logits = back_half(back, smashed.flatten(0, 1))
        losses = F.cross_entropy(logits, labels.flatten(), reduction="none")
        return (losses * valid.flatten()).sum() / valid.sum().clamp(min=1), smashed

    gradient = grad_and_value(mean_loss, has_aux=True)

    def step(halves, images, labels, valid):
        grads, (loss, smashed) = gradient(halves, images, labels, valid)
        count = valid.sum()
        # A client descends its own mean loss, and this is the gradient of the cluster's.
        rates = learning_rate, learning_rate * count / valid.sum(1).clamp(min=1)
        halves = [
            [_descend(p, g, rate) for p, g in zip(half, grad, strict=True)]
            for half, grad, rate in zip(halves, grads, rates, strict=True)
        ]
        return halves, loss * count, smashed

    return step


def _descend(params, grad, rate):
    """A step by one rate, or by one for each of the first axis."""
    if torch.is_tensor(rate):
        rate = rate.reshape(-1, *[1] * (params.ndim - 1))
    return params - rate * grad


def pad(clusters, batch_size):
    """The batches of a round as arrays.

    Args:
      clusters: lists of Client.
      batch_size: B.
    Returns:
      i64[M, C, S, B] examples; bool, which of them there are, and which are uploaded.
    Raises:
      ValueError: for clusters of different sizes.
    """
    sizes = {len(cluster) for cluster in clusters}
    if len(sizes) > 1:
        raise ValueError(
            f"clusters of {sorted(sizes)} clients cannot be stacked; "
            "use the variant loop, or clusters of one size"
        )
    clients = [client for cluster in clusters for client in cluster]
    steps = max(len(client.batches) for client in clients)
    rows = clients[0].batches[0].new_full((len(clients), steps, batch_size), -1)
    uploaded = torch.zeros_like(rows, dtype=torch.bool)
    for k, client in enumerate(clients):
        batches = pad_sequence(client.batches, batch_first=True, padding_value=-1)
        rows[k, : len(batches), : batches.shape[1]] = batches
        uploaded[k, len(batches) - client.uploaded : len(batches)] = True
    rows = rows.reshape(len(clusters), -1, steps, batch_size)
    valid = rows >= 0
    return rows.clamp(min=0), valid, uploaded.reshape(rows.shape) & valid
