"""The reference round is itself held to plainer methods and to what its text promises."""

import numpy as np
import pytest
from scipy.special import log_softmax

from tests.compare import assert_close
from tests.oracles import split_round
from tests.oracles.dense_net import (
    Sgd,
    backward,
    cross_entropy,
    drawn_network,
    each,
    forward,
    sgd_step,
    weighted_mean,
    zeros_like,
)
from tests.oracles.round_types import Draws, Settings, State, Teaching

RNG = np.random.default_rng(5)
LABELS = RNG.integers(0, 3, 40)
IMAGES = RNG.integers(0, 256, (40, 2, 3, 1), dtype=np.uint8)
PARTITION = [[0, 1, 2], [3, 4, 5, 6, 7], list(range(8, 20)), [20, 21], list(range(22, 40))]


def fedavg(model, settings, draws):
    """FedAvg on the unsplit model: train every client alone, then average by their data."""
    trained = []
    for batches in draws.batches:
        layers, buffer = model, zeros_like(model)
        for batch in (np.array(b, int) for b in batches):
            trace = forward(layers, split_round.features_of(IMAGES[batch], settings))
            _, d_logits = cross_entropy(trace[-1], LABELS[batch])
            grads, _ = backward(layers, trace, d_logits / len(batch))
            layers, buffer = sgd_step(layers, buffer, grads, settings.back)
        trained.append(layers)
    return weighted_mean(trained, [len(PARTITION[n]) for n in draws.clients])


def draw_batches(clients, num_steps, seed=0):
    rng = np.random.default_rng(seed)
    return [[rng.permutation(PARTITION[n])[:4].tolist() for _ in range(num_steps)] for n in clients]


class TestRound:
    model = drawn_network(6, 5, 4, 3)
    cloud = drawn_network(5, 7, 3, seed=9)
    sgd = Sgd(0.1, momentum=0.9, weight_decay=0.01)

    def run(self, draws, cut=1, sgd=None, **settings):
        sgd = sgd or self.sgd
        settings = Settings(cut, sgd, sgd, mean=0.3, std=0.4, **settings)
        state = State(self.model, self.cloud)
        return split_round.one_round(state, IMAGES, LABELS, PARTITION, draws, settings), settings

    @pytest.mark.parametrize("cut", [1, 2])
    def test_clusters_of_one_without_distillation_are_fedavg(self, cut):
        clients = [2, 0, 4]
        draws = Draws(clients, draw_batches(clients, 3), cluster=[1, 0, 2])
        result, settings = self.run(draws, cut)
        assert_close(result.state.model, fedavg(self.model, settings, draws), 1e-12)

    def test_a_client_without_samples_stands_still(self):
        clients = [2, 0]
        batches = draw_batches(clients, 3)
        batches[1][1] = []
        pausing, _ = self.run(Draws(clients, batches, cluster=[0, 1]))
        del batches[1][1]
        batches[1].append([])
        stopping, _ = self.run(Draws(clients, batches, cluster=[0, 1]))
        assert_close(pausing.fronts[1], stopping.fronts[1], 0)
        assert_close(pausing.front_buffers[1], stopping.front_buffers[1], 0)
        assert_close(pausing.backs[1], stopping.backs[1], 0)
        assert (1, 1) not in pausing.step_losses

    def test_the_first_front_step_does_not_know_the_cluster(self):
        clients = [2, 0, 4]
        batches = draw_batches(clients, 1)
        together, _ = self.run(Draws(clients, batches, cluster=[0, 0, 0]))
        alone, _ = self.run(Draws(clients, batches, cluster=[0, 1, 2]))
        for k in range(3):
            assert_close(together.fronts[k], alone.fronts[k], 1e-12)
        assert list(together.backs) == [0]

    def test_aggregation_weighs_by_data_held(self):
        clients = [2, 0, 4, 1]
        result, _ = self.run(Draws(clients, draw_batches(clients, 2), cluster=[0, 1, 0, -1]))
        (w0, _), (w1, _), (w2, _), _ = (front[0] for front in result.fronts)
        assert_close(result.aggregated[0][0], (12 * w0 + 3 * w1 + 18 * w2) / 33, 1e-12)
        back = (30 * result.backs[0][0][0] + 3 * result.backs[1][0][0]) / 33
        assert_close(result.aggregated[1][0], back, 1e-12)

    def test_the_patent_rule_clusters_when_nothing_is_given(self):
        labels, partition = np.array([0, 0, 1, 1]), [[0], [1], [2], [3]]
        settings = Settings(1, self.sgd, self.sgd, num_clusters=2, min_size=2)
        for clients, expected in (([3, 1, 2, 0], [0, 0, 1, 1]), ([3, 2, 1, 0], [0, 1, 0, 1])):
            draws = Draws(clients, [])
            assert split_round.find_clusters(labels, partition, 2, draws, settings) == expected

    def test_mutual_distillation_runs_in_turn_on_the_uploaded_rows(self):
        clients = [2, 0]
        batches = draw_batches(clients, 2)
        uploads = [(0, 1), (1, 1)]
        keys = [(k, s, slot) for k, s in uploads for slot in range(len(batches[k][s]))]
        rows = list(range(len(keys)))
        by_key = [[[keys[r] for r in rows[::-1][:3]], [keys[r] for r in rows[:2]]]] * 2
        by_row = [[rows[::-1][:3], rows[:2]]] * 2
        edge, cloud = Teaching(0.5, 2.0, self.sgd), Teaching(1.0, 1.0, Sgd(0.05))
        given_keys = Draws(clients, batches, uploads, by_key, by_key, [0, 0])
        given_rows = Draws(clients, batches, uploads, by_row, by_row, [0, 0])
        result, _ = self.run(given_keys, edge_teaching=edge, cloud_teaching=cloud)
        again, _ = self.run(given_rows, edge_teaching=edge, cloud_teaching=cloud)
        assert result.archive.keys == keys
        assert_close(result.state.model, again.state.model, 0)
        assert_close(result.state.cloud, again.state.cloud, 0)
        assert len(result.edge_losses) == len(result.cloud_losses) == 4
        # The front half is not taught, and the archive holds what the fronts sent while training.
        assert_close(result.state.model[:1], result.aggregated[:1], 0)
        _, settings = self.run(Draws(clients, batches, cluster=[0, 0]))
        one_step = Draws(clients, [b[:1] for b in batches], cluster=[0, 0])
        before, _ = self.run(one_step)
        x = split_round.features_of(IMAGES[batches[0][1]], settings)
        sent = forward(before.fronts[0], x, relu_last=True)[-1]
        assert_close(result.archive.features[: len(sent)], sent, 1e-12)
        # The cloud's first lesson is given by the back half as phase 1 left it.
        first = result.archive.features[rows[::-1][:3]]
        p, q = (
            log_softmax(forward(n, first)[-1], axis=1) for n in (result.state.model[1:], self.cloud)
        )
        assert result.cloud_losses[0] == pytest.approx((np.exp(p) * (p - q)).sum(1).mean())

    def test_momentum_of_distillation_passes_through_rounds(self):
        clients, batches = [2], draw_batches([2], 1)
        draws = Draws(clients, batches, [(0, 0)], [[[0, 1]]], [[[2, 3]]], [0])
        teaching = Teaching(0.5, 1.0, Sgd(0.1, momentum=0.9))
        once, settings = self.run(draws, edge_teaching=teaching, cloud_teaching=teaching)
        begun = each(np.ones_like, once.state.edge_buffer)
        state = State(self.model, self.cloud, begun, None)
        later = split_round.one_round(state, IMAGES, LABELS, PARTITION, draws, settings)
        assert_close(
            later.state.edge_buffer, each(lambda m: m + 0.9, once.state.edge_buffer), rtol=1e-12
        )
        assert_close(later.state.model[1:], each(lambda p: p - 0.09, once.state.model[1:]), 1e-12)
