"""The report as one HTML page that needs no network: tables, charts, partitions, settings."""

import base64
import contextlib
import functools
import hashlib
import io
from typing import Any, NamedTuple

import jinja2
import numpy as np
import vl_convert

from cefl_jax.data import sources
from cefl_jax.data.partition_file import from_file
from cefl_jax.plots.curves import draw_partition
from cefl_jax.reports import charts, formats, quantities, settings, tables
from cefl_jax.reports.groups import Section
from cefl_jax.reports.quantities import ACCURACY, CLUSTER
from cefl_jax.reports.runs import LeftOut
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
        text=settings.text,
        num_runs=sum(len(group.runs) for section in sections for group in section.groups),
    )


@functools.cache
def _bundle():
    """Vega, Vega-Lite and their embedding as one script that can stand in a page."""
    script = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # the stub has no default
    return script.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def _describe(section, target):
    """What the template shows of a section."""
    clustering = tables.clustering_table(section)
    return {
        "title": section.title,
        "partition": section.partition,
        "common": section.common,
        "looks": charts.looks(section),
        "summary": _describe_table(tables.summarize(section, target)),
        "clustering": clustering and _describe_table(clustering),
        "chart": chart_data(section, target),
        "pictures": _partitions(section),
        "groups": [_describe_group(group) for group in section.groups],
    }


def _describe_table(table):
    texts = {
        "csv": formats.to_csv(table),
        "md": formats.to_markdown(table),
        "tex": formats.to_latex(table),
    }
    return {"shown": formats.show(table), "notes": table.notes, "texts": texts}


def chart_data(section: Section, target: float) -> dict[str, Any]:
    """Returns what the script of the page draws a section's charts from, as JSON can hold it.

    Returns:
      The looks of the groups, the metrics and axes to choose from, the points of each
      pair of them, and a specification for Vega-Lite, or {} for a section without curves.
    """
    metrics, axes = charts.metrics_of(section), charts.axes_of(section)
    looks = charts.looks(section)
    drawn = {
        metric.key: {axis.key: charts.points(section, metric, axis) for axis in axes}
        for metric in metrics
    }
    shown = [metric for metric in metrics if any(drawn[metric.key].values())]
    if not shown:
        return {}
    accuracy = charts.Axis(ACCURACY, quantities.name(ACCURACY), quantities.Unit(), charts.PERCENTS)
    return {
        "looks": [look._asdict() for look in looks],
        "axes": [{"key": axis.key, "title": axis.title} for axis in axes],
        "metrics": [
            {
                "key": metric.key,
                "title": metric.title,
                "format": metric.format,
                "clusters": metric.key.startswith(CLUSTER),
            }
            for metric in shown
        ],
        "points": drawn,
        "target": ACCURACY,
        "spec": charts.specification(looks, accuracy, axes[0], target),
    }


def _describe_group(group):
    first = group.runs[0].config
    changed = {
        path: value
        for path, value in settings.differences(first).items()
        if settings.changes_results(path)
    }
    runs = [
        {
            "seed": run.seed,
            "folder": str(run.folder),
            "final": _percent(quantities.final(run, ACCURACY)),
            "last": _percent(quantities.last(run, ACCURACY)),
            "execution": {
                path: value
                for path, value in settings.differences(run.config).items()
                if path not in changed and path != "seed"
            },
            "command": settings.command(run.config, f"{run.folder.absolute().name}_again"),
        }
        for run in group.runs
    ]
    return {"label": group.label, "changed": changed, "runs": runs}


def _percent(share):
    return f"{100.0 * share:.2f}%" if share == share else formats.DASH


def _partitions(section):
    """Pictures of who holds what, as data URIs, and how many more there are."""
    pictures, more = gather_partitions(section, MAX_PARTITIONS)
    shown = [
        {
            "seed": picture.seed,
            "reason": picture.reason,
            "uri": picture.png
            and "data:image/png;base64," + base64.b64encode(picture.png).decode(),
        }
        for picture in pictures
    ]
    return {"shown": shown, "more": more}


def gather_partitions(section: Section, most: int) -> tuple[list[Picture], int]:
    """Pictures of the partitions of a section, in the order of their seeds.

    A run's own `partition.png` is taken where some run with the partition has one; otherwise it is
    drawn from `partition.json` and the labels of the dataset.

    Args:
      section: Section.
      most: pictures wanted.
    Returns:
      At most that many; and the number of further partitions.
    """
    holders: dict = {}
    for group in section.groups:
        for run in group.runs:
            holders.setdefault(_fingerprint(run.folder), []).append(run)
    holders.pop(None, None)
    in_order = sorted(holders.values(), key=lambda runs: str(runs[0].seed))
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
    dataset = _load(run.config)
    labels = dataset.train_labels
    parts = from_file(run.folder / "partition.json", len(labels))
    counts = [np.bincount(labels[part], minlength=dataset.num_classes) for part in parts]
    picture = io.BytesIO()
    draw_partition(picture, np.array(counts), [*map(str, dataset.classes)])
    return picture.getvalue()


def _load(config):
    dataset = sources.load(config["data.name"], config.get("data.path"))
    share = config.get("data.validation_share", 0.0)
    return sources.hold_out(dataset, share, config["seed"])
