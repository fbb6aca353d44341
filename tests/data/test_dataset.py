"""A data set of one's own: what it may be, and what is refused in one line, whoever made it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefl_jax.data.dataset import DataError, check_dataset, make_dataset
from cefl_jax.data.federated import make_federated
from cefl_jax.specs import NormalizationSpec
from tests.data.examples import quick

NUM_TRAIN, NUM_TEST = 12, 6


def make(arrays):
    """The Dataset of the arrays by their names."""
    return make_dataset("mine", **arrays)


def given_arrays(sample_shape=(5, 4), dtype=np.uint8, labels=(0, 1, 2)):
    """Arrays that nothing is wrong with, with every label in training and test."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, *sample_shape)).astype(dtype)
        arrays[f"{part}_labels"] = np.resize(labels, count)
    return arrays


@pytest.mark.parametrize(
    ("sample_shape", "dtype", "held"),
    [
        ((5, 4), np.uint8, (5, 4, 1)),
        ((3, 40, 4), np.uint8, (3, 40, 4)),  # wide, with a fourth channel
        ((5, 4), np.float64, (5, 4, 1)),
        ((5, 4, 3), np.float16, (5, 4, 3)),
        ((5, 4, 3), ">f4", (5, 4, 3)),
        ((1,), np.float32, (1,)),
    ],
)
def test_make_dataset_takes_images_of_any_size_and_rows_of_a_table(sample_shape, dtype, held):
    arrays = given_arrays(sample_shape, dtype)
    made = make(arrays)
    kind = np.uint8 if dtype == np.uint8 else np.float32
    assert (made.train_images.dtype, made.train_images.shape) == (kind, (NUM_TRAIN, *held))
    assert (made.test_images.dtype, made.test_images.shape) == (kind, (NUM_TEST, *held))
    expected = np.reshape(arrays["train_images"], made.train_images.shape)
    np.testing.assert_array_equal(made.train_images, expected.astype(kind))


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ((0, 1, 2), np.uint64),
        ((0, 1, 2), ">i4"),
        ((26, 1, 13), np.int8),
        ((2**62, -(2**62), 0), np.int64),
    ],
)
def test_make_dataset_takes_labels_of_any_integers(labels, kind):
    arrays = given_arrays(labels=labels)
    train, test = (arrays[name].astype(kind) for name in ("train_labels", "test_labels"))
    made = make(arrays | {"train_labels": train, "test_labels": test})
    assert made.classes == tuple(sorted(labels))
    assert made.train_labels.dtype == made.test_labels.dtype == np.int32
    np.testing.assert_array_equal(np.array(made.classes)[made.train_labels], train)


@quick
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=12), st.data())
def test_make_dataset_maps_labels_to_their_places_in_order_or_refuses_them(train, data):
    test = data.draw(st.lists(st.integers(-6, 6), min_size=1, max_size=4))
    images = np.zeros((12, 2, 2), np.uint8)
    parts = images[: len(train)], train, images[: len(test)], test
    if len({*train}) == 1 or {*test} - {*train}:
        with pytest.raises(DataError, match=r"dataset\.(train|test)_labels"):
            make_dataset("drawn", *parts)
        return
    made = make_dataset("drawn", *parts)
    assert (made.classes, made.num_classes) == (tuple(sorted({*train})), len({*train}))
    assert [made.classes[label] for label in made.train_labels] == train
    assert [made.classes[label] for label in made.test_labels] == test


def with_value(array, place, value):
    """The array with one value changed."""
    changed = array.copy()
    changed[place] = value
    return changed


def images(*shape, kind=np.uint8):
    return {"train_images": np.zeros((NUM_TRAIN, *shape), kind)}


ROWS, PIXELS, FLOATS = (
    given_arrays(*how) for how in (((7,), np.float32), (), ((5, 4, 1), np.float32))
)
KNOWN, ASKED = PIXELS["train_labels"], PIXELS["test_labels"]
HOLED = with_value(FLOATS["train_images"], (7, 2, 3, 0), np.nan)
ENDLESS = with_value(ROWS["test_images"], (1, 6), -np.inf)
MASKED = np.ma.masked_less(ROWS["train_images"], 100)
SAME = {"train_labels": [3] * 12, "test_labels": [3] * 6}
WRONG = [
    # Labels.
    (PIXELS, {"train_labels": KNOWN[:, None]}, r"int64\[12, 1\]; .*labels\[:, 0\] of a column"),
    (PIXELS, {"train_labels": np.eye(3)[KNOWN]}, r"float64\[12, 3\]; .*argmax\(1\) of one-hot row"),
    (PIXELS, {"test_labels": ASKED / 1.0}, r"are float64\[6\]; .*labels\.astype\(int\)"),
    (PIXELS, {"train_labels": ["a", "b"] * 6}, r"are <U1\[12\]; .*np\.unique\(labels, return_inv"),
    (PIXELS, {"train_labels": KNOWN > 1}, r"train_labels are bool\[12\]; give integers"),
    (PIXELS, {"train_labels": KNOWN[:-1]}, "train_labels are 11 for 12 samples; give one for each"),
    (
        PIXELS,
        {"test_images": PIXELS["test_images"][:-1]},
        "test_labels are 6 for 5 samples; give one",
    ),
    (PIXELS, {"train_labels": np.full(12, 2**63, np.uint64)}, "have 9223372036854775808; give int"),
    (PIXELS, SAME, "train_labels are all 3; give examples of at least two classes"),
    (PIXELS, {"test_labels": [0, 1, 9] * 2}, "have 9 at 2, and the 3 labels .*from 0 to 2, do not"),
    # Shapes of samples.
    (PIXELS, images(1, 28, 28), r"uint8\[12, 1, 28, 28\], .*np\.moveaxis\(images, 1, -1\)"),
    (PIXELS, images(3, 8, 8), "which looks like channels first"),
    (PIXELS, images(3, 32, 32, kind=np.float32), r"\[12, 3, 32, 32\], .* like channels first"),
    (PIXELS, images(4, 5), r"test_images are uint8\[6, 5, 4, 1\] and train_images uint8\[12, 4, "),
    (PIXELS, {"test_images": PIXELS["test_images"] / 255}, r"float32\[6, 5, .* and train_images u"),
    (PIXELS, {"test_images": np.zeros((0, 5, 4), np.uint8)}, "is nothing; give at least one"),
    (PIXELS, images(0, 4), r"train_images are uint8\[12, 0, 4\], which is nothing"),
    (
        PIXELS,
        images(20),
        r"train_images are uint8\[12, 20\]; give bytes as \[n, rows, columns\] or",
    ),
    # Values of samples.
    (FLOATS, {"train_images": HOLED}, r"train_images have nan at \[7, 2, 3, 0\]; leave that sampl"),
    (ROWS, {"test_images": ENDLESS}, r"test_images have -inf at \[1, 6\]"),
    (ROWS, {"train_images": np.full((12, 7), 1e300)}, r"have inf at \[0, 0\]; .*finite float32"),
    (PIXELS, images(5, 4, kind=int), r"are int64\[12, 5, 4\]; .*astype\('uint8'\).*'float32'"),
    (PIXELS, {"train_images": None}, r"train_images are object\[\]; give bytes"),
    (PIXELS, {"train_images": [[[1]], [[1, 2]]]}, "train_images make no array .*; give a NumPy"),
    (ROWS, {"train_images": MASKED}, "train_images are masked in places; leave those samples out"),
]


@pytest.mark.parametrize(("arrays", "changes", "words"), WRONG, ids=[case[2] for case in WRONG])
def test_make_dataset_names_the_array_that_is_wrong(arrays, changes, words):
    with pytest.raises(DataError, match=words) as error:
        make(arrays | changes)
    assert str(error.value).startswith("dataset.")
    assert str(error.value).isprintable()
    assert "; " in str(error.value)


@pytest.mark.parametrize("name", [None, "", "two\nlines", 7])
def test_make_dataset_needs_a_name_in_one_line(name):
    with pytest.raises(DataError, match=r"dataset\.name is .*; give a text"):
        make_dataset(name, **PIXELS)


def test_check_dataset_leaves_what_was_made_with_its_classes():
    made = make(given_arrays(labels=(26, 1, 13)))
    again = check_dataset(made)
    assert again.classes == (1, 13, 26)
    for here, there in zip(again, made, strict=True):
        np.testing.assert_array_equal(here, there)


TWO = {"train_labels": np.resize([0, 1], 12), "test_labels": np.zeros(6, int)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (images(1, 28, 28), r"dataset\.train_images are .*chann"),
        ({"train_labels": np.full(12, -1)}, r"dataset\.train_labels are all -1"),
        ({"test_labels": np.full(6, 3)}, r"dataset\.test_labels have 3 at 0"),
        (TWO, r"\.classes is \(0, 1, 2\), and the training labels are \(0, 1\); make it with"),
        ({"classes": 3}, r"\.classes is 3, and the training labels are \(0, 1, 2\); make it wi"),
    ],
)
def test_check_dataset_checks_again_what_was_changed(changes, words):
    with pytest.raises(DataError, match=words):
        check_dataset(make(PIXELS)._replace(**changes))


@pytest.mark.parametrize("other", [None, (1, 2, 3, 4), "mnist"])
def test_check_dataset_says_how_to_make_one(other):
    with pytest.raises(DataError, match=r"no Dataset; make it with data\.dataset\.make_dataset\("):
        check_dataset(other)


def hash_of(**changes):
    """The hash of a small data set in which something may be changed."""
    made = make(PIXELS | changes)
    return make_federated(made, [np.arange(NUM_TRAIN)], NormalizationSpec()).sha256()


def test_sha256_is_that_of_all_images_and_labels_and_nothing_else():
    train, test = PIXELS["train_images"], PIXELS["test_images"]
    plain = hash_of()
    assert plain == hash_of(train_images=train[..., None].copy(order="F"))
    assert plain == hash_of(train_labels=KNOWN + 7, test_labels=ASKED + 7)
    changed = [
        hash_of(train_images=with_value(train, (0, 0, 0), 1)),
        hash_of(test_images=with_value(test, (-1, -1, -1), 1)),
        hash_of(train_labels=KNOWN[::-1]),
        hash_of(test_labels=ASKED[::-1]),
        hash_of(train_images=train.reshape(-1, 4, 5), test_images=test.reshape(-1, 4, 5)),
        hash_of(train_images=np.float32(train), test_images=np.float32(test)),
    ]
    assert len({plain, *changed}) == 1 + len(changed)
