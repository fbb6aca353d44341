"""Damages checkpoints bit by bit, and lets a disk run full.

    python -m tests.survival.damage --flips=100 --workdir=DIR

Every flipped bit has to be noticed, and the checkpoint before used in its place; the run that goes
on from there has to end as the one in peace, bit for bit. With the rights to mount a file system of
its own, also: a disk that is full during a save, and then wholly. Exits with 1 when anything fails.
"""

import argparse
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

from cefl_jax.runtime.checkpoint import Checkpoints
from tests.survival import small

DISK_MB = 60


def flip(folder, draw):
    """Flips a bit at a random place of a random file of a folder; the file, byte and bit.

    By turns of chance the place is uniform over all bytes, or over all files.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    weights = [path.stat().st_size for path in files] if draw.random() < 0.5 else None
    (file,) = draw.choices(files, weights)
    at, bit = draw.randrange(file.stat().st_size), draw.randrange(8)
    content = bytearray(file.read_bytes())
    content[at] ^= 1 << bit
    file.write_bytes(content)
    return file.relative_to(folder), at, bit


def flips(peace, folder, count, draw):
    """How many of so many single flipped bits were noticed, with the checkpoint before in use."""
    noticed = 0
    for _ in range(count):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(peace / "checkpoints", folder)
        rounds = sorted(int(path.name) for path in folder.iterdir())
        place, said = flip(folder / f"{rounds[-1]:06d}", draw), []
        loaded = Checkpoints(folder.absolute(), warn=said.append).load()
        fine = loaded.round == rounds[-2] and len(said) == 1
        noticed += fine
        print(f"{place[0]}, byte {place[1]}, bit {place[2]}: {said if fine else 'MISSED'}")
    return noticed


def go_on_damaged(peace, workdir, draw):
    """Whether a run whose newest checkpoint is damaged ends as the one in peace."""
    shutil.copytree(peace, workdir)
    newest = max(path for path in (workdir / "checkpoints").iterdir())
    flip(newest, draw)
    code, output = small.finish(small.start(workdir))
    print(*[line for line in output.splitlines() if "damaged" in line])
    return code == 0 and small.result(workdir) == small.result(peace)


def fill(disk, leave):
    """Fills a disk but for so many bytes, with a file."""
    free = shutil.disk_usage(disk).free
    with open(disk / "filler", "wb") as file:
        file.write(b"0" * max(free - leave, 0))


def full(peace, disk, leave):
    """What becomes of a run whose disk is filled, but for so many bytes, while it lasts.

    Returns:
      Whether its earlier checkpoints stayed, it ended with few words, and, with room again, it went
      on to what the run in peace came to.
    """
    workdir = disk / f"run{leave}"
    process = small.start(workdir)
    while process.poll() is None and len(list(workdir.glob("checkpoints/*/seal.json"))) < 2:
        time.sleep(0.002)
    fill(disk, leave)
    code, output = small.finish(process)
    lines = [line for line in output.splitlines() if "error" in line or "warning" in line]
    print(f"{leave} bytes left: exit status {code}; {lines[:2]}, {len(lines)} such lines")
    calm = "Traceback" not in output and code in (0, 1)
    kept = len(list(workdir.glob("checkpoints/*/seal.json")))
    (disk / "filler").unlink()
    code, _ = small.finish(small.start(workdir))
    same = code == 0 and small.result(workdir)[0] == small.result(peace)[0]
    print(f"  {kept} checkpoints stayed; gone on with: {'same' if same else 'DIFFERENT'}")
    shutil.rmtree(workdir)
    return calm and kept >= 2 and same


def main():
    """Damages, and says what was noticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path(tempfile.mkdtemp()))
    options = parser.parse_args()
    folder, draw = options.workdir, random.Random(options.seed)
    folder.mkdir(exist_ok=True)
    peace = folder / "peace"
    small.finish(small.start(peace))
    noticed = flips(peace, folder / "flipped", options.flips, draw)
    print(f"{noticed} of {options.flips} flipped bits noticed, and the checkpoint before used")
    fine = [noticed == options.flips, go_on_damaged(peace, folder / "damaged", draw)]
    print(f"gone on from the one before: {'same' if fine[-1] else 'DIFFERENT'}")
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False).returncode:
        print("no rights to mount: the full disk was not tried")
    else:
        try:
            fine += [full(peace, disk, leave) for leave in (1_000_000, 0)]
        finally:
            subprocess.run(["umount", str(disk)], check=False)
    sys.exit(not all(fine))


if __name__ == "__main__":
    main()
