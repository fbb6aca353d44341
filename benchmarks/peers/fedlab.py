"""FedAvg in FedLab: its StandalonePipeline with the serial trainer and the server handler it ships.

    PYTHONPATH=. ENVS/fedlab/bin/python -m benchmarks.peers.fedlab [--way=threads] [--threads=2]

`threads` are those that divide each operation.
"""

import argparse
import importlib.metadata
import logging

import torch

if torch.version.cuda is None:  # torchvision cannot load its own operators, yet refers to two
    VISION = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        VISION.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from fedlab.contrib.algorithm.basic_client import SGDSerialClientTrainer
from fedlab.contrib.algorithm.basic_server import SyncServerHandler
from fedlab.contrib.dataset.basic_dataset import FedDataset
from fedlab.core.standalone import StandalonePipeline

from benchmarks.peers import setting, torch_model
from benchmarks.peers.setup import WAYS
from benchmarks.peers.stepping import SteppedLoop
from benchmarks.worker import serve

NEVER = 10**9  # rounds


class Clients(FedDataset):
    """The population in memory; batches are cut from tensors, not gathered image by image."""

    def __init__(self):
        super().__init__()
        self.images, self.labels = torch_model.load_clients()

    def get_dataloader(self, id, batch_size):
        """A pass over a client's examples in a new order."""
        for rows in torch.randperm(len(self.labels[id])).split(batch_size):
            yield self.images[id, rows], self.labels[id, rows]


class Rounds(StandalonePipeline):
    """FedLab calls `evaluate` after every round: a place to wait, without evaluation."""

    def __init__(self, handler, trainer, wait):
        super().__init__(handler, trainer)
        self.evaluate = wait


def run(wait, model, threads):
    """All rounds, as in FedLab's standalone tutorial."""
    torch.set_num_threads(threads)  # a thread has its own number
    trainer = SGDSerialClientTrainer(model, setting.CLIENTS, logger=logging.getLogger("fedlab"))
    trainer.setup_dataset(Clients())
    trainer.setup_optim(epochs=1, batch_size=setting.BATCH_SIZE, lr=setting.LEARNING_RATE)
    share = setting.CLIENTS_PER_ROUND / setting.CLIENTS
    handler = SyncServerHandler(model, NEVER, share, logger=logging.getLogger("fedlab"))
    pipeline = Rounds(handler, trainer, wait)
    wait()
    pipeline.main()


def prepare(threads):
    """`advance` and facts, as `benchmarks.worker.serve` wants them."""
    torch.manual_seed(setting.SEED)
    model = torch_model.make_model()
    loop = SteppedLoop(lambda wait: run(wait, model, threads))
    return loop.advance, {
        "parameters": torch_model.count_parameters(model),
        "threads": threads,
        "fedlab": importlib.metadata.version("fedlab"),
        "torch": torch.__version__,
    }


def main():
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=WAYS["fedlab"], default="threads")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    serve(lambda: prepare(1 if options.way == "serial" else options.threads))


if __name__ == "__main__":
    main()
