"""Many runs: what they are, and who makes which of them."""

from cefl_jax.sweeps.definition import Sweep

__all__ = ["Sweep"]
