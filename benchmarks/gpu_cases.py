"""What `benchmarks.gpu` times: rounds, and the programs that do them."""

from benchmarks.settings import make_spec
from benchmarks.timing import Contender
from benchmarks.torch_baseline.cases import CASES, Case

OURS = ("-m", "benchmarks.cefl_worker")
TORCH = ("-m", "benchmarks.torch_baseline.worker")
VARIANTS = ("loop", "compiled_vmap")
CHUNKS = (1, 2)

MANY = (
    "train.clients_per_round=100",
    "cefl.clustering.num_clusters=10",
    "network.num_edges=10",
)
SMALL = (
    "train.clients_per_round=4",
    "train.local_steps=2",
    "train.batch_size=4",
)
CLUSTERED = ("cefl.clustering.num_clusters=2",)
ORDER = ("lenet5_cefl", "lenet5_fedavg", "lenet5_cefl_100", "cnn_cefl", "mlp_cefl")
CHOICES = ("lenet5_cefl",)  # of which our own choices are timed as well
WIDTHS = {"lenet5_cefl": (8, 64, 256), "lenet5_fedavg": (64,), "cnn_cefl": (8,), "mlp_cefl": (64,)}
"""Runs side by side, by case."""


def make_cases(small):
    """{name: Case}, those that matter most first; with `small`, rounds of next to no work."""
    known = {"lenet5_cefl_100": Case("split", MANY), **CASES}
    return {name: known[name].shrink(SMALL, CLUSTERED) if small else known[name] for name in ORDER}


def rivals(name, case, backend):
    """Returns the contenders of a case, named "NAME|PROGRAM": ours, and PyTorch.

    Args:
      name: of the case.
      case: Case.
      backend: of JAX; on "gpu" PyTorch computes there too.
    """
    device = ("--device=cuda",) if backend == "gpu" else ()
    contenders = [_ours(name, case, "ours")]
    for width in WIDTHS.get(name, ()):
        contenders.append(_ours(name, case, f"ours, {width} side by side", f"--stack={width}"))
    for variant in VARIANTS:
        chosen = (f"--method={case.method}", f"--variant={variant}", *device)
        arguments = (*TORCH, *chosen, *case.fields)
        contenders.append(Contender(f"{name}|PyTorch {variant}", arguments))
    return contenders


def choices(name, case):
    """Returns ours in the other layout, in bfloat16 and with fewer clients at once."""
    fields = {"loop": "run.layout=loop", "bfloat16": "run.compute_dtype=bfloat16"}
    chunks = [chunk for chunk in CHUNKS if chunk < cluster_size(case)]
    fields |= {f"chunk {chunk}": f"run.client_chunk={chunk}" for chunk in chunks}
    return [_ours(name, case, f"ours, {choice}", field) for choice, field in fields.items()]


def cluster_size(case):
    """Returns the clients of a cluster, where they are shared out evenly."""
    spec = make_spec(case.fields)
    if spec.cefl.clustering.rule == "singleton":
        return 1
    return -(-spec.train.clients_per_round // spec.cefl.clustering.num_clusters)


def _ours(name, case, program, *fields):
    return Contender(f"{name}|{program}", (*OURS, *case.fields, *fields))
