"""The workload of a model against what its layers' shapes say.

A product of an input of n with weights of n x m takes 2nm FLOP; a convolution takes 2 FLOP for each
output, kernel tap and channel that meet a pixel, none for padding. The gradient by the weights
takes as many again, and so does the gradient by the layer's input, which a first layer has no use
for. Beside the products are a few FLOP for every value: forward exactly three comparisons for each
window of a pool, and of every value that it leaves one for the bias and one for the ReLU. How many
the compiler counts backward is its own affair (masks, sums of biases, the pool's scatter); at most
`ELEMENTWISE` for each value.
"""

import itertools

import jax
import pytest

from cefl_jax.models import cost
from cefl_jax.models.cost import measure_workload
from cefl_jax.specs import ModelSpec

ELEMENTWISE = 8

# Layer: products, values before a pool, of them after it, parameters. 28x28x1, ten classes.
MLP = [
    (2 * 784 * 200, 200, 200, 784 * 200 + 200),
    (2 * 200 * 200, 200, 200, 200 * 200 + 200),
    (2 * 200 * 10, 10, 10, 200 * 10 + 10),
]
LENET5 = [
    (2 * 25 * 1 * 24 * 24 * 6, 24 * 24 * 6, 12 * 12 * 6, 25 * 6 + 6),
    (2 * 25 * 6 * 8 * 8 * 16, 8 * 8 * 16, 4 * 4 * 16, 25 * 6 * 16 + 16),
    (2 * 256 * 120, 120, 120, 256 * 120 + 120),
    (2 * 120 * 84, 84, 84, 120 * 84 + 84),
    (2 * 84 * 10, 10, 10, 84 * 10 + 10),
]
# Same 5x5 over 28 rows: 24 rows meet 5 kernel rows, two meet 4 and two 3; so 134 pairs each way.
CNN_FRONT = [(2 * 134**2 * 32, 28 * 28 * 32, 14 * 14 * 32, 25 * 32 + 32)]
CLOUD_OF_MLP = [
    (2 * n * m, m, m, n * m + m) for n, m in ((200, 512), (512, 512), (512, 256), (256, 10))
]
LAYERS = {"mlp": MLP, "lenet5": LENET5}
CUTS = [(name, cut) for name, layers in LAYERS.items() for cut in range(1, len(layers))]


def forward_flop(layers, ends):
    """Products, pools, and biases and ReLUs on what these left (no ReLU ends a model)."""
    pools = sum(before - after for _, before, after, _ in layers)
    biases = sum(after for _, _, after, _ in layers)
    relus = biases - (layers[-1][2] if ends else 0)
    return products(layers) + pools + biases + relus


def products(layers):
    return sum(layer[0] for layer in layers)


def assert_products(flop, least, layers):
    """Nothing is missing, and beside the products is little."""
    assert least <= flop <= least + ELEMENTWISE * sum(layer[1] for layer in layers)


@pytest.mark.parametrize(("name", "cut"), CUTS)
def test_measure_workload_is_that_of_the_layers(name, cut):
    work = measure_workload(ModelSpec(name, cut), (28, 28, 1), 10)
    front, back = LAYERS[name][:cut], LAYERS[name][cut:]
    assert work.front_forward_flop == forward_flop(front, ends=False)
    assert work.back_forward_flop == forward_flop(back, ends=True)
    # From the gradient at the cut: by all weights, and by every layer's input but the image.
    assert_products(work.front_backward_flop, products(front) + products(front[1:]), front)
    assert_products(work.back_train_flop, 3 * products(back), back)
    assert_products(work.back_distill_flop, 3 * products(back) - back[0][0], back)

    assert work.feature_bytes == 4 * front[-1][2]
    assert work.front_bytes == 4 * sum(layer[3] for layer in front)
    assert work.back_bytes == 4 * sum(layer[3] for layer in back)
    assert work.front_params + work.back_params == {"mlp": 199_210, "lenet5": 44_426}[name]


def test_measure_workload_of_a_cloud_model_of_flat_features():
    work = measure_workload(ModelSpec("mlp", 1), (28, 28, 1), 10)
    assert work.cloud_forward_flop == forward_flop(CLOUD_OF_MLP, ends=True)
    most = 3 * products(CLOUD_OF_MLP)
    assert_products(work.cloud_train_flop, most - CLOUD_OF_MLP[0][0], CLOUD_OF_MLP)
    assert work.cloud_params == sum(layer[3] for layer in CLOUD_OF_MLP)


def test_measure_workload_of_a_head_counts_with_the_front_half():
    work = measure_workload(ModelSpec("mlp", 1), (28, 28, 1), 10, head=True)
    layers = [LAYERS["mlp"][0], (2 * 200 * 10, 10, 10, 200 * 10 + 10)]
    assert work.front_bytes == 4 * sum(layer[3] for layer in layers)
    least = 2 * 784 * 200 + 2 * 200 * 10
    assert least <= work.front_forward_flop <= least + ELEMENTWISE * (200 + 10)
    split = measure_workload(ModelSpec("mlp", 1), (28, 28, 1), 10)
    for field in ("cloud_forward_flop", "cloud_train_flop", "cloud_bytes", "feature_bytes"):
        assert getattr(work, field) == getattr(split, field)
    assert (work.back_train_flop, work.back_forward_flop, work.back_bytes) == (0, 0, 0)


def test_measure_workload_of_a_head_before_the_last_layer_is_the_whole_model():
    head, whole = (
        measure_workload(ModelSpec("mlp", 2), (28, 28, 1), 10, **how)
        for how in ({"head": True}, {"whole": True})
    )
    for field in ("front_forward_flop", "front_backward_flop", "front_bytes"):
        assert getattr(head, field) == getattr(whole, field)


def test_measure_workload_counts_no_padding():
    """So convolutions were counted as convolutions; as matrix products they would cost more."""
    work = measure_workload(ModelSpec("cnn", 1), (28, 28, 1), 10)
    assert work.front_forward_flop == forward_flop(CNN_FRONT, ends=False)


def test_measure_workload_loses_nothing_of_what_the_cut_moves():
    works = [measure_workload(ModelSpec("cnn", cut), (16, 16, 3), 10) for cut in (1, 2, 3)]
    assert len({w.front_bytes + w.back_bytes for w in works}) == 1
    assert len({w.front_forward_flop + w.back_forward_flop for w in works}) == 1
    assert all(a.front_forward_flop < b.front_forward_flop for a, b in itertools.pairwise(works))


@pytest.fixture(autouse=True)
def _nothing_known():
    cost._measure.cache_clear()


def test_measure_workload_asks_the_cpu_whatever_the_default_device(monkeypatch):
    """Plugins of accelerators have no analysis of a program that is not compiled."""
    asked, analyse = [], jax.stages.Lowered.cost_analysis

    def record(lowered):
        asked.append(jax.config.jax_default_device)
        return analyse(lowered)

    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", record)
    measure_workload(ModelSpec("mlp"), (4, 4, 1), 3)
    assert {device.platform for device in asked} == {"cpu"}


def test_measure_workload_needs_a_cpu(monkeypatch):
    def without_cpu(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", without_cpu)
    with pytest.raises(ValueError, match=r"^JAX_PLATFORMS=.*; set it to .*,cpu$"):
        measure_workload(ModelSpec("mlp"), (4, 4, 1), 3)
