"""Keys: no two purposes, rounds or parts of the model share one."""

import jax
import numpy as np

from cefl_jax.types import Purpose, purpose_key, round_key


def test_purpose_key_and_round_key_serve_one_end_each():
    """Nor do the keys that the stages fold or split from them."""
    root = jax.random.key(0)
    keys = [purpose_key(root, Purpose.MODEL), *jax.random.split(purpose_key(root, Purpose.MODEL))]
    for purpose in set(Purpose) - {Purpose.MODEL}:
        keys += [round_key(root, index, purpose) for index in range(6)]
    children = [jax.random.fold_in(key, i) for key in keys for i in range(4)]
    # The model's two halves are its first children, and counted once.
    data = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in (*keys, *children)}
    assert len(data) == len(keys) + len(children) - 2
