"""How float32 results are compared: with a tolerance that follows the scale of the array."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def assert_close(
    actual: Any,
    desired: Any,
    rtol: float = 1e-5,
    atol: float = 0.0,
    *,
    each: bool = False,
    err_msg: str = "",
) -> None:
    """Raises where two trees of arrays differ by more than rounding explains.

    An element may differ by `rtol` of itself and by `rtol` of the largest finite element of its
    desired array: a sum whose terms nearly cancel is as inexact as its terms. What is not finite,
    whole numbers and truth values have to be equal.

    Args:
      actual: tree of arrays or numbers.
      desired: the same tree; where `actual` has an array, nested lists stand for one.
      rtol: relative tolerance.
      atol: what every element may differ by besides, for errors that are not of rounding.
      each: whether an element's scale is its own and not its array's. Only for products and sums
        of numbers of one sign, whose every element is exact to `rtol` whatever stands beside it.
      err_msg: said beside the difference.
    Raises:
      AssertionError: where they differ.
    """

    def check(actual, desired):
        kinds = (np.asarray(x).dtype for x in (actual, desired))
        if not any(jnp.issubdtype(kind, np.inexact) for kind in kinds):
            np.testing.assert_array_equal(actual, desired, err_msg)
            return
        size = np.abs(np.asarray(desired, np.float64))
        largest = 0.0 if each else np.max(size, initial=0.0, where=np.isfinite(size))
        np.testing.assert_allclose(
            actual, desired, rtol, atol + rtol * float(largest), err_msg=err_msg
        )

    jax.tree.map(check, actual, desired)
