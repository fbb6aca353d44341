"""A sealed folder is noticed to have changed when any bit of it has."""

import os
import shutil

import pytest

from cefl_jax.runtime.checkpoint import SEAL, CorruptCheckpoint, read_facts, seal, verify

FACTS = {"round": 7, "score": None, "of": {"a": [1, 2.5, "é"]}}


@pytest.fixture
def sealed(tmp_path):
    """A folder of a few files, one of them empty and one further down, under a seal."""
    folder = tmp_path / "sealed"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "one").write_bytes(bytes(range(7)))
    (folder / "empty").write_bytes(b"")
    (folder / "deep" / "er" / "two").write_bytes(b"\0\xff{}")
    seal(folder, FACTS)
    return folder


def files_of(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def is_damaged(folder):
    try:
        verify(folder)
    except CorruptCheckpoint as damage:
        line = str(damage)
        assert line.isprintable()
        return True
    return False


def test_what_is_as_it_was_gives_its_facts(sealed, tmp_path):
    assert verify(sealed) == read_facts(sealed) == FACTS
    shutil.copytree(sealed, tmp_path / "copy")
    assert verify(tmp_path / "copy") == FACTS
    assert sorted(path.name for path in files_of(sealed)) == ["empty", "one", SEAL, "two"]


def test_a_pipe_in_place_of_a_seal_is_not_waited_for(sealed):
    (sealed / SEAL).unlink()
    os.mkfifo(sealed / SEAL)
    assert is_damaged(sealed)


def test_every_single_bit_counts(sealed):
    for file in files_of(sealed):
        content = file.read_bytes()
        for bit in range(8 * len(content)):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
            assert is_damaged(sealed), (file.name, bit)
        file.write_bytes(content)
    assert not is_damaged(sealed)


def test_every_length_counts(sealed):
    for file in files_of(sealed):
        content = file.read_bytes()
        for length in range(len(content)):
            file.write_bytes(content[:length])
            assert is_damaged(sealed), (file.name, length)
        for more in (b"\0", b"\n", b" ", content):
            if more:
                file.write_bytes(content + more)
                assert is_damaged(sealed), (file.name, more)
        file.write_bytes(content)
    assert not is_damaged(sealed)


def test_every_file_counts(sealed):
    for file in files_of(sealed):
        content = file.read_bytes()
        file.unlink()
        assert is_damaged(sealed), file.name
        file.mkdir()
        assert is_damaged(sealed), file.name
        file.rmdir()
        file.write_bytes(content)
    assert not is_damaged(sealed)


@pytest.mark.parametrize("name", ["more", "deep/more", f"deep/{SEAL}", f"{SEAL}.old"])
def test_a_file_too_many_counts(sealed, name):
    (sealed / name).write_bytes(b"")
    with pytest.raises(CorruptCheckpoint, match="was not there"):
        verify(sealed)


def test_what_cannot_be_sealed_keeps_the_seal_before(sealed):
    for facts in ({"score": float("nan")}, {"score": float("inf")}, {"score": object()}):
        with pytest.raises((ValueError, TypeError)):
            seal(sealed, facts)
    assert verify(sealed) == FACTS


def test_without_a_folder_there_is_no_seal(tmp_path):
    for look in (verify, read_facts):
        with pytest.raises(CorruptCheckpoint, match=r"seal\.json"):
            look(tmp_path / "nothing")


def test_what_the_disk_cannot_read_is_damaged(sealed, monkeypatch):
    """As a sector that is gone: the system has an error, and no other bytes."""
    real = open

    def failing(file, *args, **options):
        if os.fspath(file).endswith("two"):
            raise OSError(5, "Input/output error", os.fspath(file))
        return real(file, *args, **options)

    monkeypatch.setattr("builtins.open", failing)
    with pytest.raises(CorruptCheckpoint, match=r"two.*Input/output error"):
        verify(sealed)
