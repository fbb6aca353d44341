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
    ("rule", "num_clusters", "clients", "chunk"),
    [
        ("balanced", 4, 20, 5),  # clusters of 5: at once
        ("balanced", 10, 100, 5),  # of 10: in two parts
        ("balanced", 3, 20, 4),  # of 7: 4 and 3
        ("patent", 64, 64, 1),
        ("singleton", 4, 10, 1),  # num_clusters is not read
        ("single", 4, 12, 4),
    ],
)
def test_client_chunk_on_a_cpu(rule, num_clusters, clients, chunk):
    assert client_chunk("cpu", clustered(rule, num_clusters, clients)) == chunk


def test_client_chunk_elsewhere():
    assert client_chunk("gpu", clustered("balanced", 2, 20)) == 10
    assert client_chunk("gpu", clustered("balanced", 2, 100)) == 13


@pytest.mark.parametrize(
    ("method", "chunk"),
    [("fedavg", 4), ("scaffold", 4), ("fedgkt", 4), ("splitfed_v1", 1)],
)
def test_client_chunk_of_other_methods(method, chunk):
    """Twelve clients: in three equal parts where they train alone, else one of each cluster."""
    spec = clustered("balanced", 4, 12).replace({"method.name": method})
    assert client_chunk("cpu", spec) == chunk


def client_chunk(platform, spec):
    """The automatic chunk under checked settings."""
    info = METHODS[spec.method.name]
    return choose_client_chunk(platform, effective_spec(spec, info), info.traits)


def clustered(rule, num_clusters, clients):
    """A Spec with so many clusters and clients a round."""
    return default_spec().replace(
        {
            "cefl.clustering.rule": rule,
            "cefl.clustering.num_clusters": num_clusters,
            "train.clients_per_round": clients,
        }
    )


def test_the_choice_is_said():
    console = Console(file=io.StringIO(), width=200)
    print_choices(RunSpec(client_chunk=5, devices=2, distill_parts=3), "cpu", 1_250_000, console)
    said = console.file.getvalue()
    choices = "run.devices=2 (cpu)", "run.client_chunk=5", "run.distill_parts=3", "1.25 MB of float"
    assert all(choice in said for choice in choices)


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
def test_what_nothing_reads_stays_automatic_and_is_not_told(changes, chosen):
    for value in (None, 2):
        automatic = {"run.client_chunk": value, "run.distill_parts": value}
        run = world.make_setup(changes | automatic).spec.run
        console = Console(file=io.StringIO(), width=200)
        print_choices(run, "cpu", 0.0, console)
        for name in ("client_chunk", "distill_parts"):
            assert (getattr(run, name) is not None) == (name in chosen)
            assert (f"run.{name}=" in console.file.getvalue()) == (name in chosen)


@pytest.mark.parametrize(("rule", "clusters"), [("single", 1), ("singleton", 7), ("balanced", 3)])
def test_automatic_devices_are_all_but_none_without_a_cluster(rule, clusters):
    changes = {"run.devices": None, "cefl.clustering.rule": rule, "cefl.offload.edge_capacity": 3}
    chosen = world.make_setup(changes).spec.run.devices
    assert chosen == min(clusters, jax.device_count())


def test_clients_of_a_partition_file_are_counted_and_held_against_the_settings(tmp_path):
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


@pytest.mark.parametrize(("batch", "parts"), [(16, 1), (32, 1), (33, 2), (64, 2), (128, 4)])
def test_automatic_parts_of_a_distillation_batch(batch, parts):
    changes = {"run.distill_parts": None, "cefl.distill.batch_size": batch}
    assert world.make_setup(changes).spec.run.distill_parts == parts
    assert choose_distill_parts("gpu", batch) == 1


def test_a_batch_is_not_cut_into_more_parts_than_samples():
    changes = {"run.distill_parts": 20, "cefl.distill.batch_size": 16}
    assert world.make_setup(changes).spec.run.distill_parts == 16


PARTS = [part.tolist() for part in world.make_parts()]
WRONG_PARTS = {
    "an empty client": ([*PARTS, []], "has no examples for client 11"),
    "an empty array": ([*world.make_parts(), np.zeros(0)], "has no examples for client 11"),
    "overlapping clients": ([[0, 1], [1, 2]], "gives example 1 twice, to clients 0 and 1"),
    "an index twice": ([np.array([0, 1]), np.array([2, 2])], "gives example 2 twice, to clients 1"),
    "an index too large": ([np.array([0]), np.array([160])], "gives client 1 example 160, but"),
    "an index below 0": ([np.array([0]), np.array([3, -1])], "gives client 1 example -1, but"),
    "beyond 64 bits": ([np.array([2**64 - 1], np.uint64)], "client 0 example 18446744073709551615"),
    "floats": ([np.array([0.0]), np.array([1])], r"has float64\[1\] for client 0, which must be"),
    "a mask": ([np.arange(160) < 80], r"has bool\[160\] for client 0, which must be whole numbers"),
    "masked indices": (
        [np.arange(3), np.ma.array([7, 8], mask=[0, 1])],
        "has masked indices for client 1, which must be whole numbers",
    ),
    "columns": ([np.arange(4)[:, None]], r"has int64\[4, 1\] for client 0"),
    "true": ([[0, True]], "has True among the examples of client 0"),
    "one array": (np.arange(160), r"in place of a list for client 0"),
    "a number": (160, "is neither a list with one list of example indices for each client"),
    "nobody": ([], "is neither a list"),
    "names": ({"ann": [0], "bob": [1]}, "nor a mapping such as"),
}


@pytest.mark.parametrize("case", WRONG_PARTS)
def test_a_wrong_partition_that_is_handed_in_is_one_line(case):
    parts, words = WRONG_PARTS[case]
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
def test_a_partition_that_is_handed_in_is_what_its_file_would_be(tmp_path, parts):
    (tmp_path / "partition.json").write_text(partition.to_json(world.make_parts()))
    setup = build.build(world.make_spec(), world.make_dataset(), parts)
    of_file = partition.from_file(tmp_path / "partition.json", 160)
    for here, there in zip(setup.partition, of_file, strict=True):
        np.testing.assert_array_equal(here, there, strict=True)


def test_the_settings_of_a_partition_that_is_handed_in_say_so():
    """And what is read of no file, drawn from no seed and held out by nobody is not noted."""
    changes = {
        "data.partition.alpha": 0.1,
        "data.partition.num_clients": 50,
        "data.path": "a",
        "data.validation_share": 0.5,
    }
    data = world.make_setup(changes).spec.data
    given = PartitionSpec(name="file", num_clients=11)
    assert data == DataSpec(
        name="blobs", partition=given, normalization=world.make_spec().data.normalization
    )
    with pytest.raises(SettingError, match=r"11 clients; lower it or raise .* in parts$"):
        world.make_setup({"train.clients_per_round": 12})


def test_the_settings_of_a_partition_that_is_made_of_them_stay():
    changes = {
        "data.partition.alpha": 0.1,
        "data.partition.num_clients": 50,
        "data.validation_share": 0.5,
    }
    data = world.make_spec(changes).data
    assert build.prepare(world.make_spec(changes)).spec.data == data


def test_a_known_name_is_for_the_data_set_of_that_name(tmp_path):
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
    [
        {"train_images": np.zeros((160, 1, 8, 8), np.uint8)},
        {"train_images": np.full((160, 8, 8, 1), np.nan, np.float32)},
        {"train_labels": np.zeros((160, 1), int)},
        {"test_images": np.zeros((0, 8, 8, 1), np.uint8)},
        {"test_labels": np.full(50, 4)},
    ],
)
def test_a_dataset_that_was_changed_by_hand_is_refused(change):
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
        (
            "cnn",
            world.make_dataset(side=3),
            "4x4, and those of the data are 3x3; choose another model",
        ),
    ],
)
def test_samples_that_a_model_does_not_take_are_refused(model, dataset, words):
    with pytest.raises(ValueError, match=f"^model.name='{model}' needs images of at least {words}"):
        build.build(world.make_spec({"model.name": model}), dataset, world.make_parts())


def test_a_normalisation_that_does_not_fit_the_columns_of_a_table_is_refused():
    spec = world.make_spec({"data.normalization.mean": (0.1, 0.2, 0.3)})
    with pytest.raises(ValueError, match=r"mean=.*: 3 values, and the data have 12 channel\(s\)"):
        build.build(spec, table(), world.make_parts())


def test_rows_of_a_table_are_learned_by_the_whole_method():
    changes = {"train.rounds": 6, "run.eval_every": 6, "data.normalization.mean": (0.0,)}
    setup = build.build(world.make_spec(changes), table(), world.make_parts())
    assert (setup.classes, setup.spec.data.name) == ((1, 2, 7), "table")
    ((_, chunk),) = world.run_whole(setup, quick_jit)
    assert {*chunk.scores} == {"", "cloud_"}
    assert all(scores.accuracy > 0.9 for scores in chunk.scores.values())
    assert 0 < chunk.measures["privacy/distance_correlation"] <= 1
