"""FedAvg in Flower: its Simulation Runtime on Ray, with its FedAvg strategy.

    PYTHONPATH=. ENVS/flower/bin/python -m benchmarks.peers.flower [--threads=2]

A round is from one `configure_train` of the strategy to the next. As many clients train at once as
there are threads: on two cores a round was shorter so than with both for one client.
"""

import argparse
import importlib.metadata
import logging
import os

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}  # read at import

import ray
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.peers import setting, torch_model
from benchmarks.peers.stepping import SteppedLoop
from benchmarks.worker import serve

NEVER = 10**9  # rounds


class WaitingFedAvg(FedAvg):
    """FedAvg that waits before every round."""

    def __init__(self, wait, **options):
        super().__init__(**options)
        self.wait = wait

    def configure_train(self, server_round, arrays, config, grid):
        """Called by Flower at the start of a round."""
        logging.getLogger("flwr").setLevel(logging.WARNING)  # not a dozen lines every round
        self.wait()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        """Called by Flower when the clients are done; a round without one of them is no round."""
        replies = list(replies)
        if len(replies) != setting.CLIENTS_PER_ROUND or any(one.has_error() for one in replies):
            raise RuntimeError(f"not every client of round {server_round} delivered")
        return super().aggregate_train(server_round, replies)


def make_client_app():
    """A client that trains in an actor; an actor keeps its model and the examples."""
    app, kept = ClientApp(), {}

    @app.train()
    def train(message, context):
        if not kept:
            kept["model"], kept["clients"] = torch_model.make_model(), torch_model.load_clients()
        model, (images, labels) = kept["model"], kept["clients"]
        client = context.node_config["partition-id"]
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        loss = torch_model.train(model, images[client], labels[client])
        metrics = MetricRecord({"train_loss": loss, "num-examples": len(labels[client])})
        content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
        return Message(content=content, reply_to=message)

    return app


def run(wait, model, threads):
    """All rounds, as in Flower's PyTorch quickstart."""
    app = ServerApp()

    @app.main()
    def main(grid, context):
        strategy = WaitingFedAvg(
            wait,
            fraction_train=setting.CLIENTS_PER_ROUND / setting.CLIENTS,
            fraction_evaluate=0.0,
            min_train_nodes=setting.CLIENTS_PER_ROUND,  # clients are still joining in round 1
            min_available_nodes=setting.CLIENTS,
        )
        strategy.start(grid=grid, initial_arrays=ArrayRecord(model.state_dict()), num_rounds=NEVER)

    backend = {
        "init_args": {"num_cpus": threads, "_node_ip_address": "127.0.0.1"},
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
    }
    run_simulation(app, make_client_app(), setting.CLIENTS, backend_config=backend)


def prepare(threads):
    """`advance` and facts, as `benchmarks.worker.serve` wants them."""
    torch.manual_seed(setting.SEED)
    model = torch_model.make_model()
    loop = SteppedLoop(lambda wait: run(wait, model, threads))
    return loop.advance, {
        "parameters": torch_model.count_parameters(model),
        "threads": threads,
        "flwr": importlib.metadata.version("flwr"),
        "ray": importlib.metadata.version("ray"),
        "torch": torch.__version__,
    }


def main():
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    serve(lambda: prepare(options.threads))
    ray.shutdown()
    os._exit(0)  # Flower's threads would wait for more work


if __name__ == "__main__":
    main()
