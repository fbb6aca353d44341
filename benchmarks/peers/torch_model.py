"""LeNet-5 in PyTorch and its training on one client, where a peer leaves both to its user."""

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.peers import setting


def make_model():
    """LeNet-5 of 44,426 parameters; ReLU after the pooling gives the same with less work."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(),
        nn.Linear(84, setting.CLASSES),
    )  # fmt: skip


def count_parameters(model):
    """Numbers in a module's parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def load_clients():
    """Each client's examples as tensors, f32[N, n, 1, 28, 28] and i64[N, n]."""
    images, labels = setting.load_clients()
    return torch.from_numpy(images).movedim(-1, -3).contiguous(), torch.from_numpy(labels).long()


def train(model, images, labels):
    """One pass over a client's examples in a new order, in place; the loss of the last step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=setting.LEARNING_RATE)
    for rows in torch.randperm(len(labels)).split(setting.BATCH_SIZE):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[rows]), labels[rows])
        loss.backward()
        optimizer.step()
    return loss.item()
