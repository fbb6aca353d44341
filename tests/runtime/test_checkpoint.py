"""A checkpoint is the state bit for bit, or it is none."""

import pathlib
import shutil
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from cefl_jax.runtime import checkpoint
from cefl_jax.runtime.checkpoint import SEAL, Checkpoints, CorruptCheckpoint, flatten, restore

HERE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


class State(NamedTuple):
    """A state with everything in it that a state could have."""

    key: Any
    model: Any
    counts: Any
    odd: Any


def bits(patterns, kind):
    return np.array(patterns, f"u{np.dtype(kind).itemsize}").view(kind)


def make_state():
    """Numbers that a way through text, or through fewer bits, would change."""
    strange = [
        0,
        0x80000000,
        1,
        0x807FFFFF,
        0x7F800000,
        0xFF800000,
        0x7FC00000,
        0x7FC12345,
        0xFFD54321,
        0x3F800001,
    ]
    strange64 = [0x8000000000000000, 1, 0x7FF8000000ABCDEF, 0x3FF0000000000001]
    with jax.enable_x64(True):
        return State(
            key=jax.random.key(11),
            model={
                "weights": [jnp.asarray(bits(strange, np.float32)), jnp.ones((2, 1, 3))],
                "half/way.up": jnp.asarray(bits([0x8000, 1, 0x7FC1, 0x3F81], ml_dtypes.bfloat16)),
                "'quoted'": {"": jnp.float32(-0.0)},
            },
            counts=(
                jnp.asarray([2**53 + 1, -(2**62) - 1, 2**63 - 1]),
                jnp.int64(2**53 + 1),
                jnp.asarray([2**31 - 1, -(2**31)], jnp.int32),
                jnp.asarray([0, 255], jnp.uint8),
                jnp.asarray([[True], [False]]),
                jnp.uint32(2**32 - 1),
            ),
            odd={
                "exact": jnp.asarray(bits(strange64, np.float64)),
                "pi": jnp.float64(np.pi),
                "keys": jax.random.split(jax.random.key(5, impl="rbg"), (2, 3)),
                "nothing": jnp.zeros((0, 4)),
                "none": None,
                "f8": jnp.asarray([1.5, -2], jnp.float8_e4m3fn),
            },
        )


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
    """Checkpoints of `small` after some rounds, with the round as its value."""
    said = []
    saver = Checkpoints(folder, warn=said.append, **options)
    for at, round in enumerate(rounds):
        score = scores[at] if scores else None
        saver.save(round, flatten(small(round)), {"round": round, "score": score})
    saver.wait()
    return saver, said


def load(folder):
    """What a later process would go on from, and what it is told."""
    said = []
    return Checkpoints(folder, warn=said.append).load(), said


def rounds_in(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


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
    folder, said = tmp_path_factory.mktemp("state") / "checkpoints", []
    Checkpoints(folder, background=False, warn=said.append).save(
        1, flatten(make_state()), {"round": 1, "note": "é", "list": [None, 0.1]}
    )
    loaded, told = load(folder)
    assert said == told == []
    return loaded


def test_every_bit_comes_back(saved_state):
    zeros = jax.tree.map(lambda leaf: leaf if is_key(leaf) else jnp.zeros_like(leaf), make_state())
    restored = restore(saved_state, zeros, HERE)
    assert jax.tree.structure(restored) == jax.tree.structure(make_state())
    assert bits_of(restored) == bits_of(make_state())
    assert saved_state.facts == {"round": 1, "note": "é", "list": [None, 0.1]}
    assert not jax.config.jax_enable_x64


def test_all_is_on_the_devices_as_it_was(saved_state):
    """Eight bytes a number stay eight, outside of where this is allowed."""
    restored = restore(saved_state, make_state(), HERE)
    for leaf, before in zip(jax.tree.leaves(restored), jax.tree.leaves(make_state()), strict=True):
        assert isinstance(leaf, jax.Array)
        assert (leaf.dtype, leaf.shape) == (before.dtype, before.shape)
        assert is_key(leaf) or not leaf.weak_type
    assert restored.counts[1].dtype == np.int64
    assert int(restored.counts[1]) == 2**53 + 1
    assert restored.odd["exact"].dtype == np.float64
    same = jax.random.bits(make_state().key, (4,))
    assert (jax.random.bits(restored.key, (4,)) == same).all()


def test_a_state_is_put_on_all_devices(saved_state):
    mesh = jax.sharding.Mesh(jax.devices()[:4], "edge")
    everywhere = jax.sharding.NamedSharding(mesh, jax.P())
    restored = restore(saved_state, make_state(), everywhere)
    assert bits_of(restored) == bits_of(make_state())
    leaves = [leaf for leaf in jax.tree.leaves(restored) if leaf.size]
    assert {len(leaf.devices()) for leaf in leaves} == {4}


def test_what_is_restored_can_be_given_up(saved_state):
    """As a run does with each of its states; the checkpoint itself stays."""
    before = {name: leaf.copy() for name, leaf in saved_state.leaves.items()}
    state = restore(saved_state, make_state(), HERE)
    step = jax.jit(lambda counts: (counts[2] + 1, counts[3] * 3), donate_argnums=0)
    jax.block_until_ready(step(state.counts))
    for name, leaf in before.items():
        assert leaf.tobytes() == saved_state.leaves[name].tobytes()


def test_what_happens_after_a_save_is_not_saved(tmp_path, monkeypatch):
    """Neither a donated buffer nor an array that is written to, while the save is at work."""
    begun, go, real = threading.Event(), threading.Event(), ocp.Checkpointer.save

    def slow(*args, **options):
        begun.set()
        assert go.wait(60)
        return real(*args, **options)

    monkeypatch.setattr(ocp.Checkpointer, "save", slow)
    saver = Checkpoints(tmp_path / "checkpoints", warn=pytest.fail)
    host = np.full(1000, 1.0, np.float32)
    state = {"device": jnp.full(1000, 1.0), "host": host}
    saver.save(1, flatten(state), {})
    assert begun.wait(60)  # it has come back before anything was written
    after = jax.jit(lambda x: x + 1, donate_argnums=0)(state["device"])
    for value in range(50):
        after = jax.jit(lambda x, v: x * 0 + v, donate_argnums=0)(after, float(value))
    host[:] = 9
    go.set()
    saver.wait()
    loaded, _ = load(tmp_path / "checkpoints")
    assert all((leaf == 1).all() for leaf in loaded.leaves.values())
    assert len(loaded.leaves) == 2


def test_a_save_waits_for_the_one_before(tmp_path, monkeypatch):
    """Or states would pile up in memory behind a slow disk."""
    go, real = threading.Event(), ocp.Checkpointer.save

    def slow(*args, **options):
        assert go.wait(60)
        return real(*args, **options)

    monkeypatch.setattr(ocp.Checkpointer, "save", slow)
    saver = Checkpoints(tmp_path / "checkpoints", warn=pytest.fail)
    saver.save(1, flatten(small(1)), {})
    second = threading.Thread(target=saver.save, args=(2, flatten(small(2)), {}))
    second.start()
    second.join(0.1)
    assert second.is_alive()
    go.set()
    second.join(60)
    saver.wait()
    assert rounds_in(tmp_path / "checkpoints") == [1, 2]


def test_no_save_is_dropped_for_another(tmp_path):
    saver, said = save(tmp_path / "checkpoints", range(1, 6), keep=10)
    assert said == []
    assert rounds_in(tmp_path / "checkpoints") == [1, 2, 3, 4, 5]
    for round in range(1, 6):
        assert (saver.load_round(round).leaves["['a']"] == round).all()


@pytest.mark.parametrize(
    ("keep", "scores", "kept"),
    [
        (1, [1, 5, 2, 3], [2, 4]),
        (2, [1, 5, 2, 3], [2, 3, 4]),
        (2, [1, 2, 3, 5], [3, 4]),
        (1, [5, 5, 5, 5], [1, 4]),  # the first of the best
        (1, [1, 5, 5, 4], [2, 4]),
        (1, [None, -3, None, -9], [2, 4]),  # no score is less than any
        (3, [9, None], [1, 2]),
        (1, [0.1, 0.1 + 1e-15, 0.1], [2, 3]),
    ],
)
def test_the_newest_and_the_best_are_kept(tmp_path, keep, scores, kept):
    save(tmp_path / "checkpoints", range(1, len(scores) + 1), scores, keep=keep)
    assert rounds_in(tmp_path / "checkpoints") == kept
    assert load(tmp_path / "checkpoints")[0].round == len(scores)


def test_the_best_is_known_to_a_later_process(tmp_path):
    save(tmp_path / "checkpoints", [1, 2], [9, 1], keep=1)
    save(tmp_path / "checkpoints", [3, 4], [2, 3], keep=1)
    assert rounds_in(tmp_path / "checkpoints") == [1, 4]


def test_where_nothing_was_saved_there_is_nothing(tmp_path):
    assert load(tmp_path / "checkpoints") == (None, [])
    assert not (tmp_path / "checkpoints").exists()


def raiser(error):
    def fail(*_, **__):
        raise error

    return fail


def fail_before(patch, error):
    patch.setattr(ocp.Checkpointer, "save", raiser(error))


def fail_after(patch, error):
    real = ocp.Checkpointer.save

    def save_and_fail(*args, **options):
        real(*args, **options)
        raise error

    patch.setattr(ocp.Checkpointer, "save", save_and_fail)


def fail_within(patch, error):
    """When the leaves are written: there is a folder by then, under its temporary name."""
    patch.setattr(ocp.PyTreeCheckpointHandler, "save", raiser(error))


def fail_at_the_end(patch, error):
    """With every leaf there, and not yet the name."""
    patch.setattr(ocp.PyTreeCheckpointHandler, "finalize", raiser(error))


def fail_mkdir(patch, error):
    patch.setattr(pathlib.Path, "mkdir", raiser(error))


def fail_seal(patch, error):
    patch.setattr(checkpoint, "seal", raiser(error))


def fail_rename(patch, error):
    """The seal is written, under its temporary name."""
    patch.setattr(pathlib.Path, "replace", raiser(error))


FAILURES = [
    fail_before,
    fail_after,
    fail_within,
    fail_at_the_end,
    fail_mkdir,
    fail_seal,
    fail_rename,
]


@pytest.mark.parametrize(
    ("fail", "background"), [(fail_within, False), *((fail, True) for fail in FAILURES)]
)
def test_a_save_that_fails_harms_none_before_it(folder, monkeypatch, fail, background):
    before = contents(folder)
    said = []
    saver = Checkpoints(folder, background=background, warn=said.append)
    with monkeypatch.context() as patch:
        fail(patch, OSError(28, "No space left on device\nat all"))
        saver.save(9, flatten(small(9)), {"round": 9})
        saver.wait()
    assert len(said) == 1
    assert "round 9" in said[0]
    assert "No space left" in said[0]
    assert "\n" not in said[0]
    assert contents(folder) == before
    assert sorted(path.name for path in folder.iterdir()) == ["000003", "000006"]
    assert load(folder)[0].round == 6
    saver.save(10, flatten(small(10)), {"round": 10})  # and with room again, it goes on
    saver.wait()
    assert len(said) == 1
    assert load(folder)[0].round == 10


def test_a_save_again_of_a_round_is_the_last_one(folder):
    saver = Checkpoints(folder, warn=pytest.fail)
    saver.save(6, flatten(small(60)), {"round": 6})
    saver.wait()
    assert (load(folder)[0].leaves["['a']"] == 60).all()


@pytest.mark.parametrize(
    "name",
    [
        "000009",
        "000009.orbax-checkpoint-tmp",
        "000009.failed",
        "000009.orbax-checkpoint-tmp-17",
        "1234567",
    ],
)
def test_what_has_no_seal_was_never_finished(folder, name):
    shutil.copytree(folder / "000006", folder / name)
    (folder / name / SEAL).unlink()
    loaded, said = load(folder)
    assert loaded.round == 6
    told = f"{folder / name} has no {SEAL}: it is not whole, and is removed"
    assert said == ([told] if name.isdecimal() else [])
    assert sorted(path.name for path in folder.iterdir()) == ["000003", "000006"]


def test_what_was_being_saved_when_it_was_killed_is_not_loaded(folder, monkeypatch):
    """The folder as it is in the middle of a save, with the names that Orbax gives."""
    seen = []

    def look(stage):
        def copy(*_, **__):
            seen.append(shutil.copytree(folder, folder.parent / stage))
            raise OSError(28, "No space left on device")

        return copy

    for name, of in (("within", "save"), ("end", "finalize")):
        with monkeypatch.context() as patch:
            patch.setattr(ocp.PyTreeCheckpointHandler, of, look(name))
            saver = Checkpoints(folder, warn=str)
            saver.save(9, flatten(small(9)), {"round": 9})
            saver.wait()
    assert len(seen) == 2
    for copy in seen:
        assert len(list(copy.iterdir())) == 3, "nothing was there to be left"
        assert load(copy)[0].round == 6
        assert sorted(path.name for path in copy.iterdir()) == ["000003", "000006"]


def test_a_state_that_failed_is_kept_and_not_gone_on_from(folder):
    saver = Checkpoints(folder, warn=pytest.fail)
    saver.keep_failed(57, flatten(small(57)), {"round": 57, "score": 99.0})
    loaded, said = load(folder)
    assert (loaded.round, said) == (6, [])
    assert (folder / "000057.failed" / SEAL).exists()
    saver.save(60, flatten(small(60)), {"round": 60, "score": 1.0})  # nor does it count
    saver.wait()
    assert sorted(path.name for path in folder.iterdir())[-2:] == ["000057.failed", "000060"]
    assert load(folder)[0].round == 60


def test_a_state_that_failed_and_cannot_be_kept_is_told(folder, monkeypatch):
    before, said = contents(folder), []
    fail_within(monkeypatch, OSError(28, "No space left on device"))
    Checkpoints(folder, warn=said.append).keep_failed(57, flatten(small()), {})
    assert len(said) == 1
    assert "No space left" in said[0]
    assert contents(folder) == before


FOREIGN = ["notes.txt", "000009", "57", "backup/000009/leaf", "000006.old/leaf", "x000009/leaf"]


def test_what_is_not_ours_stays(folder):
    for name in FOREIGN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    assert load(folder)[0].round == 6
    saver, said = save(folder, [10, 11, 12], keep=1)
    assert said == []
    for name in FOREIGN:
        assert (folder / name).read_text() == name
    saver.remove_all()
    for name in FOREIGN:
        assert (folder / name).read_text() == name
    assert not rounds_in(folder) or rounds_in(folder) == [9, 57]  # files


def test_a_link_is_removed_and_not_what_it_points_to(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (folder / "000003").rename(elsewhere)
    (folder / "000003").symlink_to(elsewhere)
    before = contents(elsewhere)
    saver, said = save(folder, [10, 11], [5, 6], keep=1)
    assert said == []
    assert rounds_in(folder) == [11]
    (folder / "000012").symlink_to(elsewhere)
    saver.remove_all()
    assert contents(elsewhere) == before
    assert list(folder.iterdir()) == []


def damage(place):
    """Changes the largest file of a checkpoint."""
    file = max(
        (path for path in place.rglob("*") if path.is_file()),
        key=lambda path: (path.name != SEAL, path.stat().st_size),
    )
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_damaged_one_is_told_and_the_one_before_used(folder):
    damage(folder / "000006")
    before = contents(folder)
    loaded, said = load(folder)
    assert loaded.round == 3
    assert (loaded.leaves["['a']"] == 3).all()
    assert len(said) == 1
    assert "round 6" in said[0]
    assert "\n" not in said[0]
    assert contents(folder) == before


def test_when_all_are_damaged_it_does_not_start_anew(folder):
    damage(folder / "000003")
    damage(folder / "000006")
    said = []
    with pytest.raises(CorruptCheckpoint, match=str(folder)):
        Checkpoints(folder, warn=said.append).load()
    assert len(said) == 2
    assert rounds_in(folder) == [3, 6]


def test_a_damaged_one_does_not_push_out_a_sound_one(folder):
    """After the one before was gone on from, and saved at other rounds than the first time."""
    damage(folder / "000006")
    said = []
    saver = Checkpoints(folder, keep=1, warn=said.append)
    assert saver.load().round == 3
    for round in (4, 5):
        saver.save(round, flatten(small(round)), {"round": round, "score": None})
        saver.wait()
        assert load(folder)[0].round == round


def test_one_that_is_of_no_use_is_passed_over(folder):
    asked, said = [], []

    def accept(facts):
        asked.append(facts["round"])
        if facts["round"] == 6:
            raise CorruptCheckpoint("of no use")

    loaded = Checkpoints(folder, warn=said.append).load(accept)
    assert (loaded.round, asked, len(said)) == (3, [6, 3], 1)

    def refuse(facts):
        raise ValueError("another run")

    with pytest.raises(ValueError, match="another run"):
        Checkpoints(folder, warn=pytest.fail).load(refuse)


def test_one_under_the_number_of_another_round_is_damaged(folder):
    (folder / "000006").rename(folder / "000009")
    loaded, said = load(folder)
    assert loaded.round == 3
    assert len(said) == 1


@pytest.mark.parametrize(
    "alter",
    [
        lambda leaves: leaves | {"['a']": np.nextafter(leaves["['a']"], np.float32(9))},
        lambda leaves: leaves | {"['a']": leaves["['a']"].astype(np.float64)},
        lambda leaves: leaves | {"['b']": leaves["['a']"]},
        lambda leaves: {"['a']": leaves["['a']"]},
    ],
)
def test_what_orbax_gives_back_has_to_be_what_it_was_given(folder, monkeypatch, alter):
    """The files are sound; every leaf is looked at nevertheless."""
    real = ocp.Checkpointer.restore

    def wrong(self, place, *args, **options):
        leaves = real(self, place, *args, **options)
        return alter(leaves) if "000006" in str(place) else leaves

    monkeypatch.setattr(ocp.Checkpointer, "restore", wrong)
    loaded, said = load(folder)
    assert loaded.round == 3
    assert "round 6" in said[0]


def test_what_orbax_cannot_read_is_damaged(folder, monkeypatch):
    real = ocp.Checkpointer.restore

    def wrong(self, place, *args, **options):
        if "000006" in str(place):
            raise RuntimeError("DATA_LOSS: line\nbreak")
        return real(self, place, *args, **options)

    monkeypatch.setattr(ocp.Checkpointer, "restore", wrong)
    loaded, said = load(folder)
    assert loaded.round == 3
    assert "\n" not in said[0]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a": jnp.zeros(3)}, r"\['n'\]"),
        (small() | {"more": jnp.zeros(2)}, r"\['more'\]"),
        (small() | {"a": jnp.zeros(4)}, r"\['a'\]"),
        (small() | {"a": jnp.zeros((3, 1))}, r"\['a'\]"),
        (small() | {"a": jnp.zeros(3, jnp.int32)}, r"\['a'\]"),
        (small() | {"a": jnp.zeros(3, jnp.bfloat16)}, r"\['a'\]"),
        ({"b": jnp.zeros(3), "n": jnp.int32(0)}, r"\['b'\]"),
    ],
)
def test_the_state_of_another_program_is_refused(two, state, words):
    loaded, _ = load(two)
    with pytest.raises(ValueError, match=words) as refusal:
        restore(loaded, state, HERE)
    message = str(refusal.value)
    assert "round 6" in message
    assert "another version" in message
    assert "\n" not in message
    assert set(loaded.leaves) == {"['a']", "['n']"}  # as it was


def test_the_digest_of_a_leaf_is_of_type_shape_and_bytes():
    arrays = [np.zeros(4, kind) for kind in (np.int32, np.float32, np.uint8, bool)]
    arrays += [np.zeros(4, kind) for kind in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)]
    arrays += [np.zeros((2, 2), np.int32), np.zeros((4, 1), np.int32), np.float32([0, 0, 0, -0.0])]
    assert len({checkpoint._digest(array) for array in arrays}) == len(arrays)
    assert checkpoint._digest(np.arange(6).reshape(2, 3).T) == checkpoint._digest(
        np.arange(6).reshape(2, 3).T.copy()
    )
