"""The page stands alone, is well formed, takes no text for markup, and shows what was measured."""

import base64
import html.parser
import json
import os
import pathlib
import re
import shlex
import urllib.parse

import altair as alt
import matplotlib.image
import numpy as np
import pytest
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.data import sources
from cefl_jax.data.dataset import make_dataset
from cefl_jax.reports import formats, page, tables
from cefl_jax.reports.groups import by_section
from cefl_jax.reports.runs import LeftOut
from tests.reports.folders import add_file, make_run, section_of
from tests.runtime.examples import METHODS, OPTIONAL, make_record, without

NASTY = "</script><script>alert('x')</script><img src=x onerror=alert(1)>\"'&"
VOID = {"meta", "link", "img", "br", "line"}
PNG = b"\x89PNG\r\n\x1a\n"
METRICS = {
    "train/loss": [2.0, 1.5, 1.0],
    "cluster/kl_mean": [0.1, 0.2, 0.1],
    "sim/energy_j": [1e3, 2e3, 3e3],
    "comm/bytes": [1e6, 2e6, 3e6],
}
AXES = ["round", "simulated time (s)", "energy (kJ)", "bytes over all links (MB)"]


class Parsed(html.parser.HTMLParser):
    """All elements of a page, with their attributes and their own text; tags must match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open:
            self.open[-1][2].append(data)

    def texts(self, tag):
        return ["".join(text).strip() for found, _, text in self.elements if found == tag]

    def values(self, name):
        return [attributes[name] for _, attributes, _ in self.elements if name in attributes]

    def charts(self):
        """The data of the charts of the page's sections."""
        return [
            json.loads("".join(text))
            for tag, attributes, text in self.elements
            if tag == "script" and attributes.get("type") == "application/json"
        ]


def run(seed, folder, **changes):
    own = {"test/accuracy": [0.2, 0.5 + 0.1 * seed, 0.7], "sim/time_s": [10.0, 20.0, 30.0 + seed]}
    return make_run(seed, [2, 4, 6], folder=pathlib.Path(folder), **own, **METRICS, **changes)


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    folder = tmp_path_factory.mktemp(NASTY.replace("/", "_"))
    (folder / "partition.png").write_bytes(PNG)
    other = {"data__name": "mnist", "data__path": NASTY, "model__name": NASTY}
    runs = [run(0, folder), run(1, folder), run(0, folder, method__name=NASTY)]
    return by_section([*runs, run(0, NASTY, **other)])


@pytest.fixture(scope="module")
def parsed(sections):
    return Parsed(page.render(sections, [LeftOut(pathlib.Path(NASTY), "failed", NASTY)], 0.6))


def test_render_loads_nothing_from_anywhere(parsed):
    for name in ("src", "href"):
        assert all(value.startswith(("data:", "#")) for value in parsed.values(name))
    assert not re.search(r"@import|url\(", "".join(parsed.texts("style")))


def test_render_takes_no_text_for_markup(parsed):
    assert len(parsed.texts("script")) == len(parsed.charts()) + 2
    assert not any("alert(" in text for text in parsed.texts("script") if not text.startswith("{"))
    assert "onerror" not in {name for _, attributes, _ in parsed.elements for name in attributes}
    assert NASTY in parsed.texts("td")


def test_render_shows_all_tables_and_lets_take_them(parsed, sections):
    cells, links = set(parsed.texts("td")), parsed.values("href")
    taken = [urllib.parse.unquote(link.split(",", 1)[1]) for link in links if "text" in link[:9]]
    for section in sections:
        for table in (tables.summarize(section, 0.6), tables.clustering_table(section)):
            assert all(set(row[1:]) <= cells for row in formats.show(table).rows)
            assert all(write(table) in taken for write in formats.WRITERS.values())


def test_render_shows_the_command_of_each_run(parsed):
    commands = [shlex.split(text) for text in parsed.texts("pre")]
    start = ["python", "-m", "cefl_jax.main", "--config=configs/default.py"]
    assert [words[:4] for words in commands] == 4 * [start]
    assert sum(f"--config.data.path={NASTY}" in words for words in commands) == 1


def test_render_holds_its_pictures(parsed):
    (picture,) = parsed.values("src")
    assert base64.b64decode(picture.split(",")[1]) == PNG


def test_render_draws_the_points_of_the_runs(parsed):
    data = next(each for each in parsed.charts() if len(each["looks"]) == 2)
    assert {look["method"] for look in data["looks"]} == {"cefl", NASTY}
    (place,) = [place for place, look in enumerate(data["looks"]) if look["method"] == "cefl"]
    points = data["points"]["test/accuracy"]["round"]
    assert [(x, y) for at, x, y, _, _ in points if at == place] == [(2, 0.2), (4, 0.55), (6, 0.7)]
    assert [axis["title"] for axis in data["axes"]] == AXES
    by_energy = data["points"]["test/accuracy"]["sim/energy_j"]
    assert {x for _, x, *_ in by_energy} == {1, 2, 3}  # kJ
    keys = [metric["key"] for metric in data["metrics"]]
    assert keys == ["test/accuracy", "train/loss", "cluster/kl_mean"]


def test_render_specifies_charts_as_vega_lite_does(parsed):
    for data in parsed.charts():
        alt.LayerChart.from_dict(data["spec"], validate=True)
        rows = [
            {"label": data["looks"][place]["label"], "x": x, "y": y, "low": low, "high": high}
            for place, x, y, low, high in data["points"]["test/accuracy"]["round"]
        ]
        datasets = data["spec"].get("datasets", {}) | {"rows": rows}
        picture = vl_convert.vegalite_to_svg({**data["spec"], "datasets": datasets})
        assert picture.count("mark-line") >= 1
        assert "test accuracy" in picture


def test_render_says_what_is_missing():
    parsed = Parsed(page.render([section_of(make_run(0, [1, 2], folder=pathlib.Path("x")))], [], 1))
    assert parsed.charts() == []
    assert "No run here has a partition.json or a partition.png." in parsed.texts("p")
    assert "No run here is finished." in Parsed(page.render([], [], 0.8)).texts("p")


SOME = {  # of each set of metrics that a run can have, one run
    **{method: make_record(5, method) for method in METHODS},
    **{f"cefl without {start}": without(make_record(5), start) for start in OPTIONAL},
    "cefl without both": without(make_record(5), *OPTIONAL),
    "skipping": make_record(5, "fedavg", **{"clients/skipped": 1}),
    "rounds alone": {"round": 5},
}
UNLIKE = sorted({frozenset(record): name for name, record in reversed(SOME.items())}.values())


def some_run(name, **changes):
    """A run of one evaluation by its name in `SOME`."""
    metrics = {key: [value] for key, value in SOME[name].items() if key != "round"}
    changes["method__name"] = name.split()[0]
    return make_run(0, [5], folder=pathlib.Path(name), **metrics, **changes)


@settings(max_examples=20)
@given(st.sets(st.sampled_from(UNLIKE), min_size=1))
def test_render_shows_what_some_runs_of_a_section_have(names):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "_bundle", str)
        runs = [some_run(name, train__rounds=place) for place, name in enumerate(names, 1)]
        parsed = Parsed(page.render(by_section(runs), [], 0.5))
    keys = {key for name in names for key in SOME[name]}
    heads = parsed.texts("h3")
    assert ("Clusters" in heads) == any(key.startswith("cluster/") for key in keys)
    assert ("Curves" in heads) == bool(keys - {"round"})
    metrics = {metric["key"] for data in parsed.charts() for metric in data["metrics"]}
    assert metrics == {key for key in keys if not key.startswith(("sim/", "comm/", "wall/", "rou"))}


def test_render_shows_clusters_where_no_curve_is():
    """Seeds that have no round in common."""
    runs = [run(0, "a"), run(1, "b")]
    for key in ("round", "sim/time_s", "sim/energy_j", "comm/bytes"):
        runs[1].metrics[key] = runs[1].metrics[key] + 1e9
    parsed = Parsed(page.render(by_section(runs), [], 0.5))
    assert "Curves" not in parsed.texts("h3")
    assert "Clusters" in parsed.texts("h3")
    assert "mean KL of the clusters (nats)" in parsed.texts("th")


def held(tmp_path, name, indices, png=None):
    """A folder with a partition.json, and a partition.png where one is given."""
    place = add_file(tmp_path / name, "partition.json", json.dumps(indices))
    if png is not None:
        (place / "partition.png").write_bytes(png)
    return place


def gather(*runs, most=9):
    return page.gather_partitions(section_of(*runs), most)


@pytest.fixture
def drawn(monkeypatch):
    """What partitions are drawn from, in place of the pictures."""
    seen = []
    draw = lambda file, *given: (seen.append(given), file.write(b"drawn"))  # noqa: E731
    monkeypatch.setattr(page, "draw_partition", draw)
    return seen


def test_gather_partitions_shows_each_once_in_the_order_of_seeds(tmp_path):
    """Any run with the partition may have the picture."""
    runs = []
    for seed in (10, 2, 3):
        without_one = held(tmp_path, f"cefl{seed}", [[seed]])
        picture = held(tmp_path, f"fedavg{seed}", [[seed]], PNG + bytes([seed]))
        runs.append(make_run(seed, folder=without_one))
        runs.append(make_run(seed, folder=picture, method__name="fedavg"))
    assert gather(*runs, most=2) == ([(2, PNG + b"\2", ""), (3, PNG + b"\3", "")], 1)
    assert gather(make_run(0, folder=tmp_path)) == ([], 0)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_gather_partitions_draws_indices_of_what_is_left_to_train_on(tmp_path, drawn, share):
    labels = sources.hold_out(sources.load("fashion_mnist_12k"), share, seed=3).train_labels
    parts = [[5, 0, 1], [7, 6000]]
    run = make_run(3, folder=held(tmp_path, "a", parts), data__validation_share=share)
    assert gather(run) == ([(3, b"drawn", "")], 0)
    expected = [[sum(labels[at] == label for at in part) for label in range(10)] for part in parts]
    np.testing.assert_array_equal(drawn[0][0], expected)


def test_gather_partitions_names_the_classes_that_the_data_have(tmp_path, drawn, monkeypatch):
    whole = make_dataset("letters", *2 * (np.zeros((3, 2, 2), np.uint8), [7, 5, 26]))
    monkeypatch.setattr(sources, "load", lambda *_: whole)
    gather(make_run(0, folder=held(tmp_path, "a", [[0], [1]])))
    ((counts, names),) = drawn
    assert names == ["5", "7", "26"]
    np.testing.assert_array_equal(counts, [[0, 1, 0], [1, 0, 0]])


def test_gather_partitions_draws_a_picture(tmp_path):
    (picture,), _ = gather(make_run(0, folder=held(tmp_path, "a", [[0, 1], [2]])))
    (tmp_path / "drawn.png").write_bytes(picture.png)
    assert matplotlib.image.imread(tmp_path / "drawn.png").ndim == 3


@pytest.mark.parametrize(
    ("indices", "data", "reason"),
    [
        ([[10**9]], {}, "10,000|10000 examples"),
        ("text", {}, "neither a list"),
        ([[0]], {"data__name": "invented"}, "data.name is 'invented'"),
        *(
            ([[0]], {"data__name": "mnist", "data__path": path}, r"data\.path")
            for path in ("~no.such.user", "a\0b", "", "/dev")
        ),
    ],
)
def test_gather_partitions_says_why_there_is_no_picture(tmp_path, indices, data, reason):
    run = make_run(0, folder=held(tmp_path, "a", indices, b"no PNG"), **data)
    (picture,), _ = gather(run)
    assert picture.png is None
    assert re.search(reason, picture.reason)


def test_gather_partitions_opens_only_files_of_bounded_size(tmp_path, drawn, monkeypatch):
    large, piped = (held(tmp_path, name, [[0]]) for name in ("large", "piped"))
    (large / "partition.png").write_bytes(PNG)
    (piped / "partition.json").unlink()
    os.mkfifo(piped / "partition.json")
    os.mkfifo(piped / "partition.png")
    monkeypatch.setattr(page, "MAX_PNG_BYTES", len(PNG) - 1)
    runs = make_run(0, folder=large), make_run(1, folder=piped)
    assert gather(*runs) == ([(0, b"drawn", "")], 0)
