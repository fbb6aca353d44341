"""What `benchmarks.gpu` times: rounds, and the programs that do them."""

from benchmarks.alternate import Contender
from benchmarks.settings import make_spec
from benchmarks.torch_baseline.cases import CASES, Case

OURS = ("-m", "benchmarks.cefl_worker")
TORCH = ("-m", "benchmarks.torch_baseline.worker")
VARIANTS = ("loop", "compiled_vmap", "vmap")
CHUNKS = (1, 4, 16)

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
ORDER = ("lenet5_cefl_100", "cnn_cefl", "lenet5_fedavg", "lenet5_cefl", "mlp_cefl")


def make_cases(small):
    """{name: Case}, those that matter most first; with `small`, rounds of next to no work."""
    known = {"lenet5_cefl_100": Case("split", MANY), **CASES}
    return {
        name: known[name].shrink(SMALL, CLUSTERED) if small else known[name] for name in ORDER
    }


def rivals(case, backend):
    """Ours as it chooses, and with a whole cluster at once, in both modes; and PyTorch.

    Args:
      case: Case.
      backend: of JAX; on "gpu" PyTorch computes there too.
    """
    size, fast = cluster_size(case), "run.deterministic=False"
    contenders = [_ours(case, "ours"), _ours(case, "ours, fast", fast)]
    if size > 2:                                # two at once is what it chooses on a CPU
        whole = f"run.client_chunk={size}"
        contenders.append(_ours(case, "ours, whole clusters", whole))
        contenders.append(_ours(case, "ours, whole clusters, fast", whole, fast))
    device = ("--device=cuda",) if backend == "gpu" else ()
    for variant in VARIANTS:
        chosen = (f"--method={case.method}", f"--variant={variant}", *device)
        contenders.append(Contender(f"PyTorch {variant}", (*TORCH, *chosen, *case.fields)))
    return contenders


def chunked(case):
    """Ours with fewer clients at once; none for clusters of one."""
    return [
        _ours(case, f"ours, chunk {chunk}", f"run.client_chunk={chunk}")
        for chunk in CHUNKS
        if chunk < cluster_size(case)
    ]


def cluster_size(case):
    """Clients of a cluster, where they are shared out evenly."""
    spec = make_spec(case.fields)
    if spec.cefl.clustering.rule == "singleton":
        return 1
    return -(-spec.train.clients_per_round // spec.cefl.clustering.num_clusters)


def _ours(case, name, *fields):
    return Contender(name, (*OURS, *case.fields, *fields))
