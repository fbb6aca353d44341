"""A data set in memory, checked where it is made, whoever makes it."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from cefl_jax.safe_read import one_line, show

MAX_CHANNELS = 4  # of an image of which nobody would ask whether its channels come first

MAX_LABEL = 2**63 - 1

AXES = {
    "u": "[n, rows, columns] or [n, rows, columns, channels]",
    "f": "[n, rows, columns, channels], [n, rows, columns], or [n, numbers] for rows of a table",
}
"""What a part of a data set may be, by the kind of its dtype."""

Samples = UInt8[np.ndarray, "n H W I"] | Float32[np.ndarray, "n *sample"]


class DataError(ValueError):
    """Data that are missing, corrupt or of another form; one line: field, what is wrong, remedy."""

    def __init__(self, line):
        super().__init__(one_line(line))


class Dataset(NamedTuple):
    """Samples with their labels, as `make_dataset` has checked them.

    Samples are images, u8 or f32[n, H, W, I], or rows of a table, f32[n, F]. Those of training and
    test are of one dtype and shape.
    """

    name: str
    train_images: Samples
    train_labels: Int32[np.ndarray, "n"]  # 0 to Y - 1
    test_images: Samples
    test_labels: Int32[np.ndarray, "t"]
    classes: tuple[int, ...]  # label y was classes[y] before; ascending

    @property
    def num_classes(self) -> int:
        """Y."""
        return len(self.classes)


def make_dataset(
    name: Any, train_images: Any, train_labels: Any, test_images: Any, test_labels: Any
) -> Dataset:
    """Makes a Dataset of arrays, and checks all of them.

    Samples are one of:

    - bytes, u8[n, H, W] or u8[n, H, W, I]: pixels, which the model later sees divided by 255 and
      normalised;
    - floats of any width, [n, H, W] or [n, H, W, I]: pixels that are taken as they are, which means
      only normalised, and held as f32;
    - floats [n, F]: rows of a table, likewise. Of the models `mlp` takes them.

    An image without an axis of channels gets one. Labels are integers of any value: the classes are
    the different labels of the training examples in ascending order, and label `classes[y]` becomes
    y, from 0 to Y - 1.

    Args:
      name: of the data set, a text; `build.build` refuses those of `sources.KNOWN` for other data.
      train_images: of n training examples, what NumPy makes an array of.
      train_labels: integers [n] of at least two values.
      test_images: of t test examples, of the dtype and shape of those of training.
      test_labels: integers [t], each of them the label of a training example too.
    Returns:
      Dataset.
    Raises:
      DataError: one line that says which array is wrong, where, and what to do.
    """
    if not isinstance(name, str) or not name or not name.isprintable():
        raise DataError(f"dataset.name is {show(name)}; give a text, which the run's files bear")
    parts = {"train_images": train_images, "test_images": test_images}
    train, test = (_samples(f"dataset.{field}", given) for field, given in parts.items())
    if (train.dtype, train.shape[1:]) != (test.dtype, test.shape[1:]):
        raise DataError(
            f"dataset.test_images are {_kind(test)} and train_images {_kind(train)}; "
            "give samples of one dtype and shape"
        )
    known = _labels("dataset.train_labels", train_labels, len(train))
    asked = _labels("dataset.test_labels", test_labels, len(test))
    classes, known = np.unique(known, return_inverse=True)
    if len(classes) < 2:
        raise DataError(
            f"dataset.train_labels are all {classes[0]}; give examples of at least two classes"
        )
    strange = np.flatnonzero(~np.isin(asked, classes))
    if strange.size:
        raise DataError(
            f"dataset.test_labels have {asked[strange[0]]} at {strange[0]}, and the "
            f"{len(classes)} labels of the training examples, from {classes[0]} to "
            f"{classes[-1]}, do not; leave that test example out, or train with the label"
        )
    asked = np.searchsorted(classes, asked)
    return Dataset(
        name, train, known.astype(np.int32), test, asked.astype(np.int32), tuple(classes.tolist())
    )


def check_dataset(dataset: Any) -> Dataset:
    """Returns a Dataset that is what `make_dataset` makes.

    Args:
      dataset: Dataset, possibly with fields that were replaced since it was made.
    Raises:
      DataError: as `make_dataset`, for anything else than a Dataset, and where `classes` are not
        those of the training labels.
    """
    remedy = (
        "make it with data.dataset.make_dataset(name, train_images, train_labels, "
        "test_images, test_labels)"
    )
    if not isinstance(dataset, Dataset):
        raise DataError(f"dataset is a {type(dataset).__name__} and no Dataset; {remedy}")
    made = make_dataset(*dataset[:-1])
    if not isinstance(dataset.classes, tuple) or made.classes != (*range(dataset.num_classes),):
        raise DataError(
            f"dataset.classes is {show(dataset.classes)}, and the training labels are "
            f"{show(made.classes)}; {remedy}"
        )
    return made._replace(classes=dataset.classes)


def _samples(field, given):
    """The samples of one part, u8[n, H, W, I] or f32[n, ...]."""
    samples = _array(field, given)
    kind = samples.dtype.kind
    if kind != "f" and samples.dtype != np.uint8:
        raise DataError(
            f"{field} are {_kind(samples)}; give bytes from 0 to 255 with "
            ".astype('uint8'), or numbers to be taken as they are with .astype('float32')"
        )
    if samples.ndim not in ((2, 3, 4) if kind == "f" else (3, 4)):
        raise DataError(
            f"{field} are {_kind(samples)}; give {'floats' if kind == 'f' else 'bytes'} as {AXES[kind]}"
        )
    if not samples.size:
        raise DataError(f"{field} are {_kind(samples)}, which is nothing; give at least one sample")
    if samples.ndim == 4 and _is_channel_first(*samples.shape[1:]):
        raise DataError(
            f"{field} are {_kind(samples)}, which looks like channels first; move them "
            "last with np.moveaxis(images, 1, -1), or where they are last already, "
            "exchange rows and columns"
        )
    if kind == "f":
        with np.errstate(over="ignore"):  # it is found in the next line
            samples = samples.astype(np.float32, copy=False)
        finite = np.isfinite(samples)
        if not finite.all():
            place = np.unravel_index(np.argmin(finite), finite.shape)
            raise DataError(
                f"{field} have {samples[place]} at {[*map(int, place)]}; leave that sample "
                "out, or give it finite float32 numbers"
            )
    return samples[..., None] if samples.ndim == 3 else samples


def _is_channel_first(rows, columns, channels):
    return channels > MAX_CHANNELS and rows < min(columns, channels)


def _labels(field, given, num_samples):
    """The labels of one part as they came, integers [num_samples]."""
    labels = _array(field, given)
    if labels.ndim != 1:
        raise DataError(
            f"{field} are {_kind(labels)}; give one for each sample in one axis: "
            "labels[:, 0] of a column, labels.argmax(1) of one-hot rows"
        )
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{field} are {_kind(labels)}; give integers: labels.astype(int) where they "
            "are whole, np.unique(labels, return_inverse=True)[1] of names"
        )
    if len(labels) != num_samples:
        raise DataError(f"{field} are {len(labels)} for {num_samples} samples; give one for each")
    if (labels > MAX_LABEL).any():
        raise DataError(f"{field} have {labels.max()}; give integers of at most {MAX_LABEL}")
    return labels.astype(np.int64)


def _array(field, given):
    """What was given as a NumPy array."""
    if np.ma.is_masked(given):
        raise DataError(f"{field} are masked in places; leave those samples out, or fill them")
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors elsewhere
        raise DataError(f"{field} make no array ({error!s:.200}); give a NumPy array") from error


def _kind(array):
    """Dtype and shape in an error message, such as uint8[200, 28, 28]."""
    return f"{array.dtype!s:.40}{[*array.shape]}"
