"""A method or a rule that a script adds wrongly is named before anything is compiled."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from cefl_jax import config, program
from cefl_jax.methods import METHODS
from cefl_jax.methods.base import Method, MethodInfo
from cefl_jax.methods.local_model import LocalModel
from cefl_jax.specs import setting
from cefl_jax.stages import clustering
from cefl_jax.stages.traits import MethodTraits
from tests import world

WHOLE = MethodTraits(server="none")
MINE = {"method.name": "mine"}


@dataclasses.dataclass(frozen=True)
class Silent:
    share: float = 0.5


@dataclasses.dataclass(frozen=True)
class Said:
    share: float = setting(0.5, "share of the way")


def make_wrong(change):
    """A maker of a method whose round is FedAvg's, changed."""

    def make(context):
        whole = LocalModel.of(context)

        def round(state, hparams):
            decision = whole.decide(state)
            trained = whole.train(state, decision.plan, hparams)
            return change(*whole.finish_average(state, decision, trained))

        return whole.method(round)

    return make


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state, _: state, "its round returns a LocalModelState; it needs to return"),
        (lambda state, _: None, "its round returns a NoneType"),
        (lambda state, _: (state, 0.5), "its round returns a tuple"),
        (
            lambda state, metrics: (state._replace(params=None), metrics),
            "params[0]['Dense_0']['bias'] is nothing, and was float32[",
        ),
        (
            lambda state, metrics: (state._replace(memory=jnp.zeros(3)), metrics),
            "memory is float32[3], and was nothing",
        ),
    ],
)
def test_make_round_names_a_round_that_returns_anything_else(monkeypatch, change, words):
    monkeypatch.setitem(METHODS, "mine", MethodInfo(make_wrong(change), WHOLE))
    setup = world.make_setup(MINE)
    start, step = program.make_round(setup)
    arrays = program.put_inputs([setup])
    traced = jax.jit(start).trace(jax.random.key(0), *arrays[1:])  # not as eval_shape: 64 bits
    state = jax.tree.unflatten(jax.tree.structure(traced.out_info), traced.jaxpr.out_avals)
    with pytest.raises(TypeError) as caught:
        jax.jit(step).trace(state, *arrays)
    assert str(caught.value).startswith("method 'mine': its round returns a ")
    assert words in str(caught.value)


def make_method_with_a_server(monkeypatch):
    info = MethodInfo(make_wrong(Method), MethodTraits(server="cloud"))
    monkeypatch.setitem(METHODS, "mine", info)
    setup = world.make_setup(MINE)
    program.make_method(setup, setup.data, setup.network)


def make_spec_with(table, value):
    def make(monkeypatch):
        monkeypatch.setitem(table, "mine", value)
        config.to_spec(config.default_config())

    return make


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_method_with_a_server, ("method 'mine': ", "server='none'")),
        (
            lambda _: MethodTraits(server="node"),
            ("server='node' ", "known: matched, cloud, none"),
        ),
        (
            lambda _: MethodInfo(make_wrong(Method), WHOLE, Silent),
            ("share of a method's settings says nothing of itself",),
        ),
        (
            lambda _: MethodInfo(make_wrong(Method), WHOLE, Said, traced=("shares",)),
            ("needs to be a tuple of names among its settings, ['share']",),
        ),
        (
            make_spec_with(METHODS, make_wrong(Method)),
            ("['mine']", "needs to be a methods.base.MethodInfo"),
        ),
        (
            make_spec_with(clustering.RULES, len),
            ("['mine']", "needs to be a stages.clustering.Rule"),
        ),
        (
            make_spec_with(clustering.RULES, clustering.Rule(len, ("num_cluster",))),
            ("['mine']", "that reads fields among"),
        ),
    ],
)
def test_what_is_no_method_and_no_rule_is_named(monkeypatch, make, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # words, below
        make(monkeypatch)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"method.name": "hierfavg", "hierfavg.edge_rounds": 20_000},
            "hierfavg.edge_rounds=20000: with train.local_steps=10 a client makes 200000 local .*; "
            "lower one of",
        ),
        (
            {"method.name": "fednova", "train.optimizer.name": "adam"},
            "train.optimizer.name='adam': fednova .*; set it to 'sgd'",
        ),
    ],
)
def test_make_spec_refuses_settings_that_a_method_cannot_run(settings, line):
    with pytest.raises(config.SettingError, match=f"^{line}"):
        config.make_spec(settings)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda clients: jnp.zeros(6, jnp.int32), "returns int32 of shape (6,)"),
        (lambda clients: jnp.zeros(7), "returns float32 of shape (7,)"),
        (lambda clients: None, "returns <class 'NoneType'> of shape None"),
    ],
)
def test_a_rule_that_returns_no_cluster_of_each_client_is_named(monkeypatch, rule, words):
    monkeypatch.setitem(clustering.RULES, "mine", clustering.Rule(rule))
    setup = world.make_setup({"cefl.clustering.rule": "mine"})
    arrays = jax.random.key(0), setup.data, setup.network
    with pytest.raises(TypeError) as caught:
        jax.eval_shape(program.simulate_rounds(setup), *arrays)
    assert str(caught.value).startswith(f"cefl.clustering.rule='mine' {words}")


def test_to_dict_has_the_settings_of_the_run_s_method_alone(monkeypatch):
    info = MethodInfo(make_wrong(lambda *made: made), WHOLE, Said, traced=("share",))
    monkeypatch.setitem(METHODS, "mine", info)
    spec = config.make_spec({"method.name": "fedprox", "fedprox.mu": 0.5})
    noted = config.to_dict(spec)
    assert noted["fedprox"] == {"mu": 0.5}
    assert not {"mine", "scaffold"} & set(noted)
    assert config.to_spec(noted) == spec
    assert config.to_dict(config.make_spec(MINE))["mine"] == {"share": 0.5}
