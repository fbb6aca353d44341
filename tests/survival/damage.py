"""Damages checkpoints bit by bit, and lets a disk run full.

    python -m tests.survival.damage --flips=100 --workdir=DIR

Every flipped bit has to be noticed, and the checkpoint before used in its place; the run that goes
on from there has to end as the one in peace, bit for bit. With the rights to mount a file system of
its own, also: a disk that is full during a save, and then wholly. Exits with 1 when anything fails.
"""

import random
import shutil
import subprocess
import sys
import time

from cefl_jax.runtime.checkpoint import Checkpoints
from tests.survival import small

DISK_MB = 60


def flip(folder, draw):
    """Flips a bit at a random place of a folder, uniform over all bytes or over all files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    weights = [path.stat().st_size for path in files] if draw.random() < 0.5 else None
    (file,) = draw.choices(files, weights)
    content = bytearray(file.read_bytes())
    at, bit = draw.randrange(len(content)), draw.randrange(8)
    content[at] ^= 1 << bit
    file.write_bytes(content)
    return f"{file.relative_to(folder)}, byte {at}, bit {bit}"


def flips(peace, folder, count, draw):
    """How many of so many single flipped bits were noticed, with the checkpoint before in use."""
    noticed = 0
    for _ in range(count):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(peace / "checkpoints", folder)
        *_, before, newest = sorted(folder.iterdir())
        place, warned = flip(newest, draw), []
        loaded = Checkpoints(folder.absolute(), warn=warned.append).load()
        fine = loaded.round == int(before.name) and len(warned) == 1
        noticed += fine
        print(f"{place}: {warned if fine else 'MISSED'}")
    return noticed


def resume_damaged(peace, workdir, draw):
    """Whether a run whose newest checkpoint is damaged ends as the one in peace."""
    shutil.copytree(peace, workdir)
    flip(max((workdir / "checkpoints").iterdir()), draw)
    return small.run(workdir) == small.result(peace)


def fill(peace, disk, leave):
    """Whether a run survives a disk that is filled, but for so many bytes, while it lasts.

    Its earlier checkpoints have to stay, it ends with few words, and, with room again, comes to
    what the run in peace came to.
    """
    workdir, filler = disk / f"run{leave}", disk / "filler"
    process = small.start(workdir)
    while process.poll() is None and len(list(workdir.glob("checkpoints/*/seal.json"))) < 2:
        time.sleep(0.002)
    filler.write_bytes(b"0" * max(shutil.disk_usage(disk).free - leave, 0))
    code, output = small.finish(process)
    calm = "Traceback" not in output and code in (0, 1)
    kept = len(list(workdir.glob("checkpoints/*/seal.json")))
    filler.unlink()
    same = small.run(workdir)[0] == small.result(peace)[0]
    print(f"{leave} bytes left: exit status {code}, {kept} checkpoints stayed, same: {same}")
    shutil.rmtree(workdir)
    return calm and kept >= 2 and same


def main():
    """Damages, and says what was noticed."""
    options = small.parse(__doc__, flips=100, seed=0)
    folder, draw = options.workdir, random.Random(options.seed)
    peace, disk = folder / "peace", folder / "disk"
    small.run(peace)
    noticed = flips(peace, folder / "flipped", options.flips, draw)
    print(f"{noticed} of {options.flips} flipped bits noticed, and the checkpoint before used")
    fine = [noticed == options.flips, resume_damaged(peace, folder / "damaged", draw)]
    print(f"resumed from the one before: {'same' if fine[-1] else 'DIFFERENT'}")
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False).returncode:
        print("no rights to mount: the full disk was not tried")
    else:
        try:
            fine += [fill(peace, disk, leave) for leave in (1_000_000, 0)]
        finally:
            subprocess.run(["umount", str(disk)], check=False)
    sys.exit(not all(fine))


if __name__ == "__main__":
    main()
