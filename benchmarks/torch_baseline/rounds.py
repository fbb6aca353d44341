"""Rounds in a loop over clients: FedAvg, and clustered split training."""

import copy
from typing import NamedTuple

import torch
from torch.nn import functional as F


class Net(NamedTuple):
    """A module and its parameters: as what gradients are taken of, and as what is changed."""

    module: torch.nn.Module
    params: list
    values: list  # the same memory, not followed by autograd


def make_net(module):
    """The Net of a module."""
    params = list(module.parameters())
    return Net(module, params, [p.data for p in params])


class FedAvg:
    """Rounds of federated averaging of the whole model.

    One set of parameters is loaded and trained in place for each client in turn.
    """

    distillation = None

    def __init__(self, model, examples, spec):
        self.net = make_net(torch.nn.Sequential(*model.front, *model.back))
        self.examples = examples
        self.learning_rate = spec.train.optimizer.learning_rate

    def round(self, clusters):
        """One round of all clusters' clients; the mean loss."""
        clients = [client for cluster in clusters for client in cluster]
        whole = sum(client.weight for client in clients)
        start = [value.clone() for value in self.net.values]
        total = [torch.zeros_like(value) for value in start]
        losses = self.examples.images.new_zeros(())
        for client in clients:
            torch._foreach_copy_(self.net.values, start)
            for batch in client.batches:
                losses += self.step(batch) * len(batch)
            torch._foreach_add_(total, self.net.values, alpha=client.weight / whole)
        torch._foreach_copy_(self.net.values, total)
        return losses / count_samples(clusters)

    def step(self, batch):
        """One local step; its mean loss."""
        images, labels = self.examples.images[batch], self.examples.labels[batch]
        loss = F.cross_entropy(self.net.module(images), labels)
        grads = torch.autograd.grad(loss, self.net.params)
        torch._foreach_add_(self.net.values, grads, alpha=-self.learning_rate)
        return loss.detach()


class Split:
    """Rounds of clustered split training, and of distillation where `distillation` is given.

    In each local step the back half runs once, on the features of all the cluster's clients. With
    clusters of one client and without distillation this is SplitFed-V1.
    """

    def __init__(self, model, examples, spec, distillation=None):
        self.front, self.back = make_net(model.front), make_net(model.back)
        self.examples = examples
        self.learning_rate = spec.train.optimizer.learning_rate
        self.distillation = distillation
        widest = spec.train.clients_per_round
        self.fronts = [make_net(copy.deepcopy(model.front)) for _ in range(widest)]

    def round(self, clusters):
        """One round; the mean loss."""
        whole = sum(client.weight for cluster in clusters for client in cluster)
        start = [value.clone() for value in self.back.values]
        front_total, back_total = (
            [torch.zeros_like(value) for value in half.values] for half in (self.front, self.back)
        )
        losses, uploads = self.examples.images.new_zeros(()), []
        for cluster in clusters:
            torch._foreach_copy_(self.back.values, start)
            fronts = self.fronts[: len(cluster)]
            for front in fronts:
                torch._foreach_copy_(front.values, self.front.values)
            loss, uploaded = self.train_cluster(cluster, fronts)
            losses += loss
            uploads += uploaded
            for client, front in zip(cluster, fronts, strict=True):
                torch._foreach_add_(front_total, front.values, alpha=client.weight / whole)
            weight = sum(client.weight for client in cluster)
            torch._foreach_add_(back_total, self.back.values, alpha=weight / whole)
        torch._foreach_copy_(self.front.values, front_total)
        torch._foreach_copy_(self.back.values, back_total)
        if self.distillation and uploads:
            features, labels = (torch.cat(part) for part in zip(*uploads, strict=True))
            self.distillation.distil(features, labels)
        return losses / count_samples(clusters)

    def train_cluster(self, cluster, fronts):
        """All local steps; the summed loss, and each client's uploaded features with labels."""
        losses, uploads = self.examples.images.new_zeros(()), [[] for _ in cluster]
        for step in range(max(len(client.batches) for client in cluster)):
            active = [k for k, client in enumerate(cluster) if step < len(client.batches)]
            batches = [cluster[k].batches[step] for k in active]
            smashed, labels, loss = self.step([fronts[k] for k in active], batches)
            losses += loss
            for k, features, own in zip(active, smashed, labels, strict=True):
                if step >= len(cluster[k].batches) - cluster[k].uploaded:
                    uploads[k].append((features.detach(), own))
        return losses, [pair for client in uploads for pair in client]

    def step(self, fronts, batches):
        """One local step of some clients; their features and labels, and the summed loss."""
        sizes = [len(batch) for batch in batches]
        together = torch.cat(batches)
        images, labels = self.examples.images[together], self.examples.labels[together]
        smashed = [
            front.module(own) for front, own in zip(fronts, images.split(sizes), strict=True)
        ]
        loss = F.cross_entropy(self.back.module(torch.cat(smashed)), labels)
        nets = [self.back, *fronts]
        grads = iter(torch.autograd.grad(loss, [p for net in nets for p in net.params]))
        # A client descends its own mean loss, and this is the gradient of the cluster's.
        scales = [1.0, *(len(labels) / size for size in sizes)]
        for net, scale in zip(nets, scales, strict=True):
            own = [next(grads) for _ in net.params]
            torch._foreach_add_(net.values, own, alpha=-self.learning_rate * scale)
        return smashed, labels.split(sizes), loss.detach() * len(labels)


def count_samples(clusters):
    """Samples trained on in a round."""
    return sum(len(batch) for cluster in clusters for client in cluster for batch in client.batches)
