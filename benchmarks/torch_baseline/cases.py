"""What is timed: settings of ours, and the method that does the same in PyTorch."""

import argparse
import dataclasses
import os

METHODS = ("fedavg", "split")
VARIANTS = ("loop", "vmap", "compiled_vmap")

FEDAVG = (  # each client a cluster of one, and nothing distilled
    "cefl.clustering.rule=singleton",
    "cefl.distill.rule=none",
    "cefl.offload.edge_capacity=5",
)
SMALL = (  # the round in which peers were measured; equal clients, so that every batch is full
    "train.clients_per_round=10",
    "train.local_steps=5",
    "data.partition.name=iid",
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A round."""

    method: str  # of `METHODS`
    fields: tuple[str, ...]  # other than those of `configs/default.py`

    def shrink(self, fields, clustered):
        """The Case with further fields, and with those about clusters where it has any.

        Args:
          fields: texts.
          clustered: texts, of clusters of several clients and of distillation.
        """
        more = () if set(FEDAVG) <= set(self.fields) else clustered
        return Case(self.method, (*self.fields, *fields, *more))


CASES = {
    "lenet5_fedavg": Case("fedavg", (*FEDAVG, *SMALL)),
    "lenet5_cefl": Case("split", ()),
    "cnn_cefl": Case("split", ("model.name=cnn",)),
    "mlp_cefl": Case("split", ("model.name=mlp",)),
    "mlp_fedavg": Case("fedavg", (*FEDAVG, *SMALL, "model.name=mlp")),
    "lenet5_splitfed": Case("split", FEDAVG),
}


def make_parser():
    """Returns the parser of a worker's command line."""
    parser = argparse.ArgumentParser(description="Serves rounds in PyTorch to benchmarks.timing.")
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--variant", choices=VARIANTS, default="loop")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("fields", nargs="*", metavar="FIELD=VALUE")
    return parser
