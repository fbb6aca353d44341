"""Mutual distillation of the back half and the cloud model on uploaded features."""

import torch
from torch.nn import functional as F


class Distillation:
    """The edge model learns from the cloud's predictions, then the cloud from the edge's new ones.

    Momentum starts anew each round, or stays, as the settings say. `orders`, lists of the rows
    i64[b] of every batch for the edge and for the cloud, can be set to have these instead of random
    ones.

    Args:
      model: models.Model.
      spec: Spec.
      compiled: whether predictions and losses of full batches are compiled; the last batch is of
        another size in every round.
    """

    def __init__(self, model, spec, compiled=False):
        self.spec, self.orders = spec.cefl.distill, None
        self.edge, self.cloud = model.back, model.cloud
        self.compile = torch.compile if compiled else lambda function, **_: function
        self.students = {
            net: (self._make_runners(net), self._make_optimizer(net))
            for net in (self.edge, self.cloud)
        }

    def distil(self, features, labels):
        """Both directions, on features f32[R, ...] and labels i64[R] of the uploaded samples."""
        if features.ndim == 4:
            features = features.contiguous(memory_format=torch.channels_last)
        spec = self.spec
        warm, cool = spec.temperature, spec.temperature_cloud or spec.temperature
        orders = self.orders or [self.draw_order(labels) for _ in range(2)]
        for student, teacher, weight, temperature, order in (
            (self.edge, self.cloud, spec.lambda_edge, warm, orders[0]),
            (self.cloud, self.edge, spec.lambda_cloud, cool, orders[1]),
        ):
            lesson = F.log_softmax(self.predict(teacher, features) / temperature, 1)
            (_, mean_loss), optimizer = self.students[student]
            if spec.optimizer_state == "reset":
                optimizer.state.clear()
            for rows in order:
                run = mean_loss[len(rows) == spec.batch_size]
                run(features[rows], labels[rows], lesson[rows], weight, temperature).backward()
                optimizer.step()
                optimizer.zero_grad()

    @torch.no_grad()
    def predict(self, teacher, features):
        """Logits f32[R, Y]."""
        (run, _), _ = self.students[teacher]
        parts = features.split(self.spec.batch_size)
        return torch.cat([run[len(part) == self.spec.batch_size](part) for part in parts])

    def draw_order(self, labels):
        """The rows of every batch of all passes over i64[R] labels."""
        size, passes = self.spec.batch_size, range(self.spec.epochs)
        orders = [torch.randperm(len(labels), device=labels.device) for _ in passes]
        return [rows for order in orders for rows in order.split(size)]

    def _make_runners(self, net):
        """Prediction and loss by whether a batch is full."""

        def mean_loss(features, labels, lesson, weight, temperature):
            logits = net(features)
            taught = F.log_softmax(logits / temperature, 1)
            soft = F.kl_div(taught, lesson, log_target=True, reduction="batchmean")
            hard = F.cross_entropy(logits, labels)
            return (1 - weight) * hard + weight * temperature**2 * soft

        return [
            {False: function, True: self.compile(function, dynamic=False)}
            for function in (net, mean_loss)
        ]

    def _make_optimizer(self, net):
        settings = {"lr": self.spec.learning_rate, "momentum": self.spec.momentum}
        return torch.optim.SGD(net.parameters(), fused=True, **settings)
