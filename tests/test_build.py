"""What is left automatic is chosen so that no slot of a usual cluster stays empty."""

import dataclasses
import io

import jax
import pytest
from rich.console import Console

from cefl_jax.build import build, choose_client_chunk, choose_distill_parts, make_partition
from cefl_jax.config import SettingError
from cefl_jax.data import partition
from cefl_jax.runtime.progress import print_choices
from cefl_jax.specs import CeflSpec, ClusteringSpec, MethodSpec, RunSpec, Spec, TrainSpec
from tests import world


@pytest.mark.parametrize(
    ("rule", "num_clusters", "clients", "chunk"),
    [
        ("balanced", 4, 20, 5),      # clusters of 5: at once
        ("balanced", 10, 100, 5),    # of 10: in two parts
        ("balanced", 3, 20, 4),      # of 7: 4 and 3
        ("patent", 64, 64, 1),
        ("singleton", 4, 10, 1),     # num_clusters is not read
        ("single", 4, 12, 4),
    ],
)
def test_client_chunk_on_a_cpu(rule, num_clusters, clients, chunk):
    assert choose_client_chunk("cpu", clustered(rule, num_clusters, clients)) == chunk


def test_client_chunk_elsewhere():
    assert choose_client_chunk("gpu", clustered("balanced", 2, 20)) == 10
    assert choose_client_chunk("gpu", clustered("balanced", 2, 100)) == 13


@pytest.mark.parametrize(
    ("method", "chunk"),
    [("fedavg", 4), ("scaffold", 4), ("fedgkt", 4), ("splitfed_v1", 1)],
)
def test_client_chunk_of_other_methods(method, chunk):
    """Twelve clients: in three equal parts where they train alone, else one of each cluster."""
    spec = dataclasses.replace(clustered("balanced", 4, 12), method=MethodSpec(method))
    assert choose_client_chunk("cpu", spec) == chunk


def clustered(rule, num_clusters, clients):
    """A Spec with so many clusters and clients a round."""
    clustering = ClusteringSpec(rule=rule, num_clusters=num_clusters)
    train = TrainSpec(clients_per_round=clients)
    return Spec(cefl=CeflSpec(clustering=clustering), train=train)


def test_the_choice_is_said():
    console = Console(file=io.StringIO(), width=200)
    print_choices(RunSpec(client_chunk=5, devices=2, distill_parts=3), "cpu", 1.25, console)
    said = console.file.getvalue()
    choices = "run.devices=2 (cpu)", "run.client_chunk=5", "run.distill_parts=3", "1.2 MB of float"
    assert all(choice in said for choice in choices)


@pytest.mark.parametrize(("changes", "chosen"), [
    ({}, {"client_chunk", "distill_parts"}),
    ({"cefl.distill.rule": "none"}, {"client_chunk"}),
    ({"method.name": "fedavg"}, {"client_chunk"}),
    ({"method.name": "fedgkt"}, {"client_chunk", "distill_parts"}),
    *(({"method.name": method}, set())
      for method in ("splitfed_v2", "sequential_split", "centralized")),
])
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
    for right in (11, 100):                     # that of the file, and the default
        spec = world.make_spec(file | {"data.partition.num_clients": right})
        parts = make_partition(spec, labels)
        assert len(parts) == 11
        assert build(spec, world.make_dataset(), parts).spec.data.partition.num_clients == 11
    spec = world.make_spec(file | {"data.partition.num_clients": 12})
    with pytest.raises(SettingError, match=r"^data\.partition\.num_clients=12: .* lists 11 "):
        make_partition(spec, labels)


@pytest.mark.parametrize(("batch", "parts"), [(16, 1), (32, 1), (33, 2), (64, 2), (128, 4)])
def test_automatic_parts_of_a_distillation_batch(batch, parts):
    changes = {"run.distill_parts": None, "cefl.distill.batch_size": batch}
    assert world.make_setup(changes).spec.run.distill_parts == parts
    assert choose_distill_parts("gpu", batch) == 1


def test_a_batch_is_not_cut_into_more_parts_than_samples():
    changes = {"run.distill_parts": 20, "cefl.distill.batch_size": 16}
    assert world.make_setup(changes).spec.run.distill_parts == 16
