"""Where the examples come from: the extract that ships inside, scikit-learn, or IDX files."""

import hashlib
import importlib.resources
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cefl_jax.data.idx import DataError, read_idx

KNOWN = ("fashion_mnist_12k", "digits", "fashion_mnist", "mnist")

EXTRACT = importlib.resources.files("cefl_jax.data") / "assets" / "fashion_mnist_12k.npz"
EXTRACT_SHA256 = "d2e3082e52dc42e8731b36c46651bc201c3960ae50470802125daac2de29c144"
"""Of the file's bytes; `assets/make_fashion_mnist_12k.py` makes them."""

INSTALLED_FOLDERS = {"fashion_mnist": "/usr/share/datasets/fashion-mnist"}
"""Where Debian's package dataset-fashion-mnist puts its files."""

DIGITS_TRAIN = 1437
"""The first 1437 of the 1797 digits train, the last 360 test."""

HOLD_OUT = 1  # beside the seed, so that the partition draws other numbers

_NUM_CLASSES = 10


class Dataset(NamedTuple):
    """Images with their labels, as they came; no shuffling, no normalisation."""

    name: str
    train_images: np.ndarray  # u8[n, H, W, 1], 0 to 255
    train_labels: np.ndarray  # i32[n], 0 to Y - 1
    test_images: np.ndarray  # u8[t, H, W, 1]
    test_labels: np.ndarray  # i32[t]
    num_classes: int  # Y


def load(name: str, path: str | Path | None = None) -> Dataset:
    """The data set of a name, checked.

    - `fashion_mnist_12k`: the first 10,000 training and the first 2,000 test images of
      Fashion-MNIST, in upstream order; ships inside the package.
    - `digits`: scikit-learn's 8 x 8 digits, 0..16 scaled to 0..255 and rounded. Their order is
      kept: the first 1,437 train and the last 360 test, neither shuffled nor stratified.
    - `fashion_mnist`, `mnist`: four IDX files in the folder `path`, plain or gzipped, named as
      upstream (`train-images-idx3-ubyte`) or with a dot (`train-images.idx3-ubyte`). Without a
      path, fashion_mnist is taken from where Debian's dataset-fashion-mnist installs it.

    Args:
      name: data.name, one of KNOWN.
      path: data.path, the folder of IDX files; None or empty for none.
    Returns:
      Dataset.
    Raises:
      ValueError: an unknown name.
      DataError: a file that is missing, or not what it should be; a path that nothing would read.
    """
    if name not in KNOWN:
        raise ValueError(f"data.name is {name!r}; it must be one of {', '.join(KNOWN)}")
    if name in ("fashion_mnist", "mnist"):
        return _from_folder(name, path or INSTALLED_FOLDERS.get(name))
    if path:
        raise DataError(f"data.path is {str(path)!r}, but {name} is not read from a folder; leave "
                        "data.path unset or choose another data.name")
    return _digits() if name == "digits" else _fashion_mnist_12k()


def hold_out(dataset: Dataset, share: float, seed: int) -> Dataset:
    """Returns a data set whose test examples are a random share of its training examples.

    Settings chosen by them are not chosen on the test set. Both parts keep the examples' order; the
    one held out has at least one example, and leaves at least one.

    Args:
      dataset: Dataset of two or more training examples.
      share: of the training examples, 0 < share < 1.
      seed: which examples are held out.
    Returns:
      Dataset.
    """
    num_examples = len(dataset.train_labels)
    size = min(max(round(share * num_examples), 1), num_examples - 1)
    chosen = np.random.default_rng((seed, HOLD_OUT)).permutation(num_examples)[:size]
    held = np.isin(np.arange(num_examples), chosen)
    images, labels = dataset.train_images, dataset.train_labels
    return dataset._replace(
        train_images=images[~held],
        train_labels=labels[~held],
        test_images=images[held],
        test_labels=labels[held],
    )


def _fashion_mnist_12k():
    """The extract, only if every byte of it is as it was published."""
    try:
        content = EXTRACT.read_bytes()
    except OSError as error:
        raise DataError(f"data.name: the package's own {EXTRACT} cannot be read ({error}); "
                        "reinstall cefl_jax") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != EXTRACT_SHA256:
        raise DataError(f"data.name: the package's own {EXTRACT} has SHA-256 {digest}, not "
                        f"{EXTRACT_SHA256}; reinstall cefl_jax")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return _dataset("fashion_mnist_12k", **arrays)


def _digits():
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("data.name: digits comes from scikit-learn, which cannot be imported "
                        f"({error}); install cefl_jax[digits]") from error
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return _dataset("digits", images[:DIGITS_TRAIN], digits.target[:DIGITS_TRAIN],
                    images[DIGITS_TRAIN:], digits.target[DIGITS_TRAIN:])


def _from_folder(name, path):
    remedy = ("install Debian's dataset-fashion-mnist or set data.path" if name == "fashion_mnist"
              else "set data.path") + " to the folder of the four IDX files"
    if path is None:
        raise DataError(f"data.path is not set, and {name} is not installed; {remedy}")
    try:
        folder = Path(path).expanduser()
    except RuntimeError:                                       # no such user as in ~user
        folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"data.path: there is no folder {folder} to read {name} from; {remedy}")
    train_images, train_labels = _read_pair(folder, "train", remedy)
    test_images, test_labels = _read_pair(folder, "t10k", remedy)
    if train_images.shape[1:] != test_images.shape[1:]:
        raise DataError(f"data.path: images in {folder} train with {train_images.shape[1:]} pixels "
                        f"and test with {test_images.shape[1:]}; replace the files by one set")
    return _dataset(name, train_images, train_labels, test_images, test_labels)


def _read_pair(folder, part, remedy):
    """Images u8[n, H, W] and labels u8[n] of one part, "train" or "t10k", that fit together."""
    images = read_idx(_find(folder, f"{part}-images", "idx3-ubyte", remedy), num_axes=3)
    labels = read_idx(_find(folder, f"{part}-labels", "idx1-ubyte", remedy), num_axes=1)
    if len(images) != len(labels):
        raise DataError(f"data.path: {folder} holds {len(images)} {part} images but {len(labels)} "
                        "labels; replace the files by one set")
    if labels.max() >= _NUM_CLASSES:
        raise DataError(f"data.path: {folder} holds the {part} label {labels.max()}, above "
                        f"{_NUM_CLASSES - 1}; replace the file by a whole copy")
    return images, labels


def _find(folder, stem, kind, remedy):
    """The first of the names that a file goes by."""
    names = [f"{stem}{mark}{kind}{end}" for mark in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"data.path: {folder} lacks {names[0]}, plain or .gz; {remedy}")


def _dataset(name, train_images, train_labels, test_images, test_labels):
    """Adds the channel axis, and labels as JAX likes them."""
    return Dataset(name, train_images[..., None], train_labels.astype(np.int32),
                   test_images[..., None], test_labels.astype(np.int32), _NUM_CLASSES)
