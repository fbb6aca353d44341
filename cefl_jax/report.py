"""Tables, curves and a page of any set of runs.

    python -m cefl_jax.report DIR [DIR ...] --out=report.html [--target=0.8]

Every finished run at or below each DIR is read. The page stands alone; the same tables as CSV,
Markdown and LaTeX and the figures as PDF go into a folder beside it, such as report_files.
"""

import argparse
import collections
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cefl_jax.reports import check_libraries
from cefl_jax.runtime import console
from cefl_jax.runtime.command_line import Parser, refuse
from cefl_jax.safe_read import expand_user

LIBRARIES = ("altair", "duckdb", "jinja2", "vl_convert")


def main(arguments: list[str] | None = None) -> None:
    """Reads, writes, and says what was written.

    What cannot be reported ends with one line on standard error and exit status 2.

    Args:
      arguments: None for those of the command line.
    """
    options = parse(arguments)
    try:
        check_libraries(*LIBRARIES)
        # Imported here: without the libraries above that line should be all that is seen.
        from cefl_jax.reports import page, runs

        places = check_out(options.out)
        found, left_out = runs.read_runs(options.folders)
        written = page.write_report(found, left_out, options.target, *places)
    except (ValueError, OSError) as error:
        refuse(error)
    say(found, left_out, written)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Returns the options of a command line."""
    parser = Parser(
        prog="python -m cefl_jax.report",
        allow_abbrev=False,
        description=str(__doc__).splitlines()[0],
    )
    parser.add_argument(
        "folders", nargs="+", type=expand_user, metavar="DIR", help="searched for folders of runs"
    )
    parser.add_argument(
        "--out", required=True, type=expand_user, metavar="report.html", help="file for the page"
    )
    parser.add_argument(
        "--target",
        type=_accuracy,
        default=0.8,
        metavar="0.8",
        help="test accuracy until which costs are counted (0.8)",
    )
    return parser.parse_args(arguments)


def check_out(out: str) -> tuple[Path, Path]:
    """Returns the path of the page, and of the folder for its tables, such as report_files.

    Raises:
      ValueError: one of them cannot be there: one line with `--out`, its value and the remedy.
    """
    if not out:
        raise ValueError("--out is empty; name a file for the page")
    page = Path(out)
    if page.is_dir():
        raise ValueError(f"--out={out} is a folder; name a file for the page in it")
    if not page.parent.is_dir():
        raise ValueError(
            f"--out={out}: there is no folder {page.parent}; create it or choose another place"
        )
    beside = page.with_name(f"{page.stem}_files")
    if os.path.lexists(beside) and not beside.is_dir():
        raise ValueError(
            f"--out={out}: {beside}, where its tables go, is not a folder; choose another name"
        )
    if not os.access(page.parent, os.W_OK | os.X_OK):
        raise ValueError(f"--out={out}: no permission to write in {page.parent}")
    return page, beside


def say(found: Sequence[Any], left_out: Sequence[Any], written: Sequence[Path]) -> None:
    """Prints what was read and written: from `runs.read_runs` and `page.write_report`."""
    print(f"counted: {len(found)} finished run{'s' * (len(found) != 1)}")
    if left_out:
        states = collections.Counter(run.state for run in left_out)
        print("left out:", ", ".join(f"{count} {state}" for state, count in states.items()))
    page, *others = written
    print(f"written: {page}")
    print(f"written: {len(others)} tables and figures in {others[0].parent}")


def _accuracy(text):
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 1.0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an accuracy; give one above 0 and at most 1, such as 0.8"
        )
    return value


if __name__ == "__main__":
    console.ignore_write_errors()
    main()
