"""A report: one HTML page that needs no network, and a folder beside it of tables and figures."""

import base64
import contextlib
import functools
import hashlib
import io
import math
import re
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
import vl_convert

from cefl_jax.data import sources
from cefl_jax.data.partition_file import from_file
from cefl_jax.plots.curves import draw_partition
from cefl_jax.reports import curves, formats, groups, tables
from cefl_jax.reports.groups import Section, by_section
from cefl_jax.reports.runs import LeftOut, Run, changes_results
from cefl_jax.reports.tables import ACCURACY
from cefl_jax.safe_read import InputFileError, read_bytes

MAX_PARTITIONS = 4
MAX_PARTITION_BYTES = 2**28
MAX_PNG_BYTES = 2**24
PNG = b"\x89PNG\r\n\x1a\n"


class Picture(NamedTuple):
    """One partition."""

    seed: int
    png: bytes | None
    reason: str = ""  # why there is no picture

    @property
    def uri(self) -> str:
        """The picture as the source of an image, empty where there is none."""
        return (self.png and f"data:image/png;base64,{base64.b64encode(self.png).decode()}") or ""


def write_report(
    runs: list[Run], left_out: list[LeftOut], target: float, out: Path, beside: Path
) -> list[Path]:
    """Writes the page, its tables as CSV, Markdown and LaTeX, and its figures as PDF.

    Files of the same names are replaced, and no others.

    Args:
      runs, left_out: from `runs.read_runs`.
      target: accuracy of the tables' costs.
      out: path of the page.
      beside: path of the folder, which is made where it is missing.
    Returns:
      The paths written, the page first.
    """
    sections = by_section(runs)
    contents = {"runs.csv": _encode(_runs_csv(sections, target))}
    names = _names([section.title for section in sections])
    for name, section in zip(names, sections, strict=True):
        for table in (tables.summarize(section, target), tables.clustering_table(section)):
            if table:
                contents |= {
                    f"{name}-{table.name}.{ending}": _encode(write(table))
                    for ending, write in formats.WRITERS.items()
                }
        contents |= {
            f"{name}-{figure}.pdf": content
            for figure, content in curves.figures(section, target).items()
        }
    html = render(sections, left_out, target)
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
    costs = [f"{key}_to_target" for key, *_ in tables.AXES.values()]
    heads = ["folder", "section", "label", "seed", "final_accuracy", "last_accuracy", *costs]
    rows = []
    for section in sections:
        for group in section.groups:
            for run in group.runs:
                hit = tables.at_target(run, target)
                numbers = [tables.final(run, ACCURACY), tables.last(run, ACCURACY)]
                numbers += [hit.get(axis, math.nan) for axis in tables.AXES]
                rows.append([run.folder, section.title, group.label, run.seed, *numbers])
    return formats.csv_text([heads, *rows])


def render(sections: list[Section], left_out: list[LeftOut], target: float) -> str:
    """Returns the page.

    Args:
      sections: from `groups.by_section`.
      left_out: from `runs.read_runs`.
      target: accuracy of the tables' costs.
    Returns:
      HTML.
    """
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("cefl_jax.reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return templates.get_template("page.html").render(
        sections=[_describe(section, target) for section in sections],
        left_out=left_out,
        target=target,
        bundle=jinja2.utils.markupsafe.Markup(_bundle()),
        text=groups.text,
        num_runs=sum(len(section.runs) for section in sections),
    )


@functools.cache
def _bundle():
    """Vega, Vega-Lite and their embedding as one script that can stand in a page."""
    script = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # the stub has no default
    return script.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def _describe(section, target):
    """What the template shows of a section."""
    clustering = tables.clustering_table(section)
    pictures, more = gather_partitions(section, MAX_PARTITIONS)
    return {
        "title": section.title,
        "partition": section.partition,
        "common": section.common,
        "looks": curves.looks(section),
        "summary": _describe_table(tables.summarize(section, target)),
        "clustering": clustering and _describe_table(clustering),
        "chart": curves.chart_data(section, target),
        "pictures": pictures,
        "more_pictures": more,
        "groups": [_describe_group(group) for group in section.groups],
    }


def _describe_table(table):
    texts = {ending: write(table) for ending, write in formats.WRITERS.items()}
    return {"shown": formats.show(table), "notes": table.notes, "texts": texts}


def _describe_group(group):
    first = group.runs[0].config
    changed = {
        path: value for path, value in groups.differences(first).items() if changes_results(path)
    }
    runs = [
        {
            "seed": run.seed,
            "folder": str(run.folder),
            "final": _percent(tables.final(run, ACCURACY)),
            "last": _percent(tables.last(run, ACCURACY)),
            "execution": {
                path: value
                for path, value in groups.differences(run.config).items()
                if path not in changed and path != "seed"
            },
            "command": groups.command(run.config, f"{run.folder.absolute().name}_again"),
        }
        for run in group.runs
    ]
    return {"label": group.label, "changed": changed, "runs": runs}


def _percent(share):
    return f"{100.0 * share:.2f}%" if share == share else formats.DASH


def gather_partitions(section: Section, most: int) -> tuple[list[Picture], int]:
    """Gathers pictures of the partitions of a section, in the order of their seeds.

    A run's own `partition.png` is taken where some run with the partition has one; otherwise it is
    drawn from `partition.json` and the labels of the dataset.

    Args:
      section: Section.
      most: pictures wanted.
    Returns:
      At most that many; and the number of further partitions.
    """
    holders: dict = {}
    for run in section.runs:
        holders.setdefault(_fingerprint(run.folder), []).append(run)
    holders.pop(None, None)
    in_order = sorted(holders.values(), key=lambda runs: runs[0].seed)
    return [_picture(runs) for runs in in_order[:most]], max(len(in_order) - most, 0)


def _fingerprint(folder):
    """What is equal where two partitions are; None for a folder that says nothing of its own."""
    for name in ("partition.json", "partition.png"):
        with contextlib.suppress(InputFileError):
            return hashlib.sha256(read_bytes(folder / name, MAX_PARTITION_BYTES)).digest()
    return None


def _picture(runs):
    for run in runs:
        with contextlib.suppress(InputFileError):
            content = read_bytes(run.folder / "partition.png", MAX_PNG_BYTES)
            if content.startswith(PNG):
                return Picture(run.seed, content)
    try:
        return Picture(runs[0].seed, _draw(runs[0]))
    except (ValueError, OSError, ImportError) as error:
        return Picture(runs[0].seed, None, str(error))


def _draw(run):
    dataset = sources.load(run.config["data.name"], run.config["data.path"])
    share, seed = run.config["data.validation_share"], run.config["seed"]
    labels = sources.hold_out(dataset, share, seed).train_labels
    parts = from_file(run.folder / "partition.json", len(labels))
    counts = [np.bincount(labels[part], minlength=dataset.num_classes) for part in parts]
    picture = io.BytesIO()
    draw_partition(picture, np.array(counts), [*map(str, dataset.classes)])
    return picture.getvalue()
