"""Each partition is shown once: a run's own picture, else one drawn from its indices."""

import json
import os

import matplotlib.image
import numpy as np
import pytest

from cefl_jax.data import sources
from cefl_jax.data.dataset import make_dataset
from cefl_jax.reports import page
from cefl_jax.reports.groups import by_section
from tests.reports.folders import add_file, make_run

PNG = b"\x89PNG\r\n\x1a\n and so on"


def section_of(*runs):
    (section,) = by_section(list(runs))
    return section


def folder(tmp_path, name, indices, png=None):
    place = add_file(tmp_path / name, "partition.json", json.dumps(indices))
    if png is not None:
        (place / "partition.png").write_bytes(png)
    return place


def test_a_partition_of_several_runs_is_shown_once(tmp_path):
    runs = [
        make_run(
            seed,
            folder=folder(tmp_path, f"{name}{seed}", [[seed]], PNG + bytes([seed])),
            method__name=name,
        )
        for name in ("cefl", "fedavg")
        for seed in (0, 1, 2)
    ]
    pictures, more = page.gather_partitions(section_of(*runs), 2)
    assert pictures == [(0, PNG + b"\0", ""), (1, PNG + b"\1", "")]
    assert more == 1


def test_any_run_with_the_partition_may_have_the_picture(tmp_path):
    runs = [
        make_run(0, folder=folder(tmp_path, "a", [[1]])),
        make_run(0, folder=folder(tmp_path, "b", [[1]], PNG), method__name="fedavg"),
    ]
    assert page.gather_partitions(section_of(*runs), 9) == ([(0, PNG, "")], 0)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_missing_picture_is_drawn_from_indices_and_labels(tmp_path, monkeypatch, share):
    """Indices of what is left to train on, where examples were held out."""
    seen = []
    monkeypatch.setattr(
        page,
        "draw_partition",
        lambda file, *given: (seen.append(given), file.write(b"drawn")),
    )
    labels = sources.hold_out(sources.load("fashion_mnist_12k"), share, seed=3).train_labels
    parts = [[5, 0, 1], [7, 6000]]
    run = make_run(3, folder=folder(tmp_path, "a", parts), data__validation_share=share)
    assert page.gather_partitions(section_of(run), 1) == ([(3, b"drawn", "")], 0)
    expected = [
        [sum(labels[index] == label for index in part) for label in range(10)] for part in parts
    ]
    np.testing.assert_array_equal(seen[0][0], expected)


def test_a_drawn_picture_names_the_classes_that_the_data_have(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(page, "draw_partition", lambda file, *given: seen.append(given))
    whole = make_dataset("letters", *2 * (np.zeros((3, 2, 2), np.uint8), [7, 5, 26]))
    monkeypatch.setattr(sources, "load", lambda *_: whole)
    page.gather_partitions(section_of(make_run(0, folder=folder(tmp_path, "a", [[0], [1]]))), 1)
    ((counts, names),) = seen
    assert names == ["5", "7", "26"]
    np.testing.assert_array_equal(counts, [[0, 1, 0], [1, 0, 0]])


def test_what_is_drawn_is_a_picture(tmp_path):
    run = make_run(0, folder=folder(tmp_path, "a", [[0, 1], [2]]))
    (picture,), _ = page.gather_partitions(section_of(run), 1)
    (tmp_path / "drawn.png").write_bytes(picture.png)
    assert matplotlib.image.imread(tmp_path / "drawn.png").ndim == 3


@pytest.mark.parametrize(
    ("indices", "data", "reason"),
    [
        ([[10**9]], "fashion_mnist_12k", "10,000|10000 examples"),
        ("text", "fashion_mnist_12k", "neither a list"),
        ([[0]], "invented", "data.name is 'invented'"),
    ],
)
def test_what_cannot_be_drawn_is_told(tmp_path, indices, data, reason):
    run = make_run(0, folder=folder(tmp_path, "a", indices, b"no PNG"), data__name=data)
    (picture,), _ = page.gather_partitions(section_of(run), 1)
    assert picture.png is None
    with pytest.raises(ValueError, match=reason):
        raise ValueError(picture.reason)


@pytest.mark.parametrize("data_path", ["~no.such.user", "a\0b", "", "/dev"])
def test_labels_that_cannot_be_read_are_told(tmp_path, data_path):
    run = make_run(0, folder=folder(tmp_path, "a", [[0]]), data__name="mnist", data__path=data_path)
    (picture,), _ = page.gather_partitions(section_of(run), 1)
    assert picture.png is None
    assert picture.reason.startswith("data.path")


def test_what_is_no_file_of_bounded_size_is_no_picture(tmp_path, monkeypatch):
    large, piped = (folder(tmp_path, name, [[0]]) for name in ("large", "piped"))
    (large / "partition.png").write_bytes(PNG)
    (piped / "partition.json").unlink()
    os.mkfifo(piped / "partition.json")
    os.mkfifo(piped / "partition.png")
    monkeypatch.setattr(page, "MAX_PNG_BYTES", len(PNG) - 1)
    monkeypatch.setattr(page, "draw_partition", lambda file, *_: file.write(b"drawn"))
    runs = [make_run(0, folder=large), make_run(1, folder=piped)]
    assert page.gather_partitions(section_of(*runs), 9) == ([(0, b"drawn", "")], 0)


def test_a_run_that_says_nothing_of_its_partition_has_no_picture(tmp_path):
    assert page.gather_partitions(section_of(make_run(0, folder=tmp_path)), 1) == ([], 0)
