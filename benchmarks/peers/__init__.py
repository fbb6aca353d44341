"""One FedAvg round at identical settings, in other frameworks and here.

Each framework has an environment of its own:

    python -m benchmarks.peers.setup pfl flower fedjax fedlab --folder=ENVS
    python -m benchmarks.peers.setup blazefl --folder=ENVS --python=python3.14t
    python -m benchmarks.peers --envs=ENVS
"""
