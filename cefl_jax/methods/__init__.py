"""Training methods: each a pair of pure functions, as an optimizer is in optax."""

from cefl_jax.methods.cefl import make_cefl
from cefl_jax.methods.centralized import make_centralized
from cefl_jax.methods.fedavg import make_fedavg
from cefl_jax.methods.fedgkt import make_fedgkt
from cefl_jax.methods.fedopt import make_fedopt
from cefl_jax.methods.fedprox import make_fedprox
from cefl_jax.methods.hierfavg import make_hierfavg
from cefl_jax.methods.scaffold import make_scaffold
from cefl_jax.methods.sequential_split import make_sequential_split
from cefl_jax.methods.splitfed_v1 import make_splitfed_v1
from cefl_jax.methods.splitfed_v2 import make_splitfed_v2

METHODS = {
    "cefl": make_cefl,
    "centralized": make_centralized,
    "fedavg": make_fedavg,
    "fedprox": make_fedprox,
    "scaffold": make_scaffold,
    "fedopt": make_fedopt,
    "hierfavg": make_hierfavg,
    "splitfed_v1": make_splitfed_v1,
    "splitfed_v2": make_splitfed_v2,
    "sequential_split": make_sequential_split,
    "fedgkt": make_fedgkt,
}
