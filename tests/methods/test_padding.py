"""What is padded does not move: chunk slots past a cluster, steps past a client's own, clients of
no cluster, and rows past the last client."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cefl_jax.specs import CompressionSpec, PrivacySpec
from cefl_jax.stages.link import make_link
from cefl_jax.stages.optimizers import make_direction
from cefl_jax.stages.round_plan import draw_batches
from cefl_jax.stages.split_training import SplitTraining
from tests import world
from tests.compare import assert_close
from tests.methods.replay import make_plan
from tests.quick import quick_jit

CLUSTER = [0, -1, 1, 0, -1, 0]  # of clients 0 to 5, which make 1, 5, 2, 7, 3 and 3 local steps
WIDTHS = [2, 3, 4]  # up to 3 slots past cluster 1; with 2 and 4 also one past cluster 0
UPLOADS, BATCH = 2, 4


@pytest.fixture(scope="module")
def train():
    """A function from a chunk width and a number of steps to the ClientStates, as NumPy arrays.

    Raw rows of the clusters trained in turn, before a device drops what is not its own.
    """
    setup = world.make_setup({"train.local_steps": None, "train.local_epochs": 1})
    model, data = setup.model, jax.tree.map(jnp.asarray, setup.data)
    halves, _ = quick_jit(model.init)(jax.random.key(0))
    clients = jnp.arange(len(CLUSTER))
    cluster, sizes = jnp.array(CLUSTER), data.sizes[clients]
    plan = make_plan(clients, cluster, sizes, 2, setup.spec.train, UPLOADS)
    assert plan.clients.tolist() == [0, 3, 5, 2, 1, 4]
    assert plan.steps.tolist() == [1, 7, 3, 2, 0, 0]
    direction = make_direction("sgd", momentum=0.9, weight_decay=0.1)
    compiled = {}

    def compile(width):
        def clusters(plan, halves):
            training = SplitTraining(
                model=model,
                link=make_link(CompressionSpec(), PrivacySpec()),
                direction=direction,
                data=data,
                plan=plan,
                batches=draw_batches(data, jax.random.key(1), plan.clients, BATCH, 7),
                link_key=jax.random.key(2),
                learning_rate=jnp.float32(0.1),
                upload_slots=UPLOADS,
                client_chunk=width,
            )
            rows = training.start_clients(halves, len(CLUSTER) + width)
            start, nodes = training.start_server(halves), []
            for m in range(2):
                rows, node = training.train_cluster(m, rows, start)
                nodes.append(node)
            return rows, nodes

        return quick_jit(clusters)

    def train(width, most=100):
        if width not in compiled:
            compiled[width] = compile(width)
        cut = plan._replace(
            steps=jnp.minimum(plan.steps, most), uploaded=jnp.minimum(plan.uploaded, most)
        )
        return jax.device_get(compiled[width](cut, halves))

    return train, plan


def row_of(rows, row):
    return jax.tree.map(lambda leaf: leaf[row], rows)


@pytest.mark.parametrize("width", WIDTHS)
def test_slots_past_a_cluster_change_nobody(train, width):
    """Every client and node ends as in a run of one client at a time, which has no such slots."""
    train, _ = train
    (rows, nodes), (alone, alone_nodes) = train(width), train(1)
    taken = len(CLUSTER)
    assert_close(*(row_of(each, slice(taken)) for each in (rows, alone)))
    assert_close(nodes, alone_nodes)
    assert [int(node.samples) for node in nodes] == [3 + 25 + 12, 8]  # each example once


@pytest.mark.parametrize("width", [1, *WIDTHS])
def test_clients_stop_at_their_own_last_step(train, width):
    """To the bit: as if the whole cluster had stopped there. Nobody stands still before it."""
    train, plan = train
    whole, _ = train(width)
    for row, steps in enumerate(plan.steps.tolist()[:4]):
        stopped, _ = train(width, steps)
        for name in ("fronts", "states"):
            pair = (row_of(getattr(rows, name), row) for rows in (whole, stopped))
            jax.tree.map(np.testing.assert_array_equal, *pair)
        earlier, _ = train(width, steps - 1)
        pair = row_of(whole.fronts, row), row_of(earlier.fronts, row)
        assert not jax.tree.all(jax.tree.map(np.array_equal, *pair))


@pytest.mark.parametrize("width", [1, *WIDTHS])
def test_rows_of_no_cluster_keep_the_start(train, width):
    train, _ = train
    (after, _), (start, _) = train(width), train(width, 0)
    for row in range(4, len(CLUSTER) + width):
        jax.tree.map(np.testing.assert_array_equal, row_of(after, row), row_of(start, row))
