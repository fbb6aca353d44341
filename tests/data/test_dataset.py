"""A data set of one's own: what it may be, and what is refused in one line, whoever made it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefl_jax.data.dataset import DataError, check_dataset, make_dataset
from cefl_jax.data.federated import make_federated
from cefl_jax.specs import NormalizationSpec
from tests.compare import assert_close
from tests.data.examples import quick

NUM_TRAIN, NUM_TEST = 12, 6


@dataclasses.dataclass
class Given:
    """What is given to `make_dataset`."""

    train_images: object
    train_labels: object
    test_images: object
    test_labels: object

    def make(self):
        """The Dataset of it."""
        return make_dataset("mine", *vars(self).values())


def given_arrays(sample_shape=(5, 4), dtype=np.uint8, labels=(0, 1, 2)):
    """Arrays that nothing is wrong with, with every label in training and test."""
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (count, *sample_shape)).astype(dtype)
        for count in (NUM_TRAIN, NUM_TEST)
    ]
    known = [np.resize(labels, count) for count in (NUM_TRAIN, NUM_TEST)]
    return Given(images[0], known[0], images[1], known[1])


@pytest.mark.parametrize(
    ("sample_shape", "dtype", "held"),
    [
        ((5, 4), np.uint8, (5, 4, 1)),
        ((1, 1), np.uint8, (1, 1, 1)),
        ((5, 4, 1), np.uint8, (5, 4, 1)),
        ((32, 32, 3), np.uint8, (32, 32, 3)),
        ((3, 40, 4), np.uint8, (3, 40, 4)),  # wide, with a fourth channel
        ((9, 9, 13), np.uint8, (9, 9, 13)),
        ((5, 4), np.float64, (5, 4, 1)),
        ((5, 4, 3), np.float16, (5, 4, 3)),
        ((5, 4, 3), ">f4", (5, 4, 3)),
        ((7,), np.float64, (7,)),
        ((1,), np.float32, (1,)),
    ],
)
def test_images_of_any_size_and_rows_of_a_table_are_taken(sample_shape, dtype, held):
    arrays = given_arrays(sample_shape, dtype)
    made = arrays.make()
    kind = np.uint8 if dtype == np.uint8 else np.float32
    assert (made.train_images.dtype, made.train_images.shape) == (kind, (NUM_TRAIN, *held))
    assert (made.test_images.dtype, made.test_images.shape) == (kind, (NUM_TEST, *held))
    expected = np.reshape(arrays.train_images, made.train_images.shape)
    np.testing.assert_array_equal(made.train_images, expected.astype(kind))


@pytest.mark.parametrize(
    ("labels", "classes", "dtypes"),
    [
        ((0, 1, 2), (0, 1, 2), (np.int64, np.uint8, np.uint64, ">i4")),
        ((26, 1, 13), (1, 13, 26), (np.int8, np.uint64)),
        ((1, -1), (-1, 1), (np.int64, ">i2")),
        ((2**62, -(2**62), 0), (-(2**62), 0, 2**62), (np.int64,)),
    ],
)
def test_labels_of_any_integers_become_their_places_among_the_training_labels(
    labels, classes, dtypes
):
    arrays = given_arrays(labels=labels)
    train, test = arrays.train_labels, arrays.test_labels
    given = [(train.tolist(), test.tolist())]
    for one, other in (*given, *((train.astype(kind), test.astype(kind)) for kind in dtypes)):
        check_mapping(dataclasses.replace(arrays, train_labels=one, test_labels=other), classes)


def check_mapping(arrays, classes):
    """The classes are those, and each label is the place of its own among them."""
    made = arrays.make()
    assert (made.classes, made.num_classes) == (classes, len(classes))
    for mapped, came in (
        (made.train_labels, arrays.train_labels),
        (made.test_labels, arrays.test_labels),
    ):
        assert mapped.dtype == np.int32
        assert [made.classes[label] for label in mapped] == [int(label) for label in came]


@quick
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=12), st.data())
def test_any_labels_are_mapped_in_order_or_refused(train, data):
    test = data.draw(st.lists(st.integers(-6, 6), min_size=1, max_size=4))
    images = np.zeros((12, 2, 2), np.uint8)
    parts = images[: len(train)], train, images[: len(test)], test
    if len({*train}) == 1 or {*test} - {*train}:
        with pytest.raises(DataError, match=r"dataset\.(train|test)_labels"):
            make_dataset("drawn", *parts)
        return
    made = make_dataset("drawn", *parts)
    assert made.classes == tuple(sorted({*train}))
    assert [made.classes[label] for label in made.train_labels] == train
    assert [made.classes[label] for label in made.test_labels] == test


def with_value(array, place, value):
    """The array with one value changed."""
    changed = array.copy()
    changed[place] = value
    return changed


ROWS = given_arrays((7,), np.float32)
PIXELS = given_arrays()
FLOATS = given_arrays((5, 4, 1), np.float32)
WRONG = {
    "labels in a column": (
        PIXELS,
        {"train_labels": PIXELS.train_labels[:, None]},
        r"train_labels are int64\[12, 1\]; .*labels\[:, 0\] of a column",
    ),
    "one-hot labels": (
        PIXELS,
        {"train_labels": np.eye(3)[PIXELS.train_labels]},
        r"train_labels are float64\[12, 3\]; .*labels\.argmax\(1\) of one-hot rows",
    ),
    "float labels": (
        PIXELS,
        {"test_labels": PIXELS.test_labels / 1.0},
        r"test_labels are float64\[6\]; .*labels\.astype\(int\)",
    ),
    "names for labels": (
        PIXELS,
        {"train_labels": ["cat", "dog"] * 6},
        r"train_labels are <U3\[12\]; .*np\.unique\(labels, return_inverse=True",
    ),
    "labels that may be missing": (
        PIXELS,
        {"train_labels": [0, None] * 6},
        r"train_labels are object\[12\]; give integers",
    ),
    "true and false": (
        PIXELS,
        {"train_labels": PIXELS.train_labels > 1},
        r"train_labels are bool\[12\]; give integers",
    ),
    "a label for none": (
        PIXELS,
        {"train_labels": PIXELS.train_labels[:-1]},
        "train_labels are 11 for 12 samples; give one for each",
    ),
    "an image for no label": (
        PIXELS,
        {"test_images": PIXELS.test_images[:-1]},
        "test_labels are 6 for 5 samples; give one for each",
    ),
    "labels beyond 64 bits": (
        PIXELS,
        {"train_labels": np.full(12, 2**63, np.uint64)},
        "train_labels have 9223372036854775808; give integers of at most",
    ),
    "one class": (
        PIXELS,
        {"train_labels": [3] * 12, "test_labels": [3] * 6},
        "train_labels are all 3; give examples of at least two classes",
    ),
    "a test label that training lacks": (
        PIXELS,
        {"test_labels": [0, 1, 9, 0, 1, 9]},
        "test_labels have 9 at 2, and the 3 labels of the training examples, from 0 to 2, do not",
    ),
    "channels first": (
        PIXELS,
        {"train_images": np.zeros((12, 1, 28, 28), np.uint8)},
        r"train_images are uint8\[12, 1, 28, 28\], .*np\.moveaxis\(images, 1, -1\)",
    ),
    "colours first": (
        PIXELS,
        {"test_images": np.zeros((6, 3, 32, 32), np.float32)},
        r"test_images are float32\[6, 3, 32, 32\], which looks like channels first",
    ),
    "13 bands first": (
        PIXELS,
        {"train_images": np.zeros((12, 13, 64, 64), np.uint8)},
        "which looks like channels first",
    ),
    "test images of another size": (
        PIXELS,
        {"test_images": np.zeros((6, 4, 5), np.uint8)},
        r"test_images are uint8\[6, 4, 5, 1\] and train_images uint8\[12, 5, 4, 1\]; give samples",
    ),
    "floats to test bytes": (
        PIXELS,
        {"test_images": PIXELS.test_images / 255},
        r"test_images are float32\[6, 5, 4, 1\] and train_images uint8",
    ),
    "no test images": (
        PIXELS,
        {"test_images": PIXELS.test_images[:0], "test_labels": []},
        r"test_images are uint8\[0, 5, 4\], which is nothing; give at least one",
    ),
    "no training images": (
        PIXELS,
        {"train_images": PIXELS.train_images[:0]},
        r"train_images are uint8\[0, 5, 4\], which is nothing",
    ),
    "images without pixels": (
        PIXELS,
        {"train_images": np.zeros((12, 0, 4), np.uint8)},
        r"train_images are uint8\[12, 0, 4\], which is nothing",
    ),
    "not a number": (
        FLOATS,
        {"train_images": with_value(FLOATS.train_images, (7, 2, 3, 0), np.nan)},
        r"train_images have nan at \[7, 2, 3, 0\]; leave that sample out",
    ),
    "infinite in a row": (
        ROWS,
        {"test_images": with_value(ROWS.test_images, (1, 6), -np.inf)},
        r"test_images have -inf at \[1, 6\]",
    ),
    "beyond 32 bits": (
        ROWS,
        {"train_images": np.full((12, 7), 1e300)},
        r"train_images have inf at \[0, 0\]; .*finite float32 numbers",
    ),
    "whole numbers for pixels": (
        PIXELS,
        {"train_images": PIXELS.train_images.astype(int)},
        r"are int64\[12, 5, 4\]; .*astype\('uint8'\).*'float32'",
    ),
    "complex pixels": (PIXELS, {"train_images": PIXELS.train_images * 1j}, "are complex128"),
    "black and white": (PIXELS, {"train_images": PIXELS.train_images > 9}, r"are bool\[12, 5, 4\]"),
    "bytes in rows": (
        PIXELS,
        {"train_images": np.zeros((12, 20), np.uint8)},
        r"train_images are uint8\[12, 20\]; give bytes as \[n, rows, columns\] or",
    ),
    "one axis": (PIXELS, {"train_images": np.zeros(12)}, r"are float64\[12\]; give floats as"),
    "films": (PIXELS, {"train_images": np.zeros((12, 9, 5, 4, 3), np.uint8)}, "give bytes as"),
    "nothing": (PIXELS, {"train_images": None}, r"train_images are object\[\]; give bytes"),
    "images of many sizes": (
        PIXELS,
        {"train_images": [[[1]], [[1, 2]]]},
        "train_images make no array .*; give a NumPy array",
    ),
    "masked values": (
        ROWS,
        {"train_images": np.ma.masked_less(ROWS.train_images, 100)},
        "train_images are masked in places; leave those samples out, or fill them",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_array_is_one_line_that_names_it(case):
    arrays, changes, words = WRONG[case]
    with pytest.raises(DataError, match=words) as error:
        dataclasses.replace(arrays, **changes).make()
    assert str(error.value).startswith("dataset.")
    assert str(error.value).isprintable()
    assert "; " in str(error.value)


@pytest.mark.parametrize("name", [None, "", "two\nlines", 7])
def test_a_name_is_one_line_of_text(name):
    with pytest.raises(DataError, match=r"dataset\.name is .*; give a text"):
        make_dataset(name, *vars(PIXELS).values())


def test_a_dataset_that_was_made_is_left_as_it_is_with_its_classes():
    made = given_arrays(labels=(26, 1, 13)).make()
    again = check_dataset(made)
    assert again.classes == (1, 13, 26)
    for here, there in zip(again, made, strict=True):
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"train_images": np.zeros((12, 1, 28, 28), np.uint8)},
            r"dataset\.train_images are .*chann",
        ),
        ({"train_labels": np.full(12, -1)}, r"dataset\.train_labels are all -1"),
        ({"test_labels": np.full(6, 3)}, r"dataset\.test_labels have 3 at 0"),
        (
            {"train_labels": np.resize([0, 1], 12), "test_labels": np.zeros(6, int)},
            r"dataset\.classes is \(0, 1, 2\), and the training labels are \(0, 1\); make it with",
        ),
        (
            {"classes": 3},
            r"dataset\.classes is 3, and the training labels are \(0, 1, 2\); make it wi",
        ),
    ],
)
def test_what_was_changed_in_a_dataset_is_checked_again(changes, words):
    with pytest.raises(DataError, match=words):
        check_dataset(given_arrays().make()._replace(**changes))


@pytest.mark.parametrize("other", [None, (1, 2, 3, 4), "mnist"])
def test_what_is_no_dataset_says_how_to_make_one(other):
    with pytest.raises(DataError, match=r"no Dataset; make it with data\.dataset\.make_dataset\("):
        check_dataset(other)


def test_float_images_in_unit_range_are_not_divided_by_255():
    """The same pictures as bytes and as floats are the same to the model."""
    pixels, normalization = given_arrays((5, 4, 3)), NormalizationSpec((0.4, 0.5, 0.6), (0.3,))
    scaled = dataclasses.replace(
        pixels,
        train_images=np.float32(pixels.train_images) / 255,
        test_images=np.float32(pixels.test_images) / 255,
    )
    seen = []
    for arrays in (pixels, scaled):
        data = make_federated(arrays.make(), [np.arange(NUM_TRAIN)], normalization)
        seen.append(np.asarray(data.normalise(data.images)))
    assert data.images.dtype == data.test_images.dtype == np.float32
    assert_close(*seen)
    assert np.ptp(seen[0]) > 3


def test_a_row_of_a_table_is_normalised_by_its_columns():
    mean, std = tuple(np.linspace(-1, 1, 7).tolist()), (0.5, 1.0, 2.0, 0.5, 1.0, 2.0, 4.0)
    data = make_federated(ROWS.make(), [np.arange(NUM_TRAIN)], NormalizationSpec(mean, std))
    expected = (ROWS.train_images.astype(np.float64) - mean) / std
    assert_close(data.normalise(data.images), expected)


def hash_of(**changes):
    """The hash of a small data set in which something may be changed."""
    made = dataclasses.replace(PIXELS, **changes).make()
    return make_federated(made, [np.arange(NUM_TRAIN)], NormalizationSpec()).sha256()


def test_the_hash_is_that_of_all_images_and_labels_and_nothing_else():
    plain = hash_of()
    assert plain == hash_of(train_images=PIXELS.train_images[..., None].copy(order="F"))
    other_names = {"train_labels": PIXELS.train_labels + 7, "test_labels": PIXELS.test_labels + 7}
    assert plain == hash_of(**other_names)
    changed = [
        hash_of(train_images=np.zeros_like(PIXELS.train_images)),
        hash_of(train_images=with_value(PIXELS.train_images, (0, 0, 0), 1)),
        hash_of(test_images=with_value(PIXELS.test_images, (-1, -1, -1), 1)),
        hash_of(train_labels=PIXELS.train_labels[::-1]),
        hash_of(test_labels=PIXELS.test_labels[::-1]),
        hash_of(
            train_images=PIXELS.train_images.reshape(-1, 4, 5),
            test_images=PIXELS.test_images.reshape(-1, 4, 5),
        ),
        hash_of(
            train_images=np.float32(PIXELS.train_images), test_images=np.float32(PIXELS.test_images)
        ),
    ]
    assert len({plain, *changed}) == 1 + len(changed)
