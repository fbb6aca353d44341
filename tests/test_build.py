"""What is left automatic is chosen so that no slot of a usual cluster stays empty."""

import io

import pytest
from rich.console import Console

from cefl_jax.build import choose_client_chunk
from cefl_jax.runtime.progress import print_choices
from cefl_jax.specs import ClusteringSpec, RunSpec, TrainSpec


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
    print_choices(RunSpec(client_chunk=5, devices=2), "cpu", console)
    assert "2 cpu device(s), run.client_chunk=5" in console.file.getvalue()
