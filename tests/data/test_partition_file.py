"""Partitions as files: what is written is read, and what is wrong is named."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefl_jax.data import partition, sources
from tests.data.examples import check_partition, label_counts, quick, seeds

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "partitions"


@quick
@given(st.integers(1, 60), st.data(), seeds)
def test_to_json_is_read_back_by_from_file(tmp_path_factory, num_examples, data, seed):
    num_clients = data.draw(st.integers(1, num_examples))
    clients = partition.iid(np.zeros(num_examples, int), num_clients, seed)
    file = tmp_path_factory.mktemp("partition") / "partition.json"
    file.write_text(partition.to_json(clients))
    again = partition.from_file(file, num_examples)
    check_partition(again, num_examples, num_clients)
    assert partition.to_json(again) == partition.to_json(clients)
    assert partition.sha256(again) == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (" [[4, 2],\n [7]] ", "[[2,4],[7]]"),  # examples may be left out and in any order
        ('{"10": [4, 2], "2": [7], "0": [0]}', "[[0],[7],[2,4]]"),  # by the ids' numbers
    ],
)
def test_from_file_orders_clients_and_examples(tmp_path, text, read):
    (tmp_path / "partition.json").write_text(text)
    assert partition.to_json(partition.from_file(tmp_path / "partition.json", 10)) == read


WRONG_FILES = [
    # JSON as such: tests/test_safe_read.py.
    ("", "cannot be read as JSON"),
    ("[" * 100_000, r"write it flatter, for example with json\.dump\("),
    (b"PK\x03\x04\xff", r"is not UTF-8 text at byte 4; .*json\.dump"),
    # Forms.
    ("[]", "is neither a list with one list"),
    ('{"users": ["f0"], "user_data": {"f0": {"y": [1]}}}', r"nor a mapping such as .*json\.dump"),
    ('[[0], "1"]', "in place of a list for client 1"),
    # Ids.
    ('{"a": [0]}', r"nor a mapping such as .*; .*json\.dump"),
    (f'{{"{"9" * 5000}": [0]}}', "nor a mapping such as"),
    ('{"1": [0], "01": [1]}', "names client 1 twice, as '1' and '01'"),
    ('{"7": [0], "3": [0]}', "gives example 0 twice, to clients 3 and 7"),
    # Indices.
    ('{"7": []}', "has no examples for client 7"),
    ("[[0], [[1]]]", r"has \[1\] among the examples of client 1"),
    ("[[0], [true]]", "has True among the examples of client 1"),
    ('[["0"]]', "has '0' among the examples of client 0"),
    ("[[0], [-1]]", "client 1 example -1, but there are 10"),
    ("[[0], [10]]", "client 1 example 10, but there are 10"),
    ("[[18446744073709551616]]", "example 18446744073709551616"),
    ("[[0, 5], [1], [5]]", "example 5 twice, to clients 0 and 2"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_FILES, ids=[case[1] for case in WRONG_FILES])
def test_from_file_names_what_is_wrong_in_one_line(tmp_path, text, message):
    file = tmp_path / "mine.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as error:
        partition.from_file(file, 10)
    assert str(error.value).startswith(f"data.partition.path: {file} ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "most_labels"), [("1_label", 1), ("2_labels", 2)])
def test_from_file_reads_published_partitions(name, most_labels):
    file = PUBLISHED / f"fashion_mnist_500_clients_{name}.json"
    if not file.exists():
        pytest.skip(f"{file} is absent")
    clients = partition.from_file(file, 60_000)
    check_partition(clients, 60_000, 500)
    as_published = [sorted(indices) for indices in json.loads(file.read_text())]
    assert [indices.tolist() for indices in clients] == as_published
    with pytest.raises(ValueError, match="59999 examples"):
        partition.from_file(file, 59_999)
    if Path(sources.INSTALLED_FOLDERS["fashion_mnist"]).is_dir():
        counts = label_counts(clients, sources.load("fashion_mnist").train_labels)
        assert (counts > 0).sum(axis=1).max() == most_labels
