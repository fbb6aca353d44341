"""The files of a report: the page, and a folder beside it with its tables and figures."""

import csv
import io
import os
import re
from pathlib import Path

from cefl_jax.reports import charts, formats, page, quantities, tables
from cefl_jax.reports.groups import by_section
from cefl_jax.reports.runs import LeftOut, Run

WRITERS = {"csv": formats.to_csv, "md": formats.to_markdown, "tex": formats.to_latex}


def check_out(out: str | Path) -> None:
    """Refuses a place where the page, or the folder beside it, cannot be.

    Raises:
      ValueError: one line that names `--out`, its value and the remedy.
    """
    if not os.fspath(out):
        raise ValueError("--out is empty; name a file for the page")
    out = Path(out)
    if out.is_dir():
        raise ValueError(f"--out={out} is a folder; name a file for the page in it")
    if not out.parent.is_dir():
        raise ValueError(
            f"--out={out}: there is no folder {out.parent}; create it or choose another place"
        )
    beside = folder_beside(out)
    if os.path.lexists(beside) and not beside.is_dir():
        raise ValueError(
            f"--out={out}: {beside}, where its tables go, is not a folder; choose another name"
        )
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise ValueError(f"--out={out}: no permission to write in {out.parent}")


def folder_beside(out: Path) -> Path:
    """Returns where tables and figures of a page go, such as report_files for report.html."""
    return out.with_name(f"{out.stem}_files")


def write_report(
    runs: list[Run], left_out: list[LeftOut], target: float, out: str | Path
) -> list[Path]:
    """Writes the page, its tables as CSV, Markdown and LaTeX, and its figures as PDF.

    Files of the same names are replaced, and no others.

    Args:
      runs, left_out: from `runs.read_runs`.
      target: accuracy of the tables' costs.
      out: path of the page.
    Returns:
      The paths written, the page first.
    """
    out = Path(out)
    sections = by_section(runs)
    contents = {"runs.csv": _encode(_runs_csv(sections, target))}
    names = _names([section.title for section in sections])
    for name, section in zip(names, sections, strict=True):
        for table in (tables.summarize(section, target), tables.clustering_table(section)):
            if table:
                contents |= {
                    f"{name}-{table.name}.{ending}": _encode(write(table))
                    for ending, write in WRITERS.items()
                }
        contents |= {
            f"{name}-{figure}.pdf": content
            for figure, content in charts.figures(section, target).items()
        }
    html = page.render(sections, left_out, target)
    beside = folder_beside(out)
    beside.mkdir(exist_ok=True)
    for name, content in contents.items():
        (beside / name).write_bytes(content)
    out.write_bytes(_encode(html))
    return [out, *(beside / name for name in contents)]


def _encode(text):
    """UTF-8, whatever bytes the names of folders have."""
    return text.encode(errors="backslashreplace")


def _names(titles):
    """Beginnings of names of files, one a section, all different."""
    names: list[str] = []
    for title in titles:
        plain = re.sub(r"[^\w.=]+", "-", title, flags=re.ASCII).strip("-.")[:80] or "section"
        twins = sum(re.fullmatch(rf"{re.escape(plain)}(-\d+)?", name) is not None for name in names)
        names.append(f"{plain}-{twins + 1}" if twins else plain)
    return names


def _runs_csv(sections, target):
    """Every run by itself: which it is, its accuracy and its costs to the target."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    costs = [f"{key}_to_target" for key, _ in tables.COSTS.values()]
    writer.writerow(
        ["folder", "section", "label", "seed", "final_accuracy", "last_accuracy", *costs]
    )
    for section in sections:
        for group in section.groups:
            for run in group.runs:
                accuracies = [
                    take(run, quantities.ACCURACY) for take in (quantities.final, quantities.last)
                ]
                hit = quantities.at_target(run, target) or {}
                numbers = [*accuracies, *(hit.get(axis, "") for axis in tables.COSTS)]
                writer.writerow(
                    [
                        run.folder,
                        section.title,
                        group.label,
                        run.seed,
                        *("" if number != number else number for number in numbers),
                    ]
                )
    return text.getvalue()
