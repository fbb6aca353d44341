"""The fuzzer of `tests.fuzz`: libFuzzer by way of atheris, or one input again without it."""

import argparse
import contextlib
import functools
import io
import os
import pathlib
import random
import subprocess
import sys
import tempfile

MAX_MB = 3000  # of memory, that of JAX and DuckDB included
MAX_S = 20  # of one input
STRUCTURED = 0.8  # of the changes to inputs of a known form; the others are to their bytes
FRESH = 0.3  # of these, that are to a valid input
MEMORY = "/dev/shm"  # where a file is written without waiting for a disk
INSTALL = "python -m tests.fuzz needs atheris; pip install 'cefl_jax[fuzz]'"


def main():
    """Fuzzes a reader, or all, or reads one input; exit status 1 where something failed."""
    options = parse()
    if options.reader == "all":
        sys.exit(fuzz_all(options))
    if options.file:
        reader = choose(options.reader)
        with tempfile.TemporaryDirectory() as folder:
            taken = reader.read(options.file.read_bytes(), pathlib.Path(folder))
        print(f"{options.reader}: {'taken' if taken else 'refused'}")
    else:
        fuzz(options)


def parse():
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    add = parser.add_argument
    add("reader", help="its name, or all")
    add("file", nargs="?", type=pathlib.Path, help="one input to read again")
    add("--runs", type=int, default=100_000, help="inputs to try (100000)")
    add("--seed", type=int, default=0, help="of the changes; 0: another each time")
    found = "for inputs that reach new code, and those that fail (fuzz_run)"
    add("--folder", type=pathlib.Path, default=pathlib.Path("fuzz_run"), help=found)
    return parser.parse_args()


def fuzz_all(options):
    """Fuzzes one reader after another in processes of their own; whether any has failed."""
    from tests.fuzz.table import make_readers

    readers, failed = make_readers(), []
    total = sum(reader.share for reader in readers.values())
    for name, reader in readers.items():
        runs = max(int(options.runs * reader.share / total), 1)
        command = [sys.executable, "-m", "tests.fuzz", name, f"--runs={runs}"]
        command += [f"--seed={options.seed}", f"--folder={options.folder}"]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed) or 'none'}")
    return bool(failed)


def fuzz(options):
    """Tries inputs until one fails, which is written to a file, or there were enough; then ends."""
    try:
        import atheris
    except ImportError:
        sys.exit(INSTALL)
    with (
        atheris.instrument_imports(include=["cefl_jax", "yaml"]),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        reader = choose(options.reader)
    place = options.folder / options.reader

    def change(data, most, seed):
        rng = random.Random(seed)
        made = None
        if reader.change and rng.random() < STRUCTURED:
            made = reader.change(rng.choice(reader.seeds) if rng.random() < FRESH else data, rng)
        return atheris.Mutate(data, most) if made is None else made[:most]

    flags = {
        "runs": options.runs,
        "seed": options.seed,
        "dict": place / "tokens.txt",
        "artifact_prefix": f"{place}/",
        "max_len": 2 * max(4096, *map(len, reader.seeds)),
        "rss_limit_mb": MAX_MB,
        "timeout": MAX_S,
        "mutate_depth": 3,
        "verbosity": 0,
        "print_final_stats": 1,
    }
    corpus = prepare(place, reader)
    arguments = [sys.argv[0], str(corpus), *(f"-{name}={value}" for name, value in flags.items())]
    fast = MEMORY if os.path.isdir(MEMORY) else None
    with tempfile.TemporaryDirectory(dir=fast) as folder:
        read = functools.partial(reader.read, folder=pathlib.Path(folder))
        atheris.Setup(arguments, lambda data: read(data) and None, custom_mutator=change)
        atheris.Fuzz()


def choose(name):
    """The reader of a name, made ready."""
    from tests.fuzz.table import make_readers, make_ready

    found = make_readers()
    if name not in found:
        sys.exit(f"{name!r} is no reader; known: all, {', '.join(found)}")
    make_ready(name)
    return found[name]


def prepare(place, reader):
    """A folder with the seeds, and what earlier runs have added, and the file of tokens."""
    corpus = place / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(reader.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    tokens = ("".join(f"\\x{byte:02x}" for byte in token) for token in reader.tokens)
    (place / "tokens.txt").write_text("".join(f'"{token}"\n' for token in tokens))
    return corpus


if __name__ == "__main__":
    main()
