"""Partitions as files: what is written is read, and what is wrong is named."""

import hashlib
import json
import os
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
def test_a_partition_survives_its_file(tmp_path_factory, num_examples, data, seed):
    num_clients = data.draw(st.integers(1, num_examples))
    clients = partition.iid(np.zeros(num_examples, int), num_clients, seed)
    file = tmp_path_factory.mktemp("partition") / "partition.json"
    file.write_text(partition.to_json(clients))
    again = partition.from_file(file, num_examples)
    check_partition(again, num_examples, num_clients)
    assert partition.to_json(again) == partition.to_json(clients)
    assert partition.sha256(again) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_may_leave_examples_out_and_order_them_as_it_likes(tmp_path):
    file = tmp_path / "partition.json"
    file.write_text(" [[4, 2],\n [7]] ")
    clients = partition.from_file(file, 10)
    assert partition.to_json(clients) == "[[2,4],[7]]"


def test_a_mapping_from_client_ids_is_read_in_the_order_of_their_numbers(tmp_path):
    file = tmp_path / "partition.json"
    file.write_text('{"10": [4, 2], "2": [7], "0": [0]}')
    clients = partition.from_file(file, 10)
    assert partition.to_json(clients) == "[[0],[7],[2,4]]"


WRONG_FILES = {
    "empty": ("", "cannot be read as JSON"),
    "not_json": ("[[0], [1]", "cannot be read as JSON"),
    "not_text": (b"\xff\xfe\xfd", "is not UTF-8 text at byte 0"),
    "utf_16": ("[[0]]".encode("utf-16"), "is not UTF-8 text at byte 0"),
    "nested_without_end": ("[" * 100_000, r"write it flatter, for example with json\.dump\("),
    "nested_to_the_end": (f"[{'[' * 400}{']' * 400}]", "is nested too deeply"),
    "a_number_without_end": (f"[[{'9' * 5000}]]", "cannot be read as JSON"),
    "nobody": ("[]", "is neither a list with one list"),
    "nobody_by_id": ("{}", "is neither a list with one list"),
    "null": ("null", "is neither a list with one list"),
    "ids_that_are_no_numbers": ('{"a": [0]}', r"nor a mapping such as .*; .*json\.dump"),
    "a_negative_id": ('{"-1": [0]}', "nor a mapping such as"),
    "an_id_without_end": (f'{{"{"9" * 5000}": [0]}}', "nor a mapping such as"),
    "an_id_twice": ('{"1": [0], "01": [1]}', "names client 1 twice, as '1' and '01'"),
    "an_id_with_nothing": ('{"7": []}', "has no examples for client 7"),
    "twice_by_id": ('{"7": [0], "3": [0]}', "gives example 0 twice, to clients 3 and 7"),
    "leaf": (
        '{"users": ["f0"], "user_data": {"f0": {"x": [[0.5]], "y": [1]}}}',
        r"nor a mapping such as .*json\.dump",
    ),
    "npz": (b"PK\x03\x04\xff", r"is not UTF-8 text at byte 4; .*json\.dump"),
    "pickle": (b"\x80\x04\x95", r"is not UTF-8 text at byte 0; .*json\.dump"),
    "flat": ("[0, 1]", "has 0 in place of a list for client 0"),
    "empty_client": ("[[0], []]", "has no examples for client 1"),
    "text_client": ('[[0], "1"]', "in place of a list for client 1"),
    "nested": ("[[0], [[1]]]", r"has \[1\] among the examples of client 1"),
    "true": ("[[0], [true]]", "has True among the examples of client 1"),
    "float": ("[[0], [1.0]]", "has 1.0 among the examples of client 1"),
    "not_a_number": ("[[NaN]]", "has nan among the examples of client 0"),
    "text": ('[["0"]]', "has '0' among the examples of client 0"),
    "null_index": ("[[null]]", "has None among the examples of client 0"),
    "negative": ("[[0], [-1]]", "client 1 example -1, but there are 10"),
    "one_past_the_end": ("[[0], [10]]", "client 1 example 10, but there are 10"),
    "beyond_64_bits": ("[[18446744073709551616]]", "example 18446744073709551616"),
    "twice_in_two": ("[[0, 5], [1], [5]]", "example 5 twice, to clients 0 and 2"),
    "twice_in_one": ("[[0], [3, 3]]", "example 3 twice, to clients 1 and 1"),
}


@pytest.mark.parametrize(("text", "message"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_wrong_file_is_one_line_that_names_it(tmp_path, text, message):
    file = tmp_path / "mine.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as error:
        partition.from_file(file, 10)
    assert str(error.value).startswith(f"data.partition.path: {file} ")
    assert "\n" not in str(error.value)


def test_a_file_must_be_named_and_be_there(tmp_path):
    with pytest.raises(ValueError, match=r"data\.partition\.path is not set"):
        partition.from_file(None, 10)
    with pytest.raises(ValueError, match="there is no such file"):
        partition.from_file(tmp_path / "absent.json", 10)
    with pytest.raises(ValueError, match="is a folder"):
        partition.from_file(tmp_path, 10)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match="is a pipe or a device"):
        partition.from_file(tmp_path / "pipe.json", 10)
    with pytest.raises(ValueError, match=r"two\?lines"):
        partition.from_file(tmp_path / "two\nlines", 10)


def test_a_file_far_larger_than_a_partition_is_not_read(tmp_path):
    """It has room for white space and no more: the size follows the number of examples."""
    file = tmp_path / "partition.json"
    file.write_text(f"[[0]{' ' * (2**20 + 64 * 10 - 5)}]")
    partition.from_file(file, 10)
    with pytest.raises(ValueError, match="has 1049216 bytes, and 1049152 is the most"):
        partition.from_file(file, 9)


items = st.one_of(
    st.integers(-2, 12),
    st.integers(),
    st.floats(),
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    st.lists(st.integers(0, 9), max_size=2),
    st.just(10**400),
)


@quick
@given(
    st.lists(st.lists(items | st.integers(0, 9), max_size=3) | items, max_size=5)
    | st.permutations(range(10)).map(lambda order: [order[:4], order[4:]]),
    st.binary(max_size=2),
    st.data(),
)
def test_any_file_is_a_partition_or_is_refused_in_one_line(tmp_path_factory, made, patch, data):
    text = json.dumps(made).encode()
    at = data.draw(st.integers(0, len(text)))
    file = tmp_path_factory.getbasetemp() / "drawn.json"
    file.write_bytes(text[:at] + patch + text[at:])
    try:
        clients = partition.from_file(file, 10)
    except ValueError as error:
        line = str(error)
        assert line.startswith(f"data.partition.path: {file} ")
        assert line.isprintable()
        assert len(line) < len(str(file)) + 300
    else:
        together = np.concatenate(clients).tolist()
        assert len({*together} & {*range(10)}) == len(together)
        assert all(part.size for part in clients)


@pytest.mark.parametrize(("name", "most_labels"), [("1_label", 1), ("2_labels", 2)])
def test_published_partitions_are_read(name, most_labels):
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
