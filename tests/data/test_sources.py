"""Data sources: what comes out is what was published, and nothing comes out of a damaged file."""

import gzip
import hashlib
import io
import pickle
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

import cefl_jax.data
from cefl_jax.data import idx, sources
from cefl_jax.data.assets import make_fashion_mnist_12k
from cefl_jax.data.dataset import DataError, make_dataset
from tests.compare import assert_close
from tests.data.examples import idx_bytes

FASHION_MNIST = Path(sources.INSTALLED_FOLDERS["fashion_mnist"])
needs_fashion_mnist = pytest.mark.skipif(
    not FASHION_MNIST.is_dir(), reason=f"{FASHION_MNIST} is absent"
)


def write_set(
    folder,
    mark="-",
    pack=bytes,
    end="",
    num_train=30,
    num_test=10,
    *,
    labels=range(10),
    parts=("train", "t10k"),
):
    """Writes four small files; returns their arrays under the names of the files."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True, parents=True)
    content = {}
    for part, count in zip(parts, (num_train, num_test), strict=True):
        content[f"{part}-images{mark}idx3-ubyte{end}"] = rng.integers(
            0, 256, (count, 5, 4), np.uint8
        )
        content[f"{part}-labels{mark}idx1-ubyte{end}"] = rng.permutation(
            np.resize(np.uint8(labels), count)
        )
    for name, array in content.items():
        (folder / name).write_bytes(pack(idx_bytes(array)))
    return content


def fails_in_one_line(name, path=None, match=None):
    with pytest.raises(DataError, match=match) as error:
        sources.load(name, path)
    assert str(error.value).startswith("data.")
    assert "\n" not in str(error.value)


def assert_is_dataset(dataset, shape, num_train, num_test):
    for images, labels, count in (
        (dataset.train_images, dataset.train_labels, num_train),
        (dataset.test_images, dataset.test_labels, num_test),
    ):
        assert (images.dtype, images.shape) == (np.uint8, (count, *shape, 1))
        assert (labels.dtype, labels.shape) == (np.int32, (count,))
        assert set(np.unique(labels)) == set(range(dataset.num_classes))


def test_the_extract_is_whole():
    dataset = sources.load("fashion_mnist_12k")
    assert dataset.name == "fashion_mnist_12k"
    assert dataset.num_classes == 10
    assert_is_dataset(dataset, (28, 28), 10_000, 2_000)
    # Fashion-MNIST is balanced, and its order is random: about 1000 of each label in 10,000.
    assert abs(np.bincount(dataset.train_labels) - 1000).max() < 4.5 * 30


@needs_fashion_mnist
def test_the_extract_is_the_beginning_of_fashion_mnist():
    extract, whole = sources.load("fashion_mnist_12k"), sources.load("fashion_mnist")
    assert_is_dataset(whole, (28, 28), 60_000, 10_000)
    assert set(np.bincount(whole.train_labels)) == {6000}
    assert set(np.bincount(whole.test_labels)) == {1000}
    for field in ("train_images", "train_labels", "test_images", "test_labels"):
        part = getattr(extract, field)
        np.testing.assert_array_equal(part, getattr(whole, field)[: len(part)])


@needs_fashion_mnist
@pytest.mark.skipif(
    not zlib.ZLIB_RUNTIME_VERSION.startswith(("1.2.", "1.3."))
    or "ng" in zlib.ZLIB_RUNTIME_VERSION
    or sys.platform == "win32",
    reason="another zlib compresses into other bytes",
)
def test_the_extract_can_be_made_again_byte_for_byte():
    assert make_fashion_mnist_12k.make_extract() == sources.EXTRACT.read_bytes()


@pytest.mark.parametrize("place", [0, 1000, 2_500_000, -1])
def test_a_flipped_bit_in_the_extract_is_noticed(tmp_path, monkeypatch, place):
    content = bytearray(sources.EXTRACT.read_bytes())
    content[place] ^= 0x10
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(content)
    monkeypatch.setattr(sources, "EXTRACT", damaged)
    fails_in_one_line("fashion_mnist_12k", match=r"damaged\.npz has SHA-256 .*reinstall cefl_jax")


def test_a_missing_extract_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "EXTRACT", tmp_path / "absent.npz")
    fails_in_one_line("fashion_mnist_12k", match=r"absent\.npz cannot be read .*reinstall cefl_jax")


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_nothing_is_unpickled_even_from_an_extract_with_the_right_hash(tmp_path, monkeypatch):
    content, sprung = io.BytesIO(), tmp_path / "sprung"
    np.savez(content, train_images=np.array([Trap(sprung)], object))
    pickle.loads(pickle.dumps(Trap(sprung)))  # or the trap would not be one
    sprung.unlink()
    file = tmp_path / "trap.npz"
    file.write_bytes(content.getvalue())
    monkeypatch.setattr(sources, "EXTRACT", file)
    monkeypatch.setattr(sources, "EXTRACT_SHA256", hashlib.sha256(content.getvalue()).hexdigest())
    with pytest.raises(ValueError, match="allow_pickle=False"):
        sources.load("fashion_mnist_12k")
    assert not sprung.exists()


def test_the_extract_loads_from_a_package_that_is_no_folder(tmp_path):
    data = Path(cefl_jax.data.__file__).parent
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as package:
        package.writestr("cefl_jax/__init__.py", "")
        package.write(data.parent / "safe_read.py", "cefl_jax/safe_read.py")
        for file in [*data.glob("*.py"), *(data / "assets").iterdir()]:
            if file.is_file():
                package.write(file, Path("cefl_jax/data") / file.relative_to(data))
    program = (
        "import cefl_jax.data.sources as s; assert '.zip' in s.__file__; "
        "print(s.load('fashion_mnist_12k').train_images.shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(archive)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("(10000, 28, 28, 1)", "")


def test_digits_keep_their_order_and_fill_the_range_of_a_byte():
    published = pytest.importorskip("sklearn.datasets").load_digits()
    dataset = sources.load("digits")
    assert_is_dataset(dataset, (8, 8), 1437, 360)
    images = np.concatenate([dataset.train_images, dataset.test_images])[..., 0]
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    np.testing.assert_array_equal(labels, published.target)
    assert_close(images / 255, published.images / 16, 0, atol=0.5 / 255 + 1e-9)
    assert images.max() == 255


def test_digits_without_scikit_learn_name_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    fails_in_one_line("digits", match=r"install cefl_jax\[digits\]")


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"data\.name is 'mnits'; .*digits, fashion_mnist, mnist"):
        sources.load("mnits")


@pytest.mark.parametrize("name", ["fashion_mnist_12k", "digits"])
def test_a_path_that_nothing_would_read_is_refused(name):
    fails_in_one_line(name, "somewhere", match="'somewhere', but .* not read from a folder")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize(
    ("pack", "end"), [(bytes, ""), (gzip.compress, ".gz"), (gzip.compress, ""), (bytes, ".gz")]
)
def test_a_folder_is_read_under_all_its_names(tmp_path, name, mark, pack, end):
    content = write_set(tmp_path, mark, pack, end)
    dataset = sources.load(name, str(tmp_path))
    assert dataset.name == name
    assert_is_dataset(dataset, (5, 4), 30, 10)
    fields = ("train_images", "train_labels", "test_images", "test_labels")
    for field, array in zip(fields, content.values(), strict=True):
        np.testing.assert_array_equal(
            getattr(dataset, field).squeeze(-1) if array.ndim == 3 else getattr(dataset, field),
            array,
        )


def test_mnist_without_a_path_and_folders_without_files_name_the_remedy(tmp_path, monkeypatch):
    fails_in_one_line("mnist", match=r"data\.path is not set.*set data\.path to the folder")
    fails_in_one_line("mnist", "", match=r"data\.path is not set")
    fails_in_one_line("mnist", tmp_path / "absent", match="no folder .*absent")
    fails_in_one_line("mnist", "~no.such.user/mnist", match="no folder ~no.such.user/mnist")
    fails_in_one_line("mnist", "a\nb\0", match="no folder .*a.b")
    fails_in_one_line("mnist", tmp_path, match="lacks train-images-idx3-ubyte, plain or .gz")
    monkeypatch.setitem(sources.INSTALLED_FOLDERS, "fashion_mnist", str(tmp_path / "absent"))
    fails_in_one_line("fashion_mnist", match="install Debian's dataset-fashion-mnist or set data")


@pytest.mark.parametrize(
    "missing",
    [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ],
)
def test_each_of_the_four_files_is_needed(tmp_path, missing):
    write_set(tmp_path)
    (tmp_path / missing).unlink()
    fails_in_one_line("mnist", tmp_path, match=f"lacks {missing}")
    (tmp_path / missing).mkdir()
    fails_in_one_line("mnist", tmp_path, match=f"lacks {missing}")


def test_files_that_do_not_fit_together_are_refused(tmp_path):
    labels = tmp_path / "train-labels-idx1-ubyte"
    write_set(tmp_path)
    labels.write_bytes(idx_bytes(np.zeros(29, np.uint8)))
    fails_in_one_line("mnist", tmp_path, match="train_labels are 29 for 30 samples")
    labels.write_bytes(idx_bytes(np.arange(30, dtype=np.uint8) % 9))
    fails_in_one_line("mnist", tmp_path, match="test_labels have 9 at .*from 0 to 8, do not")
    write_set(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((10, 4, 5), np.uint8)))
    fails_in_one_line("mnist", tmp_path, match=r"test_images are uint8\[10, 4, 5, 1\] and trai")


@pytest.mark.parametrize("labels", [range(1, 27), range(62), (3, 7)])
def test_files_with_any_labels_and_number_of_classes_are_taken(tmp_path, labels):
    content = write_set(tmp_path, num_train=124, num_test=62, labels=labels)
    dataset = sources.load("mnist", tmp_path)
    assert (dataset.classes, dataset.num_classes) == (tuple(labels), len(labels))
    came = content["train-labels-idx1-ubyte"]
    np.testing.assert_array_equal(np.array(dataset.classes)[dataset.train_labels], came)


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("split", ["balanced", "byclass", "bymerge", "digits", "letters", "mnist"])
def test_emnist_is_found_under_its_own_names(tmp_path, split, end):
    """Beside the other splits, which upstream keeps in the same folder."""
    pack = gzip.compress if end else bytes
    for other in ("balanced", "letters", split):
        parts = [f"emnist-{other}-{part}" for part in ("train", "test")]
        labels = range(1, 27) if other == split else range(5)
        content = write_set(tmp_path, "-", pack, end, 52, 26, labels=labels, parts=parts)
    dataset = sources.load(f"emnist_{split}", tmp_path)
    assert dataset.name == f"emnist_{split}"
    assert_is_dataset(dataset, (5, 4), 52, 26)
    assert dataset.classes == tuple(range(1, 27))
    images = content[f"emnist-{split}-test-images-idx3-ubyte{end}"]
    np.testing.assert_array_equal(dataset.test_images[..., 0], images)


def test_under_another_name_emnist_is_named(tmp_path):
    write_set(tmp_path, parts=("emnist-letters-train", "emnist-letters-test"))
    fails_in_one_line(
        "mnist",
        tmp_path,
        match=r"lacks train-images-idx3-ubyte, plain or \.gz; set "
        "data.name='emnist_letters' for the files there",
    )
    fails_in_one_line("emnist_digits", tmp_path, match="lacks emnist-digits-train-images")
    (tmp_path / "emnist-letters-test-labels-idx1-ubyte").unlink()
    fails_in_one_line("emnist_letters", tmp_path, match="test-labels-idx1-ubyte, .*; set data.path")


@pytest.mark.parametrize(
    ("name", "below", "parts"),
    [
        ("mnist", "MNIST/raw", ("train", "t10k")),
        ("fashion_mnist", "FashionMNIST/raw", ("train", "t10k")),
        ("emnist_letters", "EMNIST/raw", ("emnist-letters-train", "emnist-letters-test")),
    ],
)
def test_a_folder_of_torchvision_is_read(tmp_path, name, below, parts):
    """That which it was given, that of the data set in it, or the innermost."""
    folder = tmp_path / below
    for other in ("MNIST/raw", "FashionMNIST/raw", "EMNIST/raw"):
        if other != below:
            write_set(tmp_path / other, labels=range(3))
    content = write_set(folder, parts=parts)
    for place in (tmp_path, folder.parent, folder):
        dataset = sources.load(name, place)
        images = content[f"{parts[0]}-images-idx3-ubyte"]
        np.testing.assert_array_equal(dataset.train_images[..., 0], images)
    (folder / f"{parts[1]}-labels-idx1-ubyte").unlink()
    fails_in_one_line(name, tmp_path, match=f"{below} lacks {parts[1]}-labels-idx1-ubyte")


def test_an_emnist_of_700_000_images_is_within_the_limit():
    """EMNIST ByClass: 697,932 images of 28 x 28."""
    assert idx.MAX_BYTES > 697_932 * 28 * 28


@pytest.mark.parametrize(("share", "size"), [(0.1, 4), (0.5, 18), (1e-9, 1), (0.6, 22)])
def test_hold_out_splits_the_training_examples_in_two(share, size):
    labels = np.arange(36, dtype=np.int32) % 3
    images = np.arange(36, dtype=np.uint8).reshape(-1, 1, 1, 1)
    whole = make_dataset("numbers", images, 5 + labels, images[:5], 5 + labels[:5])
    part = sources.hold_out(whole, share, seed=4)
    train, held = part.train_images.ravel().tolist(), part.test_images.ravel().tolist()
    assert len(held) == size
    assert sorted(train + held) == list(range(36))
    assert (train, held) == (sorted(train), sorted(held))
    assert part.test_labels.tolist() == [number % 3 for number in held]
    assert part.train_labels.tolist() == [number % 3 for number in train]
    assert part.classes == (5, 6, 7)
    again, other = (sources.hold_out(whole, share, seed) for seed in (4, 5))
    assert again.test_images.ravel().tolist() == held
    assert other.test_images.ravel().tolist() != held


def test_hold_out_refuses_to_take_a_class_whole():
    labels = np.arange(10) == 3
    images = np.zeros((10, 1, 1), np.uint8)
    whole = make_dataset("rare", images, 5 + labels, images, 5 + labels)
    with pytest.raises(DataError, match=r"^data\.validation_share=0\.9: .* the label 6; "):
        sources.hold_out(whole, 0.9, seed=0)
    assert sources.hold_out(whole, 0.0, seed=0) is whole
