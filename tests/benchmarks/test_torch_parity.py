"""The rounds in PyTorch that ours are timed against do the same: equal draws, equal results."""

import functools

import jax
import numpy as np
import pytest

from cefl_jax.models.split import make_model
from cefl_jax.specs import ModelSpec
from cefl_jax.stages import round_plan
from tests.quick import quick_jit
from tests.world import make_setup, make_spec

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # several of them wait for one another at full speed

from benchmarks.torch_baseline import draws, models, parity, stacked  # noqa: E402
from tests.compare import assert_close  # noqa: E402

FEDAVG = {
    "cefl.clustering.rule": "singleton",
    "cefl.distill.rule": "none",
    "cefl.offload.edge_capacity": 2,
}
PASSES = {"train.local_steps": None, "train.local_epochs": 2}  # clients with unequal steps
LENET = {"model.name": "lenet5", "train.clients_per_round": 6}
TOLERANCE = 1e-4
"""Of a parameter array's difference as a share of its movement; float32 leaves 1e-6 to 1e-5."""


@functools.cache
def play(changes, side):
    """A setup, and what our program makes of it."""
    setup = make_setup(dict(changes), side=side)
    return setup, parity.play_ours(setup, jit=quick_jit)


def apart(changes, method, variant, side=8):
    return parity.compare(*play(frozenset(changes.items()), side), method, variant)


@pytest.mark.parametrize(
    ("changes", "method", "variant", "side"),
    [
        (FEDAVG, "fedavg", "loop", 8),
        (FEDAVG, "split", "vmap", 8),
        (FEDAVG | {"model.name": "cnn", "model.cut": 2}, "split", "loop", 8),  # SplitFed
        (PASSES, "split", "loop", 8),  # unequal clusters and clients
        (LENET, "split", "loop", 16),  # convolutions with distillation
        (LENET, "split", "vmap", 16),
    ],
)
def test_a_round_is_the_same(changes, method, variant, side):
    assert apart(changes, method, variant, side) < TOLERANCE


def test_the_comparison_sees_another_learning_rate(monkeypatch):
    make_rounds = parity.make_rounds

    def altered(*arguments):
        rounds = make_rounds(*arguments)
        rounds.learning_rate *= 1.001
        return rounds

    monkeypatch.setattr(parity, "make_rounds", altered)
    assert apart(PASSES, "split", "loop") > TOLERANCE


@pytest.mark.parametrize(
    ("name", "cut", "shape"),
    [("mlp", 1, (8, 6, 3)), ("lenet5", 2, (28, 20, 1)), ("cnn", 1, (9, 8, 3))],
)
def test_parameters_come_back_as_they_went(name, cut, shape):
    ours = make_model(ModelSpec(name, cut), shape, 4)
    params = jax.device_get(quick_jit(ours.init)(jax.random.key(1)))
    model = models.make_model(name, cut, shape, 4)
    models.load_params(model, *params, shape)
    jax.tree.map(np.testing.assert_array_equal, models.read_params(model, *params, shape), params)
    images = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    with torch.inference_mode():
        smashed = model.front(torch.from_numpy(images).permute(0, 3, 1, 2))
        logits = model.back(smashed), model.cloud(smashed)

    @quick_jit
    def expected(halves, cloud):
        features = ours.front(halves.front, images)
        return ours.back(halves.back, features), ours.cloud(cloud, features)

    for got, want in zip(logits, expected(*params), strict=True):
        assert_close(got.numpy(), want, 1e-4)


@pytest.mark.parametrize(
    "changes",
    [{}, {"cefl.distill.upload_steps": 2}, PASSES],
)
def test_a_drawn_client_has_as_much_to_do_as_ours(changes):
    spec = make_spec(changes)
    sizes = np.array([1, 3, 4, 9, 17])
    plan = round_plan.make_plan(
        np.arange(5), np.zeros(5, int), sizes, 1, spec.train, spec.cefl.distill.upload_steps
    )
    samples = round_plan.step_samples(plan, spec.train.batch_size, 10)
    uploaded = round_plan.uploaded_samples(plan, samples)
    for k, size in enumerate(sizes):
        client = draws.draw_client(spec, torch.arange(size))
        drawn = [len(batch) for batch in client.batches]
        assert drawn == [count for count in samples[k].tolist() if count]
        assert sum(drawn[len(drawn) - client.uploaded :]) == uploaded[k]
        assert client.weight == size
        first_pass = torch.cat(client.batches)[:size].tolist()
        assert len(set(first_pass)) == len(first_pass)


def test_clusters_of_different_sizes_are_not_stacked():
    client = draws.Client([torch.arange(2)], 0, 1.0)
    with pytest.raises(ValueError, match=r"clusters of \[1, 2\] clients .* use the variant loop"):
        stacked.pad([[client], [client, client]], 2)
