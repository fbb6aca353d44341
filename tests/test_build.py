"""What is left automatic is chosen so that no slot of a usual cluster stays empty."""

import io

import jax
import pytest
from rich.console import Console

from cefl_jax.build import choose_client_chunk, choose_distill_parts
from cefl_jax.runtime.progress import print_choices
from cefl_jax.specs import ClusteringSpec, RunSpec, TrainSpec
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
    clustering = ClusteringSpec(rule=rule, num_clusters=num_clusters)
    assert choose_client_chunk("cpu", clustering, TrainSpec(clients_per_round=clients)) == chunk


def test_client_chunk_elsewhere():
    clustering = ClusteringSpec(rule="balanced", num_clusters=2)
    assert choose_client_chunk("gpu", clustering, TrainSpec(clients_per_round=20)) == 10
    assert choose_client_chunk("gpu", clustering, TrainSpec(clients_per_round=100)) == 13


def test_the_choice_is_said():
    console = Console(file=io.StringIO(), width=200)
    print_choices(RunSpec(client_chunk=5, devices=2, distill_parts=3), "cpu", 1.25, console)
    said = console.file.getvalue()
    choices = "run.devices=2 (cpu)", "run.client_chunk=5", "run.distill_parts=3", "1.2 MB of float"
    assert all(choice in said for choice in choices)


@pytest.mark.parametrize(("rule", "clusters"), [("single", 1), ("singleton", 7), ("balanced", 3)])
def test_automatic_devices_are_all_but_none_without_a_cluster(rule, clusters):
    changes = {"run.devices": None, "cefl.clustering.rule": rule, "cefl.offload.edge_capacity": 3}
    chosen = world.make_setup(changes).spec.run.devices
    assert chosen == min(clusters, jax.device_count())


@pytest.mark.parametrize(("batch", "parts"), [(16, 1), (32, 1), (33, 2), (64, 2), (128, 4)])
def test_automatic_parts_of_a_distillation_batch(batch, parts):
    changes = {"run.distill_parts": None, "cefl.distill.batch_size": batch}
    assert world.make_setup(changes).spec.run.distill_parts == parts
    assert choose_distill_parts("gpu", batch) == 1


def test_a_batch_is_not_cut_into_more_parts_than_samples():
    changes = {"run.distill_parts": 20, "cefl.distill.batch_size": 16}
    assert world.make_setup(changes).spec.run.distill_parts == 16
