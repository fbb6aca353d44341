"""Data sources: what comes out is what was published, and nothing comes out of a damaged file."""

import gzip
import hashlib
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from cefl_jax.data import idx, sources
from cefl_jax.data.assets import make_fashion_mnist_12k
from cefl_jax.data.dataset import DataError, make_dataset
from tests.compare import assert_close
from tests.data.examples import idx_bytes

FASHION_MNIST = Path(sources.INSTALLED_FOLDERS["fashion_mnist"])
needs_fashion_mnist = pytest.mark.skipif(
    not FASHION_MNIST.is_dir(), reason=f"{FASHION_MNIST} is absent"
)


FIELDS = ("train_images", "train_labels", "test_images", "test_labels")
PARTS = {"mnist": ("train", "t10k"), "fashion_mnist": ("train", "t10k")} | {
    f"emnist_{split}": (f"emnist-{split}-train", f"emnist-{split}-test")
    for split in ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")
}


def write_set(folder, name="mnist", form="{}-{}", pack=bytes, labels=range(10)):
    """Writes four small files; returns their arrays, as the fields of a Dataset, by file name."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True, parents=True)
    content = {}
    for part, count in zip(PARTS[name], (62, 31), strict=True):
        images = rng.integers(0, 256, (count, 5, 4), np.uint8)
        known = rng.permutation(np.resize(np.uint8(labels), count))
        content[form.format(f"{part}-images", "idx3-ubyte")] = images
        content[form.format(f"{part}-labels", "idx1-ubyte")] = known
    for file, array in content.items():
        (folder / file).write_bytes(pack(idx_bytes(array)))
    return content


def refusal(name, path=None):
    """The one line that a data set is refused with."""
    with pytest.raises(DataError) as error:
        sources.load(name, path)
    assert str(error.value).startswith("data.")
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_holds(dataset, content):
    """The arrays of the files, labels by their classes."""
    for field, array in zip(FIELDS, content.values(), strict=True):
        got = getattr(dataset, field)
        if field.endswith("labels"):
            assert got.dtype == np.int32
            np.testing.assert_array_equal(np.array(dataset.classes)[got], array)
        else:
            np.testing.assert_array_equal(got, array[..., None], strict=True)


def assert_is_dataset(dataset, shape, num_train, num_test):
    for images, labels, count in (
        (dataset.train_images, dataset.train_labels, num_train),
        (dataset.test_images, dataset.test_labels, num_test),
    ):
        assert (images.dtype, images.shape) == (np.uint8, (count, *shape, 1))
        assert (labels.dtype, labels.shape) == (np.int32, (count,))
        assert {*np.unique(labels)} == {*range(dataset.num_classes)}


def test_load_extract_is_whole():
    dataset = sources.load("fashion_mnist_12k")
    assert dataset.name == "fashion_mnist_12k"
    assert dataset.num_classes == 10
    assert_is_dataset(dataset, (28, 28), 10_000, 2_000)
    # Fashion-MNIST is balanced, and its order is random: about 1000 of each label in 10,000.
    assert abs(np.bincount(dataset.train_labels) - 1000).max() < 4.5 * 30


@needs_fashion_mnist
def test_load_extract_is_the_beginning_of_fashion_mnist():
    extract, whole = sources.load("fashion_mnist_12k"), sources.load("fashion_mnist")
    assert_is_dataset(whole, (28, 28), 60_000, 10_000)
    assert set(np.bincount(whole.train_labels)) == {6000}
    assert set(np.bincount(whole.test_labels)) == {1000}
    for field in FIELDS:
        part = getattr(extract, field)
        np.testing.assert_array_equal(part, getattr(whole, field)[: len(part)])


@needs_fashion_mnist
@pytest.mark.skipif(
    not zlib.ZLIB_RUNTIME_VERSION.startswith(("1.2.", "1.3."))
    or "ng" in zlib.ZLIB_RUNTIME_VERSION
    or sys.platform == "win32",
    reason="another zlib compresses into other bytes",
)
def test_load_extract_can_be_made_again_byte_for_byte():
    assert make_fashion_mnist_12k.make_extract() == sources.EXTRACT.read_bytes()


@pytest.mark.parametrize("place", [0, 2_500_000, -1])
def test_load_notices_a_flipped_bit_in_the_extract(tmp_path, monkeypatch, place):
    content = bytearray(sources.EXTRACT.read_bytes())
    content[place] ^= 0x10
    monkeypatch.setattr(sources, "EXTRACT", tmp_path / "damaged.npz")
    sources.EXTRACT.write_bytes(content)
    line = refusal("fashion_mnist_12k")
    assert "damaged.npz has SHA-256 " in line
    assert line.endswith("reinstall cefl_jax")


def test_load_unpickles_nothing_even_from_an_extract_with_the_right_hash(tmp_path, monkeypatch):
    file = tmp_path / "pickled.npz"
    np.savez(file, train_images=np.array([None], object))
    monkeypatch.setattr(sources, "EXTRACT", file)
    monkeypatch.setattr(sources, "EXTRACT_SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    with pytest.raises(ValueError, match="allow_pickle=False"):
        sources.load("fashion_mnist_12k")


def test_load_of_digits_keeps_their_order_and_fill_the_range_of_a_byte():
    published = pytest.importorskip("sklearn.datasets").load_digits()
    dataset = sources.load("digits")
    assert_is_dataset(dataset, (8, 8), 1437, 360)
    images = np.concatenate([dataset.train_images, dataset.test_images])[..., 0]
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    np.testing.assert_array_equal(labels, published.target)
    assert_close(images / 255, published.images / 16, 0, atol=0.5 / 255 + 1e-9)
    assert images.max() == 255


EMNIST_HINT = "lacks train-images-idx3-ubyte, plain or .gz; set data.name='emnist_letters' for"


@pytest.mark.parametrize(
    ("name", "path", "words"),
    [
        ("fashion_mnist_12k", "somewhere", "'somewhere', but fashion_mnist_12k is not read from a"),
        ("mnist", None, "is not set, and mnist is not installed; set data.path to the folder"),
        ("fashion_mnist", None, "install Debian's dataset-fashion-mnist or set data"),
        ("mnist", "{}/absent", "there is no folder "),
        ("mnist", "~no.such.user/mnist", "there is no folder ~no.such.user/mnist"),
        ("mnist", "a\nb\0", "there is no folder a?b? "),
        ("mnist", "{}", "lacks train-images-idx3-ubyte, plain or .gz; set data.path to"),
        ("mnist", "{}/letters", EMNIST_HINT),
        ("emnist_digits", "{}/letters", "lacks emnist-digits-train-images-idx3-ubyte"),
        ("emnist_letters", "{}/letters", "letters-test-labels-idx1-ubyte, plain or .gz; set data"),
    ],
)
def test_load_says_which_path_is_needed(tmp_path, monkeypatch, name, path, words):
    monkeypatch.setitem(sources.INSTALLED_FOLDERS, "fashion_mnist", f"{tmp_path}/absent")
    write_set(tmp_path / "letters", "emnist_letters")
    (tmp_path / "letters" / "emnist-letters-test-labels-idx1-ubyte").unlink()
    assert words in refusal(name, path and path.format(tmp_path))


def test_load_of_digits_without_scikit_learn_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert "install cefl_jax[digits]" in refusal("digits")


def test_load_notices_a_missing_extract(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "EXTRACT", tmp_path / "absent.npz")
    assert "absent.npz cannot be read" in refusal("fashion_mnist_12k")


def test_load_refuses_an_unknown_name():
    with pytest.raises(ValueError, match=r"data\.name is 'mnits'; .*digits, fashion_mnist, mnist"):
        sources.load("mnits")


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("form", ["{}-{}", "{}.{}", "{}-{}.gz"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_load_finds_files_under_all_their_names(tmp_path, name, form, pack):
    """What tells gzip is not the name. EMNIST keeps other splits in the same folder."""
    beside = "emnist_balanced" if name != "emnist_balanced" else "emnist_digits"
    write_set(tmp_path, beside, form, pack, labels=range(5))
    content = write_set(tmp_path, name, form, pack, labels=range(1, 27))
    dataset = sources.load(name, str(tmp_path))
    assert (dataset.name, dataset.classes) == (name, (*range(1, 27),))
    assert_holds(dataset, content)


@pytest.mark.parametrize(
    ("name", "below"),
    [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("emnist_letters", "EMNIST")],
)
def test_load_reads_a_folder_of_torchvision(tmp_path, name, below):
    """That which it was given, that of the data set in it, or the innermost."""
    for other in {"MNIST", "FashionMNIST", "EMNIST"} - {below}:
        write_set(tmp_path / other / "raw", labels=range(3))
    content = write_set(tmp_path / below / "raw", name)
    for place in (tmp_path, tmp_path / below, tmp_path / below / "raw"):
        assert_holds(sources.load(name, place), content)
    (tmp_path / below / "raw" / [*content][-1]).unlink()
    assert f"{below}/raw lacks {[*content][-1]}" in refusal(name, tmp_path)


@pytest.mark.parametrize("kind", range(4))
def test_load_needs_each_of_the_four_files(tmp_path, kind):
    missing = [*write_set(tmp_path)][kind]
    (tmp_path / missing).unlink()
    (tmp_path / missing).mkdir()
    assert f"lacks {missing}" in refusal("mnist", tmp_path)


@pytest.mark.parametrize(
    ("file", "array", "words"),
    [
        ("train-labels-idx1-ubyte", np.zeros(29, np.uint8), "train_labels are 29 for 62 samples"),
        ("train-labels-idx1-ubyte", np.arange(62, dtype=np.uint8) % 9, "test_labels have 9 at "),
        ("t10k-images-idx3-ubyte", np.zeros((31, 4, 5), np.uint8), "test_images are uint8[31, 4, "),
    ],
)
def test_load_refuses_files_that_do_not_fit_together(tmp_path, file, array, words):
    write_set(tmp_path)
    (tmp_path / file).write_bytes(idx_bytes(array))
    line = refusal("mnist", tmp_path)
    assert words in line
    assert line.endswith("; replace the files by one set")


def test_read_idx_takes_an_emnist_of_700_000_images():
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
