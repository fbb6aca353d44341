"""The revision of the program, where it is run from a checkout."""

import os
import pathlib
import subprocess
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]


def read_revision() -> dict[str, Any] | None:
    """Commit and whether tracked files differ from it; None where there is no checkout or no git.

    Returns:
      `commit`, 40 hexadecimal digits, and `dirty`.
    """
    if not (ROOT / ".git").exists():
        return None
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    if commit is None or changed is None:
        return None
    return {"commit": commit, "dirty": bool(changed)}


def _git(*words):
    # Within a hook of git, these name the checkout that the hook is of.
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")
    environment = {name: text for name, text in os.environ.items() if name not in elsewhere}
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words],
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
