"""The rounds of pfl-research: its SimulatedBackend with a PyTorch model."""

import asyncio
import importlib.metadata

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Weighted
from pfl.model.pytorch import PyTorchModel
from torch import nn
from torch.nn import functional as F

from benchmarks.peers import setting, torch_model
from benchmarks.peers.stepping import SteppedLoop

NEVER = 10**9  # rounds


class Network(nn.Module):
    """LeNet-5 with what pfl asks of a module."""

    def __init__(self):
        super().__init__()
        self.layers = torch_model.make_model()

    def forward(self, images):
        """Logits f32[B, Y]."""
        return self.layers(images)

    def loss(self, images, labels):
        """Mean cross-entropy."""
        return F.cross_entropy(self(images), labels)

    @torch.no_grad()
    def metrics(self, images, labels):
        """What evaluation reports; the timed rounds do not evaluate."""
        return {"loss": Weighted(self.loss(images, labels).item() * len(labels), len(labels))}


class RoundDone(TrainingProcessCallback):
    """Waits after every round."""

    def __init__(self, wait):
        self.wait = wait

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        """Called by pfl at the end of a round; goes on without metrics of its own."""
        self.wait()
        return super().after_central_iteration(
            aggregate_metrics, model, central_iteration=central_iteration
        )


def make_dataset():
    """The population; a client's data set is kept, as pfl caches its batches in it."""
    images, labels = torch_model.load_clients()
    clients = [Dataset((images[k], labels[k]), user_id=str(k)) for k in range(setting.CLIENTS)]
    sampler = get_user_sampler("random", list(range(setting.CLIENTS)))
    return FederatedDataset(clients.__getitem__, sampler)


def run(wait, network, dataset, threads):
    """All rounds, as in pfl's tutorials."""
    torch.set_num_threads(threads)  # a thread has its own number
    model = PyTorchModel(
        network,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
    )
    algorithm_params = NNAlgorithmParams(
        central_num_iterations=NEVER,
        evaluation_frequency=NEVER,  # still evaluates in round 0, which is not timed
        train_cohort_size=setting.CLIENTS_PER_ROUND,
        val_cohort_size=None,
    )
    train_params = NNTrainHyperParams(
        local_batch_size=setting.BATCH_SIZE,
        local_num_epochs=None,
        local_num_steps=setting.LOCAL_STEPS,
        local_learning_rate=setting.LEARNING_RATE,
    )
    asyncio.set_event_loop(asyncio.new_event_loop())  # pfl takes the thread's
    wait()
    FederatedAveraging().run(
        algorithm_params,
        SimulatedBackend(dataset, dataset),
        model,
        train_params,
        NNEvalHyperParams(local_batch_size=None),
        [RoundDone(wait)],
        send_metrics_to_platform=False,
    )


def prepare(threads):
    """`advance` and facts, as `benchmarks.worker.serve` wants them."""
    torch.manual_seed(setting.SEED)
    np.random.seed(setting.SEED)  # noqa: NPY002 - pfl draws by it, alike in all its processes
    network, dataset = Network(), make_dataset()
    loop = SteppedLoop(lambda wait: run(wait, network, dataset, threads))
    return loop.advance, {
        "parameters": torch_model.count_parameters(network),
        "threads": threads,
        "pfl": importlib.metadata.version("pfl"),
        "torch": torch.__version__,
    }
