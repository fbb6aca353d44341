"""Who takes part in a round and on which batches, drawn by PyTorch's own generator."""

from typing import NamedTuple

import torch


class Examples(NamedTuple):
    """Training examples on the device."""

    images: torch.Tensor  # f32[n, I, H, W] normalised
    labels: torch.Tensor  # i64[n]


class Client(NamedTuple):
    """A client of a round."""

    batches: list  # of i64[b], examples of each local step; the last of an epoch may be smaller
    uploaded: int  # last local steps whose features are uploaded
    weight: float  # in the averages


def make_examples(images, labels, normalization):
    """Examples of u8[n, H, W, I] images and labels, by NormalizationSpec."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (
        torch.tensor(value).reshape(-1, 1, 1) for value in (normalization.mean, normalization.std)
    )
    return Examples(((pixels - mean) / std).contiguous(), torch.from_numpy(labels).long())


def draw_clusters(spec, parts):
    """Clusters of a round, lists of Client: as many, as large and with as much work as ours.

    Args:
      spec: Spec.
      parts: list of i64 tensors, the examples of each client of the population.
    Returns:
      List of lists of Client. Which client is in which cluster is left to chance.
    """
    clustering = spec.cefl.clustering
    chosen = torch.randperm(len(parts))[: spec.train.clients_per_round].tolist()
    clients = [draw_client(spec, parts[k]) for k in chosen]
    count = len(clients) if clustering.rule == "singleton" else clustering.num_clusters
    return [clients[m::count] for m in range(count)]


def draw_client(spec, examples):
    """A Client with epochs over i64 examples, each shuffled anew."""
    train, distill = spec.train, spec.cefl.distill
    per_epoch = -(-len(examples) // train.batch_size)
    steps = train.local_steps or train.local_epochs * per_epoch
    batches = []
    while len(batches) < steps:
        order = torch.randperm(len(examples), device=examples.device)
        batches += examples[order].split(train.batch_size)
    uploaded = min(steps, distill.upload_steps or per_epoch)
    return Client(batches[:steps], uploaded * (distill.rule != "none"), float(len(examples)))
