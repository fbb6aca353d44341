"""FedAvg in BlazeFL: its FedAvg server handler with each of the client trainers it ships.

    PYTHONPATH=. ENVS/blazefl/bin/python -m benchmarks.peers.blazefl [--way=threads] [--threads=2]

Its threads train side by side only in a free-threaded Python. Its processes are new ones in every
round. They are forked, after what an optimizer imports, or each of them would import that again.
"""

import argparse
import importlib.metadata
import os
import pathlib
import sys
import tempfile

os.environ["TQDM_DISABLE"] = "1"  # read at import

import torch
from blazefl.contrib import (
    FedAvgBaseClientTrainer,
    FedAvgBaseServerHandler,
    FedAvgProcessPoolClientTrainer,
    FedAvgThreadPoolClientTrainer,
)
from blazefl.core import ModelSelector, PartitionedDataset

from benchmarks.peers import setting, torch_model
from benchmarks.peers.setup import WAYS
from benchmarks.worker import serve

NEVER = 10**9  # rounds
OF_BOTH = {
    "model_name": "lenet5",
    "device": "cpu",
    "num_clients": setting.CLIENTS,
    "batch_size": setting.BATCH_SIZE,
    "seed": setting.SEED,
}


class Models(ModelSelector):
    """Makes the model, in the thread or process that will train it."""

    def select_model(self, model_name):
        """LeNet-5; operations of its thread are not divided further."""
        torch.set_num_threads(1)
        return torch_model.make_model()


class Batches:
    """A client's examples in a new order at each pass, cut from tensors."""

    def __init__(self, images, labels, size, generator):
        self.dataset = torch.utils.data.TensorDataset(images, labels)
        self.size, self.generator = size, generator

    def __iter__(self):
        for rows in torch.randperm(len(self.dataset), generator=self.generator).split(self.size):
            yield self.dataset[rows]


class Clients(PartitionedDataset):
    """The population in memory."""

    def __init__(self):
        self.images, self.labels = torch_model.load_clients()

    def get_dataset(self, type_, cid):
        """A client's examples."""
        return torch.utils.data.TensorDataset(self.images[cid], self.labels[cid])

    def set_dataset(self, type_, cid, dataset):
        """Keeps nothing, as training does not change examples."""

    def get_dataloader(self, type_, cid, batch_size, generator):
        """A client's batches."""
        return Batches(self.images[cid], self.labels[cid], batch_size, generator)


def make_trainer(way, threads, folder, **options):
    """One of the trainers of BlazeFL.

    Args:
      way: "serial", "threads" or "processes".
      threads: or processes, that train at once.
      folder: for the random states of clients, which the processes keep in files.
      options: of all three.
    """
    options |= {"epochs": 1, "lr": setting.LEARNING_RATE}
    if way == "serial":
        return FedAvgBaseClientTrainer(**options)
    options["num_parallels"] = threads
    if way == "threads":
        return FedAvgThreadPoolClientTrainer(**options)
    torch.multiprocessing.set_start_method("fork")
    torch.optim.SGD([torch.zeros(1)])  # imports torch._dynamo
    return FedAvgProcessPoolClientTrainer(state_dir=pathlib.Path(folder), **options)


def prepare(way, threads, folder):
    """`advance` and facts, as `benchmarks.worker.serve` wants them."""
    torch.manual_seed(setting.SEED)
    options = OF_BOTH | {"model_selector": Models(), "dataset": Clients()}
    share = setting.CLIENTS_PER_ROUND / setting.CLIENTS
    handler = FedAvgBaseServerHandler(global_round=NEVER, sample_ratio=share, **options)
    trainer = make_trainer(way, threads, folder, **options)

    def advance():  # as in its quickstart, without evaluation
        clients = handler.sample_clients()
        trainer.local_process(handler.downlink_package(), clients)
        for package in trainer.uplink_package():
            handler.load(package)

    return advance, {
        "parameters": torch_model.count_parameters(handler.model),
        "threads": threads,
        "free_threaded": not getattr(sys, "_is_gil_enabled", lambda: True)(),
        "blazefl": importlib.metadata.version("blazefl"),
        "torch": torch.__version__,
    }


def main():
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=WAYS["blazefl"], default="threads")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        serve(lambda: prepare(options.way, options.threads, folder))


if __name__ == "__main__":
    main()
