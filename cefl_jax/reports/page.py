"""The report as one HTML page that needs no network: tables, charts, partitions, settings."""

import base64
import functools
from typing import Any

import jinja2
import vl_convert

from cefl_jax.reports import charts, formats, partitions, quantities, settings, tables
from cefl_jax.reports.groups import Section
from cefl_jax.reports.quantities import ACCURACY, CLUSTER
from cefl_jax.reports.runs import LeftOut

MOST_PARTITIONS = 4


def render(sections: list[Section], left_out: list[LeftOut], target: float) -> str:
    """The page.

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
    """What the script of the page draws a section's charts from, as JSON can hold it.

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
    pictures, more = partitions.gather(section, MOST_PARTITIONS)
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
