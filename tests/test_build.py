"""Data of one's own is checked like a file; what is automatic leaves no usual slot empty."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from cefl_jax import build
from cefl_jax.build import choose_client_chunk, choose_distill_parts
from cefl_jax.config import SettingError
from cefl_jax.data import partition, sources
from cefl_jax.data.dataset import make_dataset
from cefl_jax.methods import METHODS, default_spec
from cefl_jax.methods.base import effective_spec
from cefl_jax.runtime.console import print_choices
from cefl_jax.specs import (
    DataSpec,
    PartitionSpec,
    RunSpec,
)
from tests import world
from tests.quick import quick_jit


@pytest.mark.parametrize(
    ("platform", "method", "rule", "num_clusters", "clients", "chunk"),
    [
        ("cpu", "cefl", "balanced", 4, 20, 5),  # clusters of 5: at once
        ("cpu", "cefl", "balanced", 10, 100, 5),  # of 10: in two parts
        ("cpu", "cefl", "balanced", 3, 20, 4),  # of 7: 4 and 3
        ("cpu", "cefl", "patent", 64, 64, 1),
        ("cpu", "cefl", "singleton", 4, 10, 1),  # num_clusters is not read
        ("cpu", "cefl", "single", 4, 12, 4),
        ("gpu", "cefl", "balanced", 2, 20, 10),
        ("gpu", "cefl", "balanced", 2, 100, 13),
        ("cpu", "fedavg", "balanced", 4, 12, 4),  # trained alone: in three equal parts
        ("cpu", "scaffold", "balanced", 4, 12, 4),
        ("cpu", "fedgkt", "balanced", 4, 12, 4),
        ("cpu", "splitfed_v1", "balanced", 4, 12, 1),
    ],
)
def test_choose_client_chunk(platform, method, rule, num_clusters, clients, chunk):
    spec = default_spec().replace(
        {
            "method.name": method,
            "cefl.clustering.rule": rule,
            "cefl.clustering.num_clusters": num_clusters,
            "train.clients_per_round": clients,
        }
    )
    info = METHODS[method]
    assert choose_client_chunk(platform, effective_spec(spec, info), info.traits) == chunk


def said(run, float_bytes=0.0):
    """What `print_choices` says of a RunSpec."""
    console = Console(file=io.StringIO(), width=200)
    print_choices(run, "cpu", float_bytes, console)
    return console.file.getvalue()


def test_print_choices_says_all_of_them():
    line = said(RunSpec(client_chunk=5, devices=2, distill_parts=3), 1_250_000)
    choices = "run.devices=2 (cpu)", "run.client_chunk=5", "run.distill_parts=3", "1.25 MB of float"
    assert all(choice in line for choice in choices)


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({}, {"client_chunk", "distill_parts"}),
        ({"cefl.distill.rule": "none"}, {"client_chunk"}),
        ({"method.name": "fedavg"}, {"client_chunk"}),
        ({"method.name": "fedgkt"}, {"client_chunk", "distill_parts"}),
        *(
            ({"method.name": method}, set())
            for method in ("splitfed_v2", "sequential_split", "centralized")
        ),
    ],
)
def test_build_leaves_automatic_what_nothing_reads(changes, chosen):
    for value in (None, 2):
        automatic = {"run.client_chunk": value, "run.distill_parts": value}
        run = world.make_setup(changes | automatic).spec.run
        for name in ("client_chunk", "distill_parts"):
            assert (getattr(run, name) is not None) == (name in chosen)
            assert (f"run.{name}=" in said(run)) == (name in chosen)


ONE, EACH = {"cefl.clustering.rule": "single"}, {"cefl.clustering.rule": "singleton"}


@pytest.mark.parametrize(
    ("changes", "field", "chosen"),
    [
        (ONE, "devices", 1),
        (EACH | {"cefl.offload.edge_capacity": 3}, "devices", min(7, jax.device_count())),
        ({}, "devices", min(3, jax.device_count())),
        ({"cefl.distill.batch_size": 16}, "distill_parts", 1),
        ({"cefl.distill.batch_size": 32}, "distill_parts", 1),
        ({"cefl.distill.batch_size": 33}, "distill_parts", 2),
        ({"cefl.distill.batch_size": 128}, "distill_parts", 4),
    ],
)
def test_build_chooses_devices_by_clusters_and_parts_by_batch(changes, field, chosen):
    setup = world.make_setup({f"run.{field}": None} | changes)
    assert getattr(setup.spec.run, field) == chosen
    assert choose_distill_parts("gpu", 128) == 1


def test_build_cuts_a_batch_into_no_more_parts_than_samples():
    changes = {"run.distill_parts": 20, "cefl.distill.batch_size": 16}
    assert world.make_setup(changes).spec.run.distill_parts == 16


def test_make_partition_holds_the_clients_of_a_file_against_the_settings(tmp_path):
    path, labels = tmp_path / "p.json", world.make_dataset().train_labels
    path.write_text(partition.to_json(world.make_parts()))
    file = {"data.partition.name": "file", "data.partition.path": str(path)}
    for right in (11, 100):  # that of the file, and the default
        spec = world.make_spec(file | {"data.partition.num_clients": right})
        parts = build.make_partition(spec, labels)
        assert len(parts) == 11
        assert build.build(spec, world.make_dataset(), parts).spec.data.partition.num_clients == 11
    spec = world.make_spec(file | {"data.partition.num_clients": 12})
    with pytest.raises(SettingError, match=r"^data\.partition\.num_clients=12: .* lists 11 "):
        build.make_partition(spec, labels)


PARTS = [part.tolist() for part in world.make_parts()]
MASKED = np.ma.array([7, 8], mask=[0, 1])
WRONG_PARTS = [  # lists: tests/data/test_partition_file.py
    ([*PARTS, []], "has no examples for client 11"),
    ([*world.make_parts(), np.zeros(0)], "has no examples for client 11"),
    ([np.array([0, 1]), np.array([2, 2])], "gives example 2 twice, to clients 1 and 1"),
    ([np.array([0]), np.array([160])], "gives client 1 example 160, but"),
    ([np.array([0]), np.array([3, -1])], "gives client 1 example -1, but"),
    ([np.array([2**64 - 1], np.uint64)], "client 0 example 18446744073709551615"),
    ([np.array([0.0]), np.array([1])], r"has float64\[1\] for client 0, which must be whole num"),
    ([np.arange(160) < 80], r"has bool\[160\] for client 0, which must be whole numbers"),
    ([np.arange(3), MASKED], "has masked indices for client 1, which must be whole numbers"),
    ([np.arange(4)[:, None]], r"has int64\[4, 1\] for client 0"),
    (np.arange(160), r"in place of a list for client 0"),
    (160, "is neither a list with one list of example indices for each client"),
    ({"ann": [0], "bob": [1]}, "nor a mapping such as"),
]


@pytest.mark.parametrize(("parts", "words"), WRONG_PARTS, ids=[case[1] for case in WRONG_PARTS])
def test_build_refuses_wrong_parts_in_one_line(parts, words):
    with pytest.raises(ValueError, match=f"^parts .*{words}.*; correct them$") as error:
        build.build(world.make_spec(), world.make_dataset(), parts)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "parts",
    [
        world.make_parts(),
        [part[::-1] for part in world.make_parts()],
        [np.uint8(part) for part in world.make_parts()],
        tuple(PARTS),
        [jnp.asarray(part) for part in world.make_parts()],
        {str(client): part for client, part in reversed([*enumerate(PARTS)])},
        {np.int64(client): part for client, part in enumerate(PARTS)},
    ],
    ids=["arrays", "backwards", "bytes", "lists", "of jax", "by id", "by number"],
)
def test_build_takes_parts_as_their_file(tmp_path, parts):
    (tmp_path / "partition.json").write_text(partition.to_json(world.make_parts()))
    setup = build.build(world.make_spec(), world.make_dataset(), parts)
    of_file = partition.from_file(tmp_path / "partition.json", 160)
    for here, there in zip(setup.partition, of_file, strict=True):
        np.testing.assert_array_equal(here, there, strict=True)


UNREAD = {
    "data.partition.alpha": 0.1,
    "data.partition.num_clients": 50,
    "data.validation_share": 0.5,
}


def test_build_notes_that_data_and_parts_were_handed_in():
    """And what is read of no file, drawn from no seed and held out by nobody is not noted."""
    data = world.make_setup(UNREAD | {"data.path": "a"}).spec.data
    given = PartitionSpec(name="file", num_clients=11)
    normalization = world.make_spec().data.normalization
    assert data == DataSpec(name="blobs", partition=given, normalization=normalization)
    with pytest.raises(SettingError, match=r"11 clients; lower it or raise .* in parts$"):
        world.make_setup({"train.clients_per_round": 12})


def test_prepare_keeps_the_settings_of_a_partition_that_is_made_of_them():
    spec = world.make_spec(UNREAD)
    assert build.prepare(spec).spec.data == spec.data


def test_build_keeps_a_known_name_for_the_data_set_of_that_name(tmp_path):
    real = sources.load("fashion_mnist_12k")
    parts = [np.arange(50 * k, 50 * k + 50) for k in range(11)]
    assert build.build(world.make_spec(), real, parts).spec.data.name == real.name
    noisy = real._replace(train_labels=(real.train_labels + 1) % 10)
    for other in (noisy, world.make_dataset()._replace(name=real.name)):
        with pytest.raises(ValueError, match=r"^dataset\.name is 'fash.*; give .* another name$"):
            build.build(world.make_spec(), other, world.make_parts())
    spec = world.make_spec({"data.path": str(tmp_path)})
    with pytest.raises(ValueError, match=r"^dataset\.name is 'mnist', .* lacks .* another name$"):
        build.build(spec, world.make_dataset()._replace(name="mnist"), world.make_parts())


@pytest.mark.parametrize(
    "change",
    [{"train_images": np.zeros((160, 1, 8, 8), np.uint8)}, {"test_labels": np.full(50, 4)}],
)
def test_build_refuses_a_dataset_that_was_changed_by_hand(change):
    with pytest.raises(ValueError, match=rf"^dataset\.{next(iter(change))} "):
        build.build(world.make_spec(), world.make_dataset()._replace(**change), world.make_parts())


def table(num_features=12, classes=(1, 2, 7)):
    """160 training and 50 test rows of a table, a place in space for each class."""
    rng = np.random.default_rng(0)
    labels = np.resize(classes, 210)
    rows = rng.normal(0, 1, (8, num_features))[labels] + rng.normal(0, 0.2, (210, num_features))
    return make_dataset("table", rows[:160], labels[:160], rows[160:], labels[160:])


@pytest.mark.parametrize(
    ("model", "dataset", "words"),
    [
        ("lenet5", table(), "16x16, and the data are rows of 12 numbers; choose"),
        ("cnn", table(1), "4x4, and the data are rows of 1 numbers; choose another"),
        ("lenet5", world.make_dataset(side=15), "16x16, and those of the data are 15x15; choose"),
    ],
)
def test_build_refuses_samples_that_a_model_does_not_take(model, dataset, words):
    with pytest.raises(ValueError, match=f"^model.name='{model}' needs images of at least {words}"):
        build.build(world.make_spec({"model.name": model}), dataset, world.make_parts())


def test_build_refuses_a_normalisation_that_does_not_fit_the_columns_of_a_table():
    spec = world.make_spec({"data.normalization.mean": (0.1, 0.2, 0.3)})
    with pytest.raises(ValueError, match=r"mean=.*: 3 values, and the data have 12 channel\(s\)"):
        build.build(spec, table(), world.make_parts())


def test_build_of_rows_of_a_table_is_learned_by_the_whole_method():
    changes = {"train.rounds": 6, "run.eval_every": 6, "data.normalization.mean": (0.0,)}
    setup = build.build(world.make_spec(changes), table(), world.make_parts())
    assert (setup.classes, setup.spec.data.name) == ((1, 2, 7), "table")
    ((_, chunk),) = world.run_whole(setup, quick_jit)
    assert {*chunk.scores} == {"", "cloud_"}
    assert all(scores.accuracy > 0.9 for scores in chunk.scores.values())
    assert 0 < chunk.measures["privacy/distance_correlation"] <= 1
