"""A checkpoint is the state bit for bit, or it is none; a seal notices every bit that changed."""

import hashlib
import os
import pathlib
import shutil
import sys
import threading
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from cefl_jax.runtime import checkpoint
from cefl_jax.runtime.checkpoint import (
    SEAL,
    Checkpoints,
    CorruptCheckpoint,
    flatten,
    read_facts,
    restore,
    seal,
    verify,
)
from tests.runtime.examples import contents

FULL = OSError(28, "No space left on device\nat all")
A = "['a']"  # the name of a leaf of `small`
FACTS = {"round": 7, "score": None, "of": {"a": [1, 2.5, "é"]}}


def bits(patterns, kind):
    return jnp.asarray(np.array(patterns, f"u{np.dtype(kind).itemsize}").view(kind))


def make_state():
    """All that a state could have: numbers that text, or fewer bits, would change, and names."""
    strange = [0, 0x80000000, 1, 0x807FFFFF, 0x7F800000, 0xFF800000, 0x7FC12345, 0xFFD54321]
    strange64 = [0x8000000000000000, 1, 0x7FF8000000ABCDEF, 0x3FF0000000000001]
    with jax.enable_x64(True):
        return {
            "keys": [jax.random.key(11), jax.random.split(jax.random.key(5, impl="rbg"), (2, 3))],
            "single": [bits(strange, np.float32), jnp.ones((2, 1, 3)), jnp.zeros((0, 4)), None],
            "half/way.up": bits([0x8000, 1, 0x7FC1, 0x3F81], ml_dtypes.bfloat16),
            "'quoted'": {"": jnp.float32(-0.0)},
            "double": bits(strange64, np.float64),
            "f8": jnp.asarray([1.5, -2], jnp.float8_e4m3fn),
            "counts": (
                jnp.asarray([2**53 + 1, -(2**62) - 1, 2**63 - 1]),
                jnp.int64(2**53 + 1),
                jnp.asarray([2**31 - 1, -(2**31)], jnp.int32),
                jnp.asarray([0, 255], jnp.uint8),
                jnp.asarray([[True], [False]]),
                jnp.uint32(2**32 - 1),
            ),
        }


def is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def bits_of(state):
    """Type, shape and bytes of every leaf, and how the keys are made."""

    def of(leaf):
        made = str(jax.random.key_impl(leaf)) if is_key(leaf) else ""
        data = np.asarray(jax.random.key_data(leaf) if made else leaf)
        return made, str(data.dtype), data.shape, data.tobytes()

    return jax.tree.map(of, state)


def small(value=0.0):
    return {"a": jnp.full(3, value, jnp.float32), "n": jnp.int32(7)}


def save(folder, rounds, scores=None, **options):
    """Checkpoints of `small` after some rounds, with the round as its value; and the warnings."""
    warned = []
    saver = Checkpoints(folder, warn=warned.append, **options)
    for at, round in enumerate(rounds):
        score = scores[at] if scores else None
        saver.save(round, flatten(small(round)), {"round": round, "score": score})
    saver.wait()
    return saver, warned


def load(folder):
    """What a later process would go on from, and its warnings."""
    warned = []
    return Checkpoints(folder, warn=warned.append).load(), warned


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with the checkpoints of rounds 3 and 6, to be copied."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    save(folder, [3, 6])
    return folder


@pytest.fixture
def folder(two, tmp_path):
    """A copy of `two` to damage."""
    return shutil.copytree(two, tmp_path / "checkpoints")


@pytest.fixture(scope="module")
def saved_state(tmp_path_factory):
    """Everything, saved and loaded again."""
    folder, warned = tmp_path_factory.mktemp("state") / "checkpoints", []
    saver = Checkpoints(folder, background=False, warn=warned.append)
    saver.save(1, flatten(make_state()), {"round": 1, "note": "é", "list": [None, 0.1]})
    loaded, later = load(folder)
    assert warned == later == []
    return loaded


@pytest.mark.parametrize("num_devices", [1, 4])
def test_restore_gives_every_bit_back(saved_state, num_devices):
    """On all devices; and the state may be donated, of which the checkpoint notices nothing."""
    mesh = jax.sharding.Mesh(jax.devices()[:num_devices], "edge")
    everywhere = jax.sharding.NamedSharding(mesh, jax.P())
    zeros = jax.tree.map(lambda leaf: leaf if is_key(leaf) else jnp.zeros_like(leaf), make_state())
    before = {name: leaf.tobytes() for name, leaf in saved_state.leaves.items()}
    restored = restore(saved_state, zeros, everywhere)
    assert jax.tree.structure(restored) == jax.tree.structure(make_state())
    assert bits_of(restored) == bits_of(make_state())
    leaves = [leaf for leaf in jax.tree.leaves(restored) if leaf.size]
    assert {len(leaf.devices()) for leaf in leaves} == {num_devices}
    assert not any(leaf.weak_type for leaf in leaves if not is_key(leaf))
    assert not jax.config.jax_enable_x64
    step = jax.jit(lambda counts: (counts[2] + 1, counts[3] * 3), donate_argnums=0)
    jax.block_until_ready(step(restored["counts"]))
    assert {name: leaf.tobytes() for name, leaf in saved_state.leaves.items()} == before
    assert saved_state.facts == {"round": 1, "note": "é", "list": [None, 0.1]}


@pytest.mark.parametrize(
    ("state", "leaf"),
    [
        ({"a": jnp.zeros(3)}, "n"),
        (small() | {"more": jnp.zeros(2)}, "more"),
        (small() | {"a": jnp.zeros(4)}, "a"),
        (small() | {"a": jnp.zeros((3, 1))}, "a"),
        (small() | {"a": jnp.zeros(3, jnp.int32)}, "a"),
        ({"b": jnp.zeros(3), "n": jnp.int32(0)}, "b"),
    ],
)
def test_restore_refuses_the_state_of_another_program(two, state, leaf):
    loaded, _ = load(two)
    with pytest.raises(ValueError, match=rf"^.*round 6.*\['{leaf}'\].*another version.*$"):
        restore(loaded, state, jax.sharding.SingleDeviceSharding(jax.devices()[0]))


def test_save_keeps_what_was_there_when_it_was_called(tmp_path, monkeypatch):
    """Not a donated buffer, nor an array that is written to; one save waits for the one before."""
    begun, go, real = threading.Event(), threading.Event(), ocp.Checkpointer.save

    def slow(*args, **options):
        begun.set()
        assert go.wait(60)
        return real(*args, **options)

    monkeypatch.setattr(ocp.Checkpointer, "save", slow)
    saver = Checkpoints(tmp_path / "checkpoints", warn=pytest.fail)
    state = {"device": jnp.full(1000, 1.0), "host": np.full(1000, 1.0, np.float32)}
    saver.save(1, flatten(state), {})
    assert begun.wait(60)  # it has come back before anything was written
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    for _ in range(50):
        state["device"] = add(state["device"])
    state["host"][:] = 9
    second = threading.Thread(target=saver.save, args=(2, flatten(small(2)), {}))
    second.start()
    second.join(0.1)
    assert second.is_alive()  # or states would pile up in memory behind a slow disk
    go.set()
    second.join(60)
    saver.wait()
    assert names_in(tmp_path / "checkpoints") == ["000001", "000002"]
    leaves = saver.load_round(1).leaves
    assert len(leaves) == 2
    assert all((leaf == 1).all() for leaf in leaves.values())


@pytest.mark.parametrize(
    ("keep", "scores", "kept"),
    [
        (1, [1, 5, 2, 3], [2, 4]),
        (2, [1, 5, 2, 3], [2, 3, 4]),
        (2, [1, 2, 3, 5], [3, 4]),
        (1, [5, 5, 5, 5], [1, 4]),  # the first of the best
        (1, [None, -3, None, -9], [2, 4]),  # no score is less than any
        (9, [9, None, 3, 4, 5], [1, 2, 3, 4, 5]),
    ],
)
def test_save_keeps_the_newest_and_the_best(tmp_path, keep, scores, kept):
    """Here by two processes, of which the second knows the scores of the first."""
    folder = tmp_path / "checkpoints"
    save(folder, [1], scores[:1], keep=keep)
    saver, warned = save(folder, range(2, len(scores) + 1), scores[1:], keep=keep)
    assert names_in(folder) == [f"{round:06d}" for round in kept]
    assert warned == []
    for round in kept:
        assert (saver.load_round(round).leaves[A] == round).all()
    assert load(folder)[0].round == len(scores)


def fail(*_, **__):
    raise FULL


def fail_after_save(*args, real=ocp.Checkpointer.save, **options):
    real(*args, **options)
    raise FULL


FAILURES = {  # in the order in which a save comes by
    "mkdir": (pathlib.Path, "mkdir", fail),
    "before": (ocp.Checkpointer, "save", fail),
    "leaves": (ocp.PyTreeCheckpointHandler, "save", fail),
    "name": (ocp.PyTreeCheckpointHandler, "finalize", fail),
    "after": (ocp.Checkpointer, "save", fail_after_save),
    "seal": (checkpoint, "seal", fail),
    "name of the seal": (pathlib.Path, "replace", fail),
}


@pytest.mark.parametrize(
    ("stage", "background"), [("leaves", False), *((stage, True) for stage in FAILURES)]
)
def test_save_that_fails_harms_none_before_it(folder, monkeypatch, stage, background):
    before, warned = contents(folder), []
    saver = Checkpoints(folder, background=background, warn=warned.append)
    with monkeypatch.context() as patch:
        patch.setattr(*FAILURES[stage])
        saver.save(9, flatten(small(9)), {"round": 9})
        saver.wait()
        saver.keep_failed(57, flatten(small()), {})
    assert [line.count("\n") for line in warned] == [0, 0]
    assert "round 9" in warned[0]
    assert all("No space left" in line for line in warned)
    assert contents(folder) == before
    assert names_in(folder) == ["000003", "000006"]
    saver.save(10, flatten(small(10)), {"round": 10})  # and with room again, it goes on
    saver.wait()
    assert len(warned) == 2
    assert load(folder)[0].round == 10


@pytest.mark.parametrize("stage", ["leaves", "name"])
def test_load_removes_what_a_killed_save_left(folder, monkeypatch, stage):
    """The folder as it is in the middle of a save, with the names that Orbax gives."""
    copy = folder.parent / "copy"

    def look(*_, **__):
        shutil.copytree(folder, copy)
        raise FULL

    monkeypatch.setattr(*FAILURES[stage][:2], look)
    saver = Checkpoints(folder, warn=str)
    saver.save(9, flatten(small(9)), {"round": 9})
    saver.wait()
    assert len(names_in(copy)) == 3, "nothing was there to be left"
    assert load(copy)[0].round == 6
    assert names_in(copy) == ["000003", "000006"]


@pytest.mark.parametrize(
    "name", ["000009", "1234567", "000009.failed", "000009.orbax-checkpoint-tmp-17"]
)
def test_load_removes_what_has_no_seal(folder, name):
    assert load(folder / "nothing") == (None, [])
    shutil.copytree(folder / "000006", folder / name)
    (folder / name / SEAL).unlink()
    loaded, warned = load(folder)
    assert loaded.round == 6
    line = f"{folder / name} has no {SEAL}: it is not whole, and is removed"
    assert warned == ([line] if name.isdecimal() else [])
    assert names_in(folder) == ["000003", "000006"]


def test_keep_failed_is_no_checkpoint_to_go_on_from(folder):
    """And a save replaces the one of its round."""
    saver = Checkpoints(folder, warn=pytest.fail)
    saver.keep_failed(57, flatten(small(57)), {"round": 57, "score": 99.0})
    loaded, warned = load(folder)
    assert (loaded.round, warned) == (6, [])
    assert (folder / "000057.failed" / SEAL).exists()
    for value in (60, 61):
        saver.save(60, flatten(small(value)), {"round": 60, "score": 1.0})  # nor does it count
    saver.wait()
    assert names_in(folder)[-2:] == ["000057.failed", "000060"]
    loaded, _ = load(folder)
    assert (loaded.leaves[A] == 61).all()


def test_checkpoints_leave_what_they_have_not_made(folder, tmp_path):
    """Files and folders of other names, and what links point to."""
    names = ["notes.txt", "000009", "57", "backup/000009/leaf", "000006.old/leaf", "x000009/leaf"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    elsewhere = tmp_path / "elsewhere"
    (folder / "000003").rename(elsewhere)
    (folder / "000003").symlink_to(elsewhere)
    before = contents(elsewhere)
    assert load(folder)[0].round == 6
    saver, warned = save(folder, [10, 11, 12], [5, 6, 7], keep=1)
    assert warned == []
    assert not {"000003", "000006", "000011"} & {*names_in(folder)}
    (folder / "000013").symlink_to(elsewhere)
    saver.remove_all()
    assert contents(elsewhere) == before
    assert contents(folder) == {name: name.encode() for name in names}
    assert not {"000012", "000013"} & {*names_in(folder)}


def damage(place):
    """Changes the largest file of a checkpoint."""
    files = [path for path in place.rglob("*") if path.is_file() and path.name != SEAL]
    file = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def rename(place):
    place.rename(place.with_name("000009"))


@pytest.mark.parametrize("change", [damage, rename])
def test_load_passes_a_damaged_one_over(folder, change):
    change(folder / "000006")
    before = contents(folder)
    loaded, (line,) = load(folder)
    assert loaded.round == 3
    assert (loaded.leaves[A] == 3).all()
    assert "damaged and passed over" in line
    assert line.isprintable()
    assert contents(folder) == before


def test_save_keeps_a_sound_one_rather_than_a_damaged_one(folder):
    """After the one before was gone on from, and saved at other rounds than the first time."""
    damage(folder / "000006")
    saver = Checkpoints(folder, keep=1, warn=str)
    assert saver.load().round == 3
    for round in (4, 5):
        saver.save(round, flatten(small(round)), {"round": round, "score": None})
        saver.wait()
        assert load(folder)[0].round == round


def unreadable(leaves):
    raise RuntimeError("DATA_LOSS: line\nbreak")


@pytest.mark.parametrize(
    "alter",
    [
        lambda leaves: leaves | {A: np.nextafter(leaves[A], np.float32(9))},
        lambda leaves: leaves | {A: leaves[A].astype(np.float64)},
        lambda leaves: leaves | {A: leaves[A].reshape(1, 3)},
        lambda leaves: leaves | {A: leaves[A].view(np.int32)},
        lambda leaves: leaves | {"['b']": leaves[A]},
        lambda leaves: {A: leaves[A]},
        unreadable,
    ],
)
def test_load_verifies_what_orbax_gives_back(folder, monkeypatch, alter):
    """The files are sound; every leaf is looked at nevertheless."""
    real = ocp.Checkpointer.restore

    def wrong(self, place, *args, **options):
        leaves = real(self, place, *args, **options)
        return alter(leaves) if "000006" in str(place) else leaves

    monkeypatch.setattr(ocp.Checkpointer, "restore", wrong)
    loaded, (line,) = load(folder)
    assert loaded.round == 3
    assert "round 6" in line
    assert "\n" not in line


@pytest.fixture
def sealed(tmp_path):
    """A folder of a few files, one of them empty and one further down, under a seal."""
    folder = tmp_path / "sealed"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "one").write_bytes(bytes(range(3)))
    (folder / "empty").write_bytes(b"")
    (folder / "deep" / "er" / "two").write_bytes(b"\0\xff{}")
    seal(folder, FACTS)
    return folder


def is_damaged(folder):
    try:
        verify(folder)
    except CorruptCheckpoint as damage:
        return str(damage).isprintable()
    return False


def changes_of(content):
    """Every flipped bit of a byte, every shorter length, and a few more bytes."""
    for at in range(len(content)):
        bit = 1 << at % 8
        yield content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
        yield content[:at]
    yield from (content + more for more in (b"\0", b"\n", b" "))


def test_verify_notices_every_change(sealed, tmp_path):
    assert verify(sealed) == read_facts(sealed) == FACTS
    shutil.copytree(sealed, tmp_path / "copy")
    assert verify(tmp_path / "copy") == FACTS
    for name, content in contents(sealed).items():
        file = sealed / name
        for changed in changes_of(content):
            file.write_bytes(changed)
            assert is_damaged(sealed), (file.name, changed)
        file.unlink()
        assert is_damaged(sealed), file.name
        file.mkdir()
        assert is_damaged(sealed), file.name
        file.rmdir()
        file.write_bytes(content)
    for name in ("more", "deep/more", f"deep/{SEAL}", f"{SEAL}.old"):
        (sealed / name).touch()
        assert is_damaged(sealed), name
        (sealed / name).unlink()
    for facts in ({"score": float("nan")}, {"score": float("inf")}, {"score": object()}):
        with pytest.raises((ValueError, TypeError)):
            seal(sealed, facts)  # and keeps the one before
    assert not is_damaged(sealed)
    (sealed / SEAL).unlink()
    os.mkfifo(sealed / SEAL)  # is not waited for
    assert is_damaged(sealed)
    assert is_damaged(tmp_path / "nothing")


def test_verify_notices_what_the_disk_cannot_read(sealed, monkeypatch):
    """As a sector that is gone: the system has an error, and no other bytes."""

    def file_digest(file, _):
        raise OSError(5, "Input/output error", file.name)

    monkeypatch.setattr(hashlib, "file_digest", file_digest)
    with pytest.raises(CorruptCheckpoint, match=r"two cannot be read \(Input/output error"):
        verify(sealed)


def test_save_shows_nothing_of_writes_that_end_after_it_has_failed(folder, monkeypatch):
    """Which a full disk makes many of; what else cannot be raised is shown as ever."""
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    for round in (6, 7):
        saver = Checkpoints(folder, warn=pytest.fail)
        saver.save(round, flatten(small(1)), {"round": round})
        saver.wait()
    errors = [
        SimpleNamespace(exc_value=RuntimeError(words)) for words in ("Event loop is closed", "x")
    ]
    for error in errors:
        sys.unraisablehook(error)
    assert shown == errors[1:]
