"""A run of the library in the words of the slow references: its settings, draws and parameters."""

import functools

import jax
import numpy as np

from cefl_jax.data.federated import batch_examples
from cefl_jax.network import topology
from cefl_jax.stages import clustering, round_plan, sampling
from cefl_jax.stages.distillation import FeatureBuffer, draw_order
from cefl_jax.types import Purpose, round_key
from tests.oracles.dense_net import Sgd
from tests.oracles.round_ledger import Terms
from tests.oracles.round_types import Draws, Settings, Teaching
from tests.quick import quick_jit

TEACHES = {  # rule: (the cloud the edge model, the edge model the cloud)
    "mutual": (True, True),
    "cloud_to_edge": (True, False),
    "edge_to_cloud": (False, True),
    "hard_labels": (False, False),
}

sample_clients = quick_jit(sampling.sample_clients, static_argnums=(1, 2))
cluster_clients = quick_jit(clustering.cluster_clients, static_argnums=2)
make_plan = quick_jit(round_plan.make_plan, static_argnums=(3, 4, 5))
see_network = quick_jit(topology.of_clients, static_argnums=3)
draw_rows = quick_jit(draw_order, static_argnums=(2, 3))


@functools.partial(quick_jit, static_argnums=4)
def draw_batch(data, key, client, step, batch_size):
    """The examples of one client's local step in the round of the key, and which there are."""
    examples = batch_examples(data, jax.random.fold_in(key, client), client, step, batch_size)
    return examples, examples < data.num_examples


def layers(params):
    """Flax's dense blocks as the reference's list of (W, b)."""
    dense = [block["Dense_0"] for block in params]
    return [(np.asarray(layer["kernel"]), np.asarray(layer["bias"])) for layer in dense]


def momentum(optimizer_state):
    """The momentum buffer, as layers."""
    (trace,) = [part for part in optimizer_state if hasattr(part, "trace")]
    return layers(trace.trace)


def settings(spec, index):
    """What the reference round `index` is told."""
    optimizer = spec.train.optimizer
    sgd = Sgd(
        optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay, optimizer.clip_norm
    )
    return Settings(
        spec.model.cut,
        sgd,
        sgd,
        *_teachings(spec.cefl.distill, index),
        spec.cefl.clustering.num_clusters,
        spec.cefl.clustering.min_size,
        mean=spec.data.normalization.mean,
        std=spec.data.normalization.std,
    )


def terms(setup, state, clients):
    """What the reference ledger is told of a round of these clients."""
    offload, distill = setup.spec.cefl.offload, setup.spec.cefl.distill
    network = see_network(setup.network, state.conditions, np.array(clients), offload.include_cloud)
    return Terms(
        network,
        setup.planner.work,
        len(setup.device_names),
        offload.objective,
        offload.edge_capacity,
        distill.rule,
        distill.epochs,
        offload.time_weight,
        offload.energy_weight,
    )


def draws(setup, state, index, broken=None):
    """What the library draws in round `index`; `broken` {client: steps until it is left out}."""
    spec, data = setup.spec, setup.data
    key = {purpose: round_key(state.key, index, purpose) for purpose in Purpose}
    clients = np.asarray(
        sample_clients(key[Purpose.SAMPLING], len(setup.partition), spec.train.clients_per_round)
    )
    counts = data.label_counts[clients]
    cluster = np.asarray(cluster_clients(key[Purpose.CLUSTERING], counts, spec.cefl.clustering))
    plan = make_plan(
        clients,
        cluster,
        data.sizes[clients],
        spec.cefl.clustering.num_clusters,
        spec.train,
        spec.cefl.distill.upload_steps,
    )
    broken = broken or {}
    gone = np.isin(plan.clients, list(broken))
    plan = plan._replace(uploaded=np.where(gone, 0, plan.uploaded))
    position = {client: k for k, client in enumerate(clients.tolist())}
    places = [position[client] for client in plan.clients.tolist()]
    batches = [None] * len(clients)
    rows = list(zip(places, plan.clients.tolist(), plan.steps.tolist(), strict=True))
    for place, client, steps in rows:
        batches[place] = [
            _batch(setup, key[Purpose.BATCHES], client, step)
            for step in range(min(steps, broken.get(client, steps)))
        ]
    given = None if spec.cefl.clustering.rule == "patent" else cluster.tolist()
    if spec.cefl.distill.rule == "none":
        return Draws(clients.tolist(), batches, cluster=given)
    uploads = [
        (place, step)
        for (place, _, steps), uploaded in zip(rows, plan.uploaded.tolist(), strict=True)
        for step in range(steps - uploaded, steps)
    ]
    orders = [
        _order(setup, key[purpose], plan, places, batches)
        for purpose in (Purpose.DISTILL_EDGE, Purpose.DISTILL_CLOUD)
    ]
    return Draws(clients.tolist(), batches, uploads, *orders, given)


def _teachings(distill, index):
    if distill.rule == "none":
        return None, None
    cloud_teaches, edge_teaches = TEACHES[distill.rule]
    sgd = Sgd(distill.learning_rate, distill.momentum)
    ramp = min(1, index / distill.lambda_warmup_rounds) if distill.lambda_warmup_rounds else 1
    cloud_weight = distill.lambda_cloud if distill.cloud_hard_labels else 1
    return (
        Teaching(distill.lambda_edge * ramp * cloud_teaches, distill.temperature, sgd),
        Teaching(
            cloud_weight * edge_teaches, distill.temperature_cloud or distill.temperature, sgd
        ),
    )


def _batch(setup, key, client, step):
    examples, valid = draw_batch(setup.data, key, client, step, setup.spec.train.batch_size)
    return np.asarray(examples)[np.asarray(valid)].tolist()


def _order(setup, key, plan, places, batches):
    """Epochs of minibatches of (position, step, slot)."""
    distill, slots = setup.spec.cefl.distill, setup.planner.bounds.uploads
    width = setup.spec.train.batch_size
    rows = {}
    for k, place in enumerate(places):
        first = int(plan.steps[k] - plan.uploaded[k])
        for slot in range(int(plan.uploaded[k])):
            for b in range(len(batches[place][first + slot])):
                rows[(k * slots + slot) * width + b] = (place, first + slot, b)
    filled = np.array(sorted(rows))
    count, size = len(filled), distill.batch_size
    uploads = FeatureBuffer(None, None, filled, np.int32(count))
    passes = np.asarray(draw_rows(uploads, key, distill.epochs, size))[:, :count]
    return [
        [[rows[r] for r in drawn[at : at + size].tolist()] for at in range(0, count, size)]
        for drawn in passes
    ]
