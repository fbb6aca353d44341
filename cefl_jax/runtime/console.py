"""What a person sees of a run while it lasts and at its end.

On a terminal a live display; anywhere else plain lines, one an evaluation. A value that the method
does not have is not shown; one that is not finite is shown as nan.
"""

import datetime
import functools
import io
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cefl_jax.runtime.units import format_bytes, format_energy, format_number, format_time
from cefl_jax.specs import RunSpec

TAIL = 10  # evaluations whose mean is shown

_format_share = "{:.1%}".format
READINGS = {
    "test/accuracy": ("test accuracy", _format_share),
    "test/cloud_accuracy": ("cloud accuracy", _format_share),
    "train/loss": ("train loss", functools.partial(format_number, digits=4)),
    "sim/time_s": ("simulated", format_time),
}
MODELS = {
    "test/accuracy": "deployed: front + edge back half",
    "test/cloud_accuracy": "front + cloud model",
}
ONLY_MODEL = {"test/accuracy": "deployed model"}
COSTS = {
    "sim/time_s": ("simulated time", format_time),
    "sim/energy_j": ("simulated energy", format_energy),
    "comm/client_up_bytes": ("sent by clients", format_bytes),
    "comm/client_down_bytes": ("received by clients", format_bytes),
    "comm/edge_cloud_bytes": ("between edge and cloud", format_bytes),
}


class Display:
    """Progress over the rounds of a run; a context, so that the terminal is always given back.

    Args:
      num_rounds: round at which the run ends.
      title: one line, shown as it is.
      console: rich console to draw on; standard output when None.
    """

    def __init__(self, num_rounds, title, console=None):
        self._console = console or _standard_output()
        self._num_rounds, self._title, self._note = num_rounds, title, ""
        self._record: Mapping[str, Any] = {"round": 0}
        self._live = None

    def __enter__(self):
        self._started = self._updated = time.monotonic()
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(get_renderable=self._picture, console=self._console)
            self._live.start(refresh=True)
        else:
            self._print(self._title)
        return self

    def __exit__(self, *_):
        if self._live is not None:
            self._live.stop()

    def note(self, text: str) -> None:
        """Says what is going on; on a terminal until the next note or update."""
        self._note = text
        self._refresh(text)

    def warn(self, text: str) -> None:
        """Says what will probably not go as meant; it stays, on a terminal too."""
        if self._live is not None:
            self._console.print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)
        else:
            self._print(f"warning: {text}")

    def update(self, record: Mapping[str, float | None]) -> None:
        """Shows an evaluation: metrics with `round`."""
        self._record, self._note = record, ""
        self._updated = time.monotonic()
        self._refresh("  ".join([self._round(), *format_readings(record), *self._clocks()]))

    def _refresh(self, line):
        if self._live is not None:
            self._live.refresh()
        else:
            self._print(line)

    def _print(self, line):
        # Not console.print, which would wrap the line at 80 columns.
        print(line, file=self._console.file, flush=True)

    def _picture(self):
        bar = ProgressBar(total=self._num_rounds, completed=self._record["round"])
        row = Table.grid(padding=(0, 2), expand=True)
        row.add_column(no_wrap=True)
        row.add_column(ratio=1)
        row.add_column(no_wrap=True)
        row.add_row(self._round(), bar, "  ".join(self._clocks()))
        below = self._note or "  ".join(format_readings(self._record))
        return Group(Text(self._title, style="bold"), row, Text(below, style="cyan"))

    def _round(self):
        width = len(str(self._num_rounds))
        return f"round {self._record['round']:{width}d}/{self._num_rounds}"

    def _clocks(self):
        now = time.monotonic()
        elapsed = f"elapsed {format_clock(now - self._started)}"
        round_ms = _number(self._record.get("wall/round_ms"))
        if not 0.0 < round_ms < math.inf:
            return [elapsed]
        left_s = (self._num_rounds - self._record["round"]) * round_ms / 1000.0
        left_s = max(left_s - (now - self._updated), 0.0)
        speed = f"{format_number(1000.0 / round_ms)} rounds/s"
        return [speed, elapsed, f"remaining {format_clock(left_s)}"]


def print_work(work: Any) -> None:
    """Prints what the parts of a model cost, models.cost.Workload; none that is empty."""
    table = _table("The model, by the compiler's count")
    for column in ("part", "parameters", "MFLOP a sample: forward", "with gradients"):
        table.add_column(column, justify="left" if column == "part" else "right")
    front_train_flop = work.front_forward_flop + work.front_backward_flop
    front = "front half (client)" if work.feature_bytes else "model"
    for part, params, forward, train in (
        (front, work.front_params, work.front_forward_flop, front_train_flop),
        ("back half (edge node)", work.back_params, work.back_forward_flop, work.back_train_flop),
        ("cloud model", work.cloud_params, work.cloud_forward_flop, work.cloud_train_flop),
    ):
        if params:
            mflop = (format_number(flop / 1e6) for flop in (forward, train))
            table.add_row(part, f"{params:,}", *mflop)
    console = _standard_output()
    console.print(table)
    if work.feature_bytes:
        console.print(f"smashed data: {work.feature_bytes:,} bytes a sample, and back")


def print_choices(
    run: RunSpec, platform: str, archive_bytes: float, console: Console | None = None
) -> None:
    """Prints how a run will be executed.

    Args:
      run: its automatic fields chosen; None where nothing reads one.
      platform: what the devices are.
      archive_bytes: of uploaded features, on each device; 0 where none are kept.
      console: rich console to print on; standard output when None.
    """
    console = console or _standard_output()
    of = "a device" if run.layout == "flat" else "a cluster"
    lines = {
        f"run.layout={run.layout} on run.devices={run.devices} ({platform})": True,
        f"run.client_chunk={run.client_chunk} clients of {of} train at once": run.client_chunk,
        f"run.distill_parts={run.distill_parts} of a distillation batch": run.distill_parts,
    }
    console.print("; ".join(text for text, is_read in lines.items() if is_read))
    if archive_bytes:
        size = format_bytes(archive_bytes)
        console.print(f"uploaded features wait in {size} of {run.archive_dtype} on each device")


def print_summary(
    summary: dict[str, Any],
    records: Sequence[Mapping[str, float | None]],
    workdir: str | Path | None = None,
    console: Console | None = None,
) -> None:
    """Prints the results of a run, in words.

    Args:
      summary: of `summary.summarize`.
      records: one an evaluation, in order.
      workdir: folder of the run's files, None when there are none.
      console: rich console to print on; standard output when None.
    """
    console = console or _standard_output()
    console.print()
    if any(key in summary["last"] for key in MODELS):
        console.print(_accuracy_table(summary, records[-TAIL:]))
    console.print(_cost_table(summary))
    if workdir is not None:
        console.print(Text(f"  files in {workdir}"), soft_wrap=True)


def _accuracy_table(summary, tail):
    table = _table(f"Test accuracy after {summary['rounds']} rounds")
    table.add_column("model")
    table.add_column("final", justify="right", style="bold")
    table.add_column("best", justify="right")
    if len(tail) > 1:
        table.add_column(f"mean of last {len(tail)}", justify="right")
    models = MODELS if "test/cloud_accuracy" in summary["last"] else ONLY_MODEL
    for key, model in models.items():
        if key in summary["last"]:
            best = summary["best"].get(key)
            values = [_number(record.get(key)) for record in tail]
            cells = [
                _text(_format_share, summary["last"][key]),
                f"{_format_share(best['value'])} (round {best['round']})" if best else "",
                _text(_format_share, sum(values) / max(len(values), 1)),
            ]
            table.add_row(model, *cells[: len(table.columns) - 1])
    return table


def _cost_table(summary):
    table = _table("What it took", show_header=False)
    for key, (label, form) in COSTS.items():
        if key in summary["totals"]:
            table.add_row(label, _text(form, summary["totals"][key]))
    table.add_row("time on this computer", format_time(summary["wall_s"]))
    table.add_row("  of it compilation", format_time(summary["compile_s"]))
    if "rounds_per_s" in summary:
        table.add_row("rounds per second", _text(format_number, summary["rounds_per_s"]))
    return table


def _table(title, show_header=True):
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_header=show_header,
    )


def format_readings(record: Mapping[str, float | None]) -> list[str]:
    """Returns what is shown of an evaluation, as texts."""
    return [
        f"{label} {_text(form, record[key])}"
        for key, (label, form) in READINGS.items()
        if key in record
    ]


def format_clock(time_s: float) -> str:
    """Returns seconds as h:mm:ss."""
    return str(datetime.timedelta(seconds=int(time_s)))


def _text(form, value):
    value = _number(value)
    return form(value) if math.isfinite(value) else str(value)


def _number(value):
    # null in a file that was read back stands for a value that was not finite
    return math.nan if value is None else value


def _standard_output():
    # Forced, because rich would follow FORCE_COLOR into a pipe or a file.
    return Console(force_terminal=sys.stdout.isatty())


def ignore_write_errors() -> None:
    """Replaces `sys.stdout` and `sys.stderr` by streams that drop what they cannot write.

    Dropped without an error, also when the process exits, is what is written:

    - to a pipe whose reader has gone, or that is full and must not be waited for;
    - to a terminal that has been closed, and to a file on a full disk;
    - to a stream that was closed when the process started.

    A character that the stream's encoding lacks is written as its escape. Lines are written at
    once. Streams that are not the interpreter's own, as in a notebook, stay as they are.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets this number, which a file of the run would get
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):
            encoding = stream.encoding if stream else "utf-8"
            setattr(sys, name, open_lenient(number, encoding))


def open_lenient(number: int, encoding: str) -> io.TextIOWrapper:
    """Opens a file descriptor, which stays open, as a text stream that raises no OSError."""
    buffer = io.BufferedWriter(_Lenient(number, "w", closefd=False))
    return io.TextIOWrapper(buffer, encoding, errors="backslashreplace", line_buffering=True)


class _Lenient(io.FileIO):
    """A file that says it has written what it could not write."""

    def write(self, data):
        try:
            written = super().write(data)
        except OSError:
            written = None
        return len(data) if written is None else written  # None: it would have to wait
