"""Pictures of one run, for a person: how it learned, and who held which data.

Drawn with matplotlib's objects and never through pyplot, so that a picture leaves no global state.
Colours can be told apart by colour-blind readers (Okabe and Ito 2008; Tol 2021, "muted").
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cefl_jax.runtime import units
from cefl_jax.types import AnyArray

DPI = 150
CURVES = (
    ("test/accuracy", "edge (deployed)", "#0072B2", "-"),
    ("test/cloud_accuracy", "cloud", "#D55E00", "--"),
)
ONLY_CURVE = (("test/accuracy", "deployed", "#0072B2", "-"),)
LABEL_COLOURS = (
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933"),
    *("#DDCC77", "#CC6677", "#882255", "#AA4499", "#BBBBBB"),
)
GREY = "#555555"
MAX_BARS = 60
MAX_COLUMNS = 1500  # of a heat map, which has fewer pixels


def draw_learning_curve(
    path: str | Path, records: Sequence[Mapping[str, float | None]], title: str = ""
) -> None:
    """Draws test accuracy over rounds, and over simulated time where there is such a time.

    The cloud model's curve is drawn where it exists. Values that are missing or not finite leave
    a gap.

    Args:
      path: PNG file to write.
      records: one an evaluation, in order; at least one.
      title: one line above the picture.
    """
    if not records:
        raise ValueError("a learning curve needs at least one record; the run has none")
    round = _values(records, "round")
    time_s = _values(records, "sim/time_s")
    panels = [(round, "round")]
    if np.isfinite(time_s).any():
        name, length_s = units.time_unit(np.nanmax(time_s))
        panels.append((time_s / length_s, f"simulated time ({name})"))
    has_cloud = any("test/cloud_accuracy" in record for record in records)
    curves = [
        (100.0 * _values(records, key), *look)
        for key, *look in (CURVES if has_cloud else ONLY_CURVE)
    ]

    figure = Figure(figsize=(1.2 + 4.2 * len(panels), 3.6), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    all_axes[0].set_ylabel("test accuracy (%)")
    all_axes[0].set_ylim(*_percent_limits([accuracy for accuracy, *_ in curves]))
    for axes, (x, x_label) in zip(all_axes, panels, strict=True):
        axes.set_xlabel(x_label)
        _draw_curves(axes, x, curves)
    all_axes[0].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    figure.savefig(path, format="png")


def draw_partition(
    path: str | Path | io.BytesIO,
    label_counts: AnyArray | Sequence[Sequence[int]],
    label_names: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Draws which client holds how many examples of which label, and how large clients are.

    Few clients and labels are stacked bars in the clients' own order. More are a heat map of each
    client's label mix, clients sorted by their largest label, under a curve of their sizes; of
    more than `MAX_COLUMNS` clients, neighbours in that order are averaged.

    Args:
      path: PNG file to write, or where to keep its bytes.
      label_counts: [N, Y] examples of each label at each client, N and Y at least 1.
      label_names: Y names; the numbers 0 to Y-1 when None.
      title: one line above the picture.
    """
    counts = np.asarray(label_counts)
    if counts.ndim != 2 or 0 in counts.shape:
        raise ValueError(
            f"label_counts has shape {counts.shape}; it needs [clients, labels] "
            "with at least one of each"
        )
    num_clients, num_labels = counts.shape
    label_names = [*map(str, range(num_labels) if label_names is None else label_names)]
    if len(label_names) != num_labels:
        raise ValueError(f"{len(label_names)} label names for {num_labels} labels; give one each")

    figure = Figure(figsize=(9.6, 4.6), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    if num_clients <= MAX_BARS and num_labels <= len(LABEL_COLOURS):
        _draw_bars(figure, counts, label_names)
    else:
        _draw_heat_map(figure, counts, label_names)
    figure.savefig(path, format="png")


def _draw_curves(axes, x, curves):
    _plain(axes)
    ends = []
    for accuracy, name, colour, dashes in curves:
        look = {"color": colour, "linewidth": 1.8, "markersize": 3}
        axes.plot(x, accuracy, dashes, marker="o" if len(x) <= 30 else None, **look)
        seen = np.flatnonzero(np.isfinite(x) & np.isfinite(accuracy))
        if seen.size:
            last = seen[-1]
            axes.plot(x[last], accuracy[last], "o", color=colour, markersize=5, clip_on=False)
            ends.append((accuracy[last], name, colour))
    axes.set_xlim(0.0, 1.03 * np.nanmax(x) or 1.0)
    if not ends:
        place = {"horizontalalignment": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, "no finite value", **place)
    beside = {"verticalalignment": "center", "transform": axes.get_yaxis_transform()}
    heights = _apart([value for value, *_ in ends], *axes.get_ylim())
    for (value, name, colour), height in zip(ends, heights, strict=True):
        axes.text(1.02, height, f"{name}\n{value:.1f}%", color=colour, fontsize=9, **beside)


def _draw_bars(figure, label_counts, label_names):
    num_clients = len(label_counts)
    bars, sizes = figure.subplots(1, 2, sharey=True, width_ratios=(6, 1))
    clients = np.arange(num_clients)
    bottoms = np.cumsum(label_counts, axis=1) - label_counts
    for label, (name, colour) in enumerate(zip(label_names, LABEL_COLOURS, strict=False)):
        held, below = label_counts[:, label], bottoms[:, label]
        bars.bar(clients, held, bottom=below, width=0.85, color=colour, label=name)
    _plain(bars, grid="y")
    bars.set_xlabel("client")
    bars.set_ylabel("examples")
    bars.set_xticks(clients[:: math.ceil(num_clients / 20)])
    middle, reach = (num_clients - 1) / 2.0, max(num_clients, 8) / 2.0 + 0.1
    bars.set_xlim(middle - reach, middle + reach)
    _draw_sizes(sizes, label_counts.sum(axis=1))
    look = {"title": "label", "frameon": False, "fontsize": 9, "loc": "outside right center"}
    legend = figure.legend(reverse=True, **look)  # stacked as the bars are
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_heat_map(figure, label_counts, label_names):
    sizes = label_counts.sum(axis=1)
    share = 100.0 * label_counts / np.maximum(sizes, 1)[:, None]
    order = np.lexsort((-share.max(axis=1), label_counts.argmax(axis=1)))  # by their largest label
    num_clients, num_labels = label_counts.shape
    columns = min(num_clients, MAX_COLUMNS)
    edges = np.arange(columns + 1) * num_clients // columns
    width = np.diff(edges)
    share = np.add.reduceat(share[order], edges[:-1]) / width[:, None]
    size = np.add.reduceat(sizes[order], edges[:-1]) / width
    (over, spread), (mix, key) = figure.subplots(
        2, 2, sharex="col", sharey="row", width_ratios=(6, 1), height_ratios=(1, 2.4)
    )
    key.set_axis_off()
    over.stairs(size, edges - 0.5, fill=True, color=GREY)
    over.set_ylabel("examples")
    _plain(over, grid="y")
    _draw_sizes(spread, sizes)
    spread.xaxis.set_label_position("top")
    spread.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False)
    look = {"aspect": "auto", "interpolation": "nearest", "cmap": "Blues"}
    sides = (-0.5, num_clients - 0.5, num_labels - 0.5, -0.5)
    image = mix.imshow(share.T, vmin=0.0, vmax=max(share.max(), 1.0), extent=sides, **look)
    mix.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    mix.set_xlabel("clients, sorted by their largest label")
    mix.set_ylabel("label")
    if num_labels <= 30:
        mix.set_yticks(range(num_labels), label_names, parse_math=False)
    bar = key.inset_axes((0.0, 0.0, 0.15, 1.0))
    figure.colorbar(image, cax=bar, label="share of the client's examples (%)")
    figure.align_ylabels([over, mix])


def _draw_sizes(axes, sizes):
    largest = max(sizes.max(), 1)
    axes.hist(sizes, bins=np.linspace(0.0, largest, 21), orientation="horizontal", color=GREY)
    axes.set_ylim(0.0, 1.05 * largest)
    axes.set_xlabel("clients")
    axes.xaxis.get_major_locator().set_params(integer=True)
    _plain(axes, grid="x")


def _values(records, key):
    values = np.array([record.get(key) for record in records], float)  # None as nan
    return np.where(np.isfinite(values), values, math.nan)


def _percent_limits(curves, margin=3.0, least=10.0):
    if not np.isfinite(curves).any():
        return 0.0, 100.0
    low, high = np.nanmin(curves) - margin, np.nanmax(curves) + margin
    short = max(least - (high - low), 0.0) / 2.0
    return max(low - short, 0.0), min(high + short, 100.0)


def _apart(heights, low, high, part=0.14):
    """Label heights moved apart where two would overlap, inside the axes."""
    if len(heights) < 2:
        return heights
    gap = part * (high - low)
    first, second = np.argsort(heights)
    if heights[second] - heights[first] < gap:
        heights = np.full(2, np.clip(np.mean(heights), low + gap, high - gap))
        heights[[first, second]] += -gap / 2.0, gap / 2.0
    return heights


def _plain(axes, grid="both"):
    axes.grid(axis=grid, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
