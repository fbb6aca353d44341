"""The revision of the program, where it is run from a checkout."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parents[2]


def read_revision():
    """Commit and whether tracked files differ from it; None where there is no checkout or no git.

    Returns:
      dict with `commit`, 40 hexadecimal digits, and `dirty`.
    """
    if not (ROOT / ".git").exists():
        return None
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    if commit is None or changed is None:
        return None
    return {"commit": commit, "dirty": bool(changed)}


def _git(*words):
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
