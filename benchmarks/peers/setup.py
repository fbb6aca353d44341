"""Makes a peer's environment: a virtual environment with exactly what its list names.

    python -m benchmarks.peers.setup pfl flower fedjax fedlab --folder=ENVS [--python=python3.11]
    python -m benchmarks.peers.setup blazefl --folder=ENVS --python=python3.14t

The lists, `requirements/NAME.txt`, were made on CPython 3.11, that of BlazeFL on 3.14. On some
platforms `torch` brings gigabytes of CUDA; with wheels of its CPU build in a folder,
PIP_FIND_LINKS=FOLDER avoids it.
"""

import argparse
import pathlib
import subprocess
import sys

WAYS = {  # to run a round, of those that a framework documents; without a name where it has one
    "pfl": ("serial", "threads", "processes"),
    "flower": (),
    "fedjax": (),
    "fedlab": ("serial", "threads"),
    "blazefl": ("serial", "threads", "processes"),
}

_LISTS = pathlib.Path(__file__).parent / "requirements"


def python_of(folder, name):
    """Absolute path of a peer's interpreter, links kept: by its path Python knows what is its."""
    return pathlib.Path(folder).absolute() / name / "bin" / "python"


def command_of(folder, name):
    """The command that sets a peer up, for messages."""
    return f"python -m benchmarks.peers.setup {name} --folder={folder}"


def set_up(folder, name, python):
    """Makes or completes the environment of a peer in `folder/name`.

    Args:
      folder: of all environments; made if it is missing.
      name: one of `WAYS`.
      python: interpreter to make it with.
    Raises:
      subprocess.CalledProcessError: a step that failed; its own words are on standard error.
    """
    inside = python_of(folder, name)
    if not inside.exists():
        subprocess.run([python, "-m", "venv", inside.parents[1]], check=True)
    wanted = _LISTS / f"{name}.txt"
    subprocess.run([inside, "-m", "pip", "install", "--quiet", "-r", wanted], check=True)


def main():
    """Reads the command line and sets up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=WAYS, metavar="NAME", help=", ".join(WAYS))
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--python", default=sys.executable, help="interpreter to make them with")
    options = parser.parse_args()
    for name in options.names:
        try:
            set_up(options.folder, name, options.python)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"{name}: {error}; see {_LISTS / name}.txt and choose --python to fit it")
        print(f"{name}: {python_of(options.folder, name)}", flush=True)


if __name__ == "__main__":
    main()
