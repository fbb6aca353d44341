"""The state of a run as plain arrays by path, and back, bit for bit."""

import jax
import numpy as np
from jaxtyping import PyTree

from cefl_jax.runtime.checkpoint import Checkpoint


def flatten(state: PyTree) -> dict[str, np.ndarray]:
    """Copies of the leaves of a state on the host, by path; of keys, their data.

    Leaves without a value are left out. Every process of a run takes part.
    """
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        data = _data(leaf)
        if data.size:
            leaves[jax.tree_util.keystr(path)] = np.array(jax.device_get(data))
    return leaves


def restore(checkpoint: Checkpoint, state: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
    """A state with the values of a checkpoint, bit for bit.

    Args:
      checkpoint: of the run.
      state: of the same run, for its structure.
      sharding: of every leaf.
    Raises:
      ValueError: when the checkpoint holds other leaves.
    """
    rest = dict(checkpoint.leaves)

    def put(path, leaf):
        name, data = jax.tree_util.keystr(path), _data(leaf)
        if not data.size:
            return leaf
        saved = rest.pop(name, None)
        kind = None if saved is None else (saved.shape, saved.dtype)
        if kind != (data.shape, data.dtype):
            raise ValueError(
                f"the checkpoint of round {checkpoint.round} has {kind} for {name}, and this "
                f"program needs {(data.shape, data.dtype)}: it was made by another version; go on "
                "with that one, or pass --overwrite to start anew"
            )
        value = jax.device_put(saved, sharding)
        if _is_key(leaf):
            return jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
        return value

    with jax.enable_x64(True):  # or 64 bits would become 32
        restored = jax.tree_util.tree_map_with_path(put, state)
    if rest:
        raise ValueError(
            f"the checkpoint of round {checkpoint.round} has {min(rest)}, which this program does "
            "not know: it was made by another version; go on with that one, or pass --overwrite to "
            "start anew"
        )
    return restored


def _data(leaf):
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
