"""A small federation to run whole rounds on: uneven clients, few labels, tiny images."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from cefl_jax import build, program
from cefl_jax.data import dataset
from cefl_jax.methods import default_spec
from cefl_jax.methods.cefl import Cefl
from cefl_jax.network.dynamics import Trace
from tests.quick import once_jit, quick_jit

RULES = {  # every rule of clustering
    "balanced": {},
    "joint": {"cefl.clustering.network_weight": 1000.0},
    "patent": {"cefl.clustering.rule": "patent"},
    "astraea": {"cefl.clustering.rule": "astraea"},
    "random": {"cefl.clustering.rule": "random"},
    "single": {"cefl.clustering.rule": "single"},
    "singleton": {"cefl.clustering.rule": "singleton", "cefl.offload.edge_capacity": 2},
}


def make_dataset(side=8, num_classes=4, num_train=160, num_test=50, seed=3):
    """Noisy blobs, one place for each label, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num_train + num_test).astype(np.int32)
    centres = rng.uniform(40, 200, (num_classes, side, side, 1))
    images = centres[labels] + rng.normal(0, 30, (len(labels), side, side, 1))
    images = np.clip(images, 0, 255).astype(np.uint8)
    train, test = slice(None, num_train), slice(num_train, None)
    return dataset.make_dataset("blobs", images[train], labels[train], images[test], labels[test])


def make_parts(sizes=(3, 17, 8, 25, 9, 12, 30, 5, 20, 11, 20), num_train=160, seed=4):
    """Clients of the given sizes, over examples in random order."""
    order = np.random.default_rng(seed).permutation(num_train)[: sum(sizes)]
    return [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]


def make_spec(changes=None):
    """The default Spec with dotted fields changed, small enough for tests."""
    small = {
        "model.name": "mlp",
        "train.rounds": 2,
        "train.clients_per_round": 7,
        "train.local_steps": 3,
        "train.batch_size": 4,
        "cefl.clustering.num_clusters": 3,
        "cefl.distill.batch_size": 16,
        "run.eval_every": 2,
        "run.client_chunk": 2,
        "run.devices": 1,
        "run.distill_parts": 2,
        "data.normalization.mean": (0.4,),
        "data.normalization.std": (0.3,),
    }
    return default_spec().replace(small | (changes or {}))


def make_setup(changes=None, **dataset):
    """The checked run of `make_spec` on the small federation."""
    return build.build(make_spec(changes), make_dataset(**dataset), make_parts())


def run_rounds(setup, rounds, jit=quick_jit):
    """The state after some rounds, and the metrics of the last one."""
    state, step, arrays = compile_round(setup, jit)
    metrics = None
    for _ in range(rounds):
        state, metrics = step(state, *arrays)
    return state, metrics


def compile_round(setup, jit=quick_jit):
    """The first state, the jitted round, and its other arguments."""
    arrays = program.put_inputs([setup])
    start, step = program.make_round(setup)
    start = jit(start, out_shardings=setup.mesh.everywhere)
    return start(jax.random.key(setup.spec.seed), *arrays[1:]), jit(step), arrays


def change_hparams(hparams, changes):
    """HParams with some values changed, the method's own ones among them."""
    values = {name: np.float32(value) for name, value in changes.items()}
    own = {name: values.pop(name, value) for name, value in hparams.own.items()}
    return hparams._replace(own=own, **values)


def follow(setup, trace):
    """The same run with a network that follows a Trace of arrays."""
    changes = {"network.dynamics": "trace"}
    effective = setup.planner.spec.replace(changes)
    return setup._replace(
        spec=setup.spec.replace(changes),
        planner=dataclasses.replace(setup.planner, spec=effective),
        network=setup.network._replace(trace=trace),
    )


def make_trace(setup, available, shadow_db=0.0, edge_load=0.0):
    """A Trace in full shape whose rows say who is available, bool[rows, N]; the rest broadcasts."""
    available = np.array(available, bool)
    clients, links = setup.network.up_snr.shape
    shadow_db, edge_load = (
        np.broadcast_to(np.float32(values), (len(available), *sides)).copy()
        for values, sides in ((shadow_db, (clients, links)), (edge_load, (links - 1,)))
    )
    return Trace(shadow_db, edge_load, available)


def run_whole(setup, jit=quick_jit):
    """The state and the Chunk of every evaluation of a run, as NumPy arrays, its key as bits."""
    start, advance = program.make_program(setup)
    everywhere, arrays = setup.mesh.everywhere, program.put_inputs([setup])
    state = jit(start, out_shardings=everywhere)(jax.random.key(setup.spec.seed), *arrays[1:])
    advance, outcomes = jit(advance, out_shardings=everywhere), []
    for _ in range(-(-setup.spec.train.rounds // setup.spec.run.eval_every)):
        state, chunk = advance(state, *arrays)
        plain = state._replace(key=jax.random.key_data(state.key))
        outcomes.append(jax.device_get((plain, chunk)))
    return outcomes


def moving_setup(offload="nearest"):
    """Five rounds on a network that moves, without a deadline, by an offload rule."""
    return make_setup(
        {
            "train.rounds": 5,
            "cefl.clustering.rule": "random",
            "cefl.distill.rule": "none",
            "cefl.offload.rule": offload,
            "cefl.privacy.probe_size": 0,
            "network.dynamics": "markov",
            "network.leave_probability": 0.3,
            "network.late": "keep",
        }
    )


@functools.cache
def moving_run():
    """`run_whole` of `moving_setup`, with the bits of a user's run."""
    return run_whole(moving_setup(), once_jit)


def dropping_setup(available, **trace):
    """Four rounds of one pass each, with a deadline that is met, on a network by `make_trace`."""
    setup = make_setup(
        {
            "train.rounds": 4,
            "train.local_steps": None,
            "train.local_epochs": 1,
            "cefl.offload.rule": "greedy",
            "network.deadline_s": 0.5,
            "network.late": "keep",
            "run.eval_every": 1,
        }
    )
    return follow(setup, make_trace(setup, available, **trace))


def trainer(setup):
    """The split training of a setup: from state, Plan and HParams to `Cefl.split_train`'s."""

    @quick_jit
    def train(state, plan, hparams, data, network):
        cefl = Cefl.of(program.make_context(setup, data, network))
        return cefl.split_train(state, plan, hparams)

    return lambda state, plan, hparams: train(state, plan, hparams, setup.data, setup.network)


def decide_rounds(setup):
    """The Decisions of all rounds of a run, stacked, and the Ledgers after each; no training.

    Setups that differ in the values of their arrays alone share a program.
    """
    shapes = str(jax.tree.map(jnp.shape, (setup.data, setup.network)))
    fixed = setup.spec, setup.planner.work, setup.planner.bounds, shapes
    if fixed not in _DECIDERS:
        _DECIDERS[fixed] = quick_jit(program.simulate_rounds(setup))
    key = jax.random.key(setup.spec.seed)
    return jax.device_get(_DECIDERS[fixed](key, setup.data, setup.network))


_DECIDERS = {}


def row_of(tree, at):
    """The rows `at` of a stacked tree."""
    return jax.tree.map(lambda leaf: leaf[at], tree)
