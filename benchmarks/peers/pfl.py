"""FedAvg in pfl-research, in one process or in several that share a round's clients.

    PYTHONPATH=. ENVS/pfl/bin/python -m benchmarks.peers.pfl [--way=processes] [--threads=2]

pfl divides clients among the processes that its environment variables name, as in its guide to fast
simulations.
"""

import argparse
import json
import os
import socket
import subprocess
import sys

from benchmarks.peers.setup import WAYS
from benchmarks.worker import serve


def start_workers(count):
    """Processes of one thread each that serve the same rounds together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    addresses = ",".join(f"127.0.0.1:{port}" for _ in range(count))  # only the first is used
    variables = {"PFL_WORKER_ADDRESSES": addresses, "GLOO_SOCKET_IFNAME": "lo"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.pfl", "--way=serial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | variables | {"PFL_WORKER_RANK": str(rank)},
        )
        for rank in range(count)
    ]


def prepare(count):
    """`advance` and facts, as `benchmarks.worker.serve` wants them."""
    workers = start_workers(count)

    def hear():
        lines = [worker.stdout.readline() for worker in workers]
        if not all(lines):
            raise RuntimeError("one of pfl's processes ended")
        return lines

    def advance():
        for worker in workers:
            worker.stdin.write(json.dumps({"rounds": 1}) + "\n")
            worker.stdin.flush()
        hear()

    about = json.loads(hear()[0]) | {"processes": count}
    del about["prepare_s"], about["first_round_s"]  # those of `serve` here count
    return advance, about


def main():
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=WAYS["pfl"], default="processes")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.way == "processes":
        serve(lambda: prepare(options.threads))
        return
    from benchmarks.peers import pfl_rounds  # joins the other processes when it is imported

    serve(lambda: pfl_rounds.prepare(1 if options.way == "serial" else options.threads))


if __name__ == "__main__":
    main()
