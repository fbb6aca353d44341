"""What the compiler is asked, and what it makes of arrays as tall as a population."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cefl_jax import compiler
from cefl_jax.network.channel import shannon_rate
from cefl_jax.numerics import weighted_sum
from cefl_jax.stages import clustering
from cefl_jax.stages.sampling import sample_clients
from tests.compare import assert_close
from tests.oracles import network as oracle
from tests.quick import once_jit

UNKNOWN = "xla_an_option_that_no_compiler_has"
CLIENTS = 100_001


class Lowered(jax.stages.Lowered):
    """A lowered function before a compiler that refuses some options."""

    def __init__(self, refuse):
        self.refuse = refuse

    def compile(self, compiler_options):
        self.refuse(compiler_options)
        self.options = dict(compiler_options)
        return jax.jit(lambda: 0).lower().compile()


MESSAGES = {
    "name": "INVALID_ARGUMENT: No such compile option: '{}'",
    "value": "INVALID_ARGUMENT: While setting option {}, 'LIBRARY_X' is not a valid enum value.",
}


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("lacking", [*([name] for name in compiler.FOR_CPU), [*compiler.FOR_CPU]])
def test_compile_lowered_leaves_out_the_options_that_are_unknown(lacking, message):
    """By the message of jaxlib 0.11, which has no `xla_cpu_use_fusion_emitters` any more."""

    def refuse(options):
        for name in set(lacking) & set(options):
            raise jax.errors.JaxRuntimeError(MESSAGES[message].format(name))

    lowered = Lowered(refuse)
    compiler.compile_lowered(lowered)
    known = {name: value for name, value in compiler.FOR_CPU.items() if name not in lacking}
    assert lowered.options == known


@pytest.mark.parametrize(
    "message",
    [
        "INVALID_ARGUMENT: While setting option xla_x, 'x' is not a valid int32 value.",
        "No such compile option",
        f"No such compile option: '{UNKNOWN}'",  # which nobody gave
        "RESOURCE_EXHAUSTED: out of memory",
    ],
)
def test_compile_lowered_raises_what_else_the_compiler_says(message):
    def refuse(_):
        raise jax.errors.JaxRuntimeError(message)

    with pytest.raises(jax.errors.JaxRuntimeError) as raised:
        compiler.compile_lowered(Lowered(refuse))
    assert str(raised.value) == message


def test_compile_lowered_and_jit_leave_out_what_this_compiler_does_not_know():
    """And what it does know reaches it: a level that is no number is refused."""
    twice = jax.jit(lambda x: 2 * x).lower(jnp.float32(0))
    options = {UNKNOWN: 1, **compiler.FOR_CPU_ONCE, f"{UNKNOWN}_2": ""}
    options["xla_cpu_experimental_ynn_fusion_type"] = "LIBRARY_FUSION_TYPE_NO_OTHER"
    assert compiler.compile_lowered(twice, options)(jnp.float32(3)) == 6
    assert compiler.jit(lambda x: 2 * x, options)(jnp.float32(3)) == 6
    wrong = {UNKNOWN: 1, "xla_backend_optimization_level": "high"}
    with pytest.raises(jax.errors.JaxRuntimeError, match="not a valid int32"):
        compiler.compile_lowered(twice, wrong)


@pytest.mark.parametrize("options", [compiler.FOR_CPU, compiler.FOR_CPU_ONCE], ids=["run", "once"])
def test_the_last_rows_of_a_tall_product_are_right(options):
    """Of jaxlib 0.10.2 left to itself the last one is 0.8% of the largest value off."""
    rng = np.random.default_rng(0)
    matrix, rows = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 3), (32_769, 3)))
    got = compiler.jit(jax.vmap(lambda row: ((matrix @ row) ** 2).sum()), options)(rows)
    assert_close(got, ((rows.astype(np.float64) @ matrix.T) ** 2).sum(1))


def test_sums_over_a_population_are_right():
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 50, (CLIENTS, 10)).astype(np.int32)
    counts[-1] = 10_000  # nobody could overlook it
    cluster = rng.integers(-1, 7, CLIENTS).astype(np.int32)
    cluster[-1] = 6
    model = [rng.normal(size=(CLIENTS, *shape)).astype(np.float32) for shape in ((5, 3), (3,))]
    weights = rng.random(CLIENTS).astype(np.float32)

    @once_jit
    def compute(counts, cluster, model, weights):
        target = clustering.target_distribution(counts, "global")
        quality = clustering.measure_quality(counts, cluster, 7, target)
        kl = clustering.cluster_kl(counts, cluster, 7, target)
        return target, kl, quality, weighted_sum(model, weights)

    target, kl, quality, mean = compute(counts, cluster, model, weights)
    pooled = np.stack([counts[cluster == m].sum(0, dtype=np.float64) for m in range(7)])
    whole = counts.sum(0) / counts.sum()
    mix = pooled / pooled.sum(1, keepdims=True)
    expected = (mix * np.log(mix / whole)).sum(1)
    sizes = np.bincount(cluster[cluster >= 0])
    assert_close(target, whole)
    assert_close((kl, quality.kl_mean), (expected, expected.mean()), atol=2e-6)
    assert (quality.size_min, quality.size_max) == (sizes.min(), sizes.max())
    assert_close(mean, [np.einsum("k,k...", np.float64(weights), leaf) for leaf in model])


def test_shannon_rate_of_a_population_is_right_for_the_last():
    rng = np.random.default_rng(2)
    distance_km = rng.uniform(0.05, 2, (CLIENTS, 3)).astype(np.float32)
    got = once_jit(shannon_rate)(distance_km, 1e6, 0.1, 1e-20)
    for k in (0, 32_767, 32_768, CLIENTS - 2, CLIENTS - 1):
        expected = [oracle.shannon_rate(float(km), 1e6, 0.1, 1e-20) for km in distance_km[k]]
        assert_close(got[k], expected, 2e-5, each=True)


def test_sample_clients_of_most_of_a_population_takes_each_available_one_once():
    here = np.random.default_rng(3).random(CLIENTS) < 0.5
    here[-1] = True
    sample = once_jit(lambda key, here: sample_clients(key, CLIENTS, CLIENTS - 1, here))
    clients = np.asarray(sample(jax.random.key(0), here))
    assert sorted(clients[: here.sum()]) == np.flatnonzero(here).tolist()
    assert (clients[here.sum() :] == CLIENTS).all()
