"""Where the examples come from: the extract that ships inside, scikit-learn, or IDX files."""

import hashlib
import importlib.resources
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cefl_jax.data.dataset import DataError, Dataset, make_dataset
from cefl_jax.data.idx import read_idx
from cefl_jax.safe_read import expand_user


class _Files(NamedTuple):
    """How the four IDX files of a data set go by name, as upstream and as torchvision keep them."""

    folder: str  # torchvision's, with the files in its folder `raw`
    start: str = ""  # of every file's name
    test: str = "t10k"  # in the names of the test files


EMNIST_SPLITS = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")

IDX_SETS = {
    "fashion_mnist": _Files("FashionMNIST"),
    "mnist": _Files("MNIST"),
    **{f"emnist_{one}": _Files("EMNIST", f"emnist-{one}-", "test") for one in EMNIST_SPLITS},
}

KNOWN = ("fashion_mnist_12k", "digits", *IDX_SETS)

EXTRACT = importlib.resources.files("cefl_jax.data") / "assets" / "fashion_mnist_12k.npz"
EXTRACT_SHA256 = "d2e3082e52dc42e8731b36c46651bc201c3960ae50470802125daac2de29c144"
"""Of the file's bytes; `assets/make_fashion_mnist_12k.py` makes them."""

INSTALLED_FOLDERS = {"fashion_mnist": "/usr/share/datasets/fashion-mnist"}
"""Where Debian's package dataset-fashion-mnist puts its files."""

DIGITS_TRAIN = 1437
"""The first 1437 of the 1797 digits train, the last 360 test."""

HOLD_OUT = 1  # beside the seed, so that the partition draws other numbers


def load(name: str, path: str | Path | None = None) -> Dataset:
    """Reads the data set of a name, and checks all of it.

    - `fashion_mnist_12k`: the first 10,000 training and the first 2,000 test images of
      Fashion-MNIST, in upstream order; ships inside the package.
    - `digits`: scikit-learn's 8 x 8 digits, 0..16 scaled to 0..255 and rounded. Their order is
      kept: the first 1,437 train and the last 360 test, neither shuffled nor stratified.
    - `fashion_mnist`, `mnist`: four IDX files in the folder `path`, plain or gzipped, named as
      upstream (`train-images-idx3-ubyte`) or with a dot (`train-images.idx3-ubyte`). Without a
      path, fashion_mnist is taken from where Debian's dataset-fashion-mnist installs it.
    - `emnist_balanced`, `emnist_byclass`, `emnist_bymerge`, `emnist_digits`, `emnist_letters`,
      `emnist_mnist`: likewise, named as upstream (`emnist-letters-train-images-idx3-ubyte`,
      `emnist-letters-test-images-idx3-ubyte`). Their images stay as in the files, on their side.

    `path` may also be the folder that torchvision was given, or that of the data set in it: the
    files are then in `MNIST/raw`, `FashionMNIST/raw` or `EMNIST/raw` there. What the files hold is
    the data set: images of any size, any number of classes, any labels (`make_dataset`).

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
    if name in IDX_SETS:
        return _from_folder(name, path or INSTALLED_FOLDERS.get(name))
    if path:
        raise DataError(
            f"data.path is {str(path)!r}, but {name} is not read from a folder; leave "
            "data.path unset or choose another data.name"
        )
    return _digits() if name == "digits" else _fashion_mnist_12k()


def hold_out(dataset: Dataset, share: float, seed: int) -> Dataset:
    """Returns a data set whose test examples are a random share of its training examples.

    Settings chosen by them are not chosen on the test set. Both parts keep the examples' order; the
    one held out has at least one example, and leaves at least one.

    Args:
      dataset: Dataset of two or more training examples.
      share: of the training examples, 0 < share < 1; or 0, for the data set itself.
      seed: which examples are held out.
    Returns:
      Dataset.
    Raises:
      DataError: where all examples of a class are held out.
    """
    if not share:
        return dataset
    num_examples = len(dataset.train_labels)
    size = min(max(round(share * num_examples), 1), num_examples - 1)
    chosen = np.random.default_rng((seed, HOLD_OUT)).permutation(num_examples)[:size]
    held = np.isin(np.arange(num_examples), chosen)
    images, labels = dataset.train_images, np.array(dataset.classes)[dataset.train_labels]
    lost = np.setdiff1d(labels[held], labels[~held])
    if lost.size:
        raise DataError(
            f"data.validation_share={share:g}: with seed={seed} it holds out all "
            f"training examples of the label {lost[0]}; lower it, or change the seed"
        )
    return make_dataset(dataset.name, images[~held], labels[~held], images[held], labels[held])


def _fashion_mnist_12k():
    """The extract, only if every byte of it is as it was published."""
    try:
        content = EXTRACT.read_bytes()
    except OSError as error:
        raise DataError(
            f"data.name: the package's own {EXTRACT} cannot be read ({error}); reinstall cefl_jax"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != EXTRACT_SHA256:
        raise DataError(
            f"data.name: the package's own {EXTRACT} has SHA-256 {digest}, not "
            f"{EXTRACT_SHA256}; reinstall cefl_jax"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return make_dataset("fashion_mnist_12k", **arrays)


def _digits():
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "data.name: digits comes from scikit-learn, which cannot be imported "
            f"({error}); install cefl_jax[digits]"
        ) from error
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return make_dataset(
        "digits",
        images[:DIGITS_TRAIN],
        digits.target[:DIGITS_TRAIN],
        images[DIGITS_TRAIN:],
        digits.target[DIGITS_TRAIN:],
    )


def _from_folder(name, path):
    remedy = (
        "install Debian's dataset-fashion-mnist or set data.path"
        if name == "fashion_mnist"
        else "set data.path"
    ) + " to the folder of the four IDX files"
    if path is None:
        raise DataError(f"data.path is not set, and {name} is not installed; {remedy}")
    folder, files = Path(expand_user(path)), IDX_SETS[name]
    if not folder.is_dir():
        raise DataError(f"data.path: there is no folder {folder} to read {name} from; {remedy}")
    folder = _place(folder, files)
    arrays = [
        read_idx(
            _find(folder, f"{files.start}{part}-{kind}", f"idx{num_axes}-ubyte", remedy), num_axes
        )
        for part in ("train", files.test)
        for kind, num_axes in (("images", 3), ("labels", 1))
    ]
    try:
        return make_dataset(name, *arrays)
    except DataError as error:
        raise DataError(f"data.path: {folder}: {error}; replace the files by one set") from error


def _place(folder, files):
    """The folder itself, or that of torchvision below it which has the training images."""
    places = folder, folder / files.folder / "raw", folder / "raw"
    for place in places:
        if any(map(Path.is_file, _names(place, f"{files.start}train-images", "idx3-ubyte"))):
            return place
    return folder


def _find(folder, stem, kind, remedy):
    """The first of the names that a file goes by."""
    names = _names(folder, stem, kind)
    for file in names:
        if file.is_file():
            return file
    others = [
        name
        for name, files in IDX_SETS.items()
        if files.start
        and not stem.startswith(files.start)
        and any(folder.glob(f"{files.start}train-images*"))
    ]
    hint = f"set data.name={others[0]!r} for the files there" if others else remedy
    raise DataError(f"data.path: {folder} lacks {names[0].name}, plain or .gz; {hint}")


def _names(folder, stem, kind):
    return [folder / f"{stem}{mark}{kind}{end}" for mark in "-." for end in ("", ".gz")]
