"""The page stands alone, is well formed, takes no text for markup, and draws what was measured."""

import base64
import html.parser
import itertools
import json
import pathlib
import re
import shlex
import urllib.parse

import altair as alt
import pytest
import vl_convert

from cefl_jax.reports import curves, formats, page, tables
from cefl_jax.reports.groups import by_section
from cefl_jax.reports.runs import LeftOut
from tests.reports.folders import make_run
from tests.runtime.examples import METHODS, OPTIONAL, make_record, without

NASTY = "</script><script>alert('x')</script><img src=x onerror=alert(1)>\"'&"
VOID = {"meta", "link", "img", "br", "line"}


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


def run(seed, folder, **changes):
    rounds = [2, 4, 6]
    return make_run(
        seed,
        rounds,
        folder=folder,
        **{
            "test/accuracy": [0.2, 0.5 + 0.1 * seed, 0.7],
            "train/loss": [2.0, 1.5, 1.0],
            "cluster/kl_mean": [0.1, 0.2, 0.1],
            "sim/time_s": [10.0, 20.0, 30.0 + seed],
            "sim/energy_j": [1e3, 2e3, 3e3],
            "comm/bytes": [1e6, 2e6, 3e6],
        },
        **changes,
    )


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    folder = tmp_path_factory.mktemp(NASTY.replace("/", "_"))
    (folder / "partition.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return by_section(
        [
            run(0, folder),
            run(1, folder),
            run(0, folder, method__name=NASTY),
            run(0, pathlib.Path(NASTY), data__name="mnist", data__path=NASTY, model__name=NASTY),
        ]
    )


@pytest.fixture(scope="module")
def shown(sections):
    return page.render(sections, [LeftOut(pathlib.Path(NASTY), "failed", NASTY)], 0.6)


@pytest.fixture(scope="module")
def parsed(shown):
    return Parsed(shown)


def test_nothing_is_loaded_from_anywhere(parsed):
    for name in ("src", "href"):
        assert all(value.startswith(("data:", "#")) for value in parsed.values(name))
    assert not re.search(r"@import|url\(", "".join(parsed.texts("style")))


def test_no_text_is_taken_for_markup(parsed):
    assert len(parsed.texts("script")) == len(by_kind(parsed)) + 2
    assert not any("alert(" in text for text in parsed.texts("script") if not text.startswith("{"))
    assert "onerror" not in {name for _, attributes, _ in parsed.elements for name in attributes}
    assert NASTY in parsed.texts("td")


def by_kind(parsed):
    """The data of the charts of the page's sections."""
    return [
        json.loads("".join(text))
        for tag, attributes, text in parsed.elements
        if tag == "script" and attributes.get("type") == "application/json"
    ]


def test_every_number_of_the_tables_is_on_the_page(parsed, sections):
    cells = parsed.texts("td")
    for section in sections:
        for table in (tables.summarize(section, 0.6), tables.clustering_table(section)):
            for row in formats.show(table).rows:
                assert set(row[1:]) <= set(cells)


def test_tables_can_be_taken_from_the_page(parsed, sections):
    taken = [
        urllib.parse.unquote(value.split(",", 1)[1])
        for value in parsed.values("href")
        if value.startswith("data:text")
    ]
    for section in sections:
        table = tables.summarize(section, 0.6)
        for write in (formats.to_csv, formats.to_markdown, formats.to_latex):
            assert write(table) in taken


def test_commands_are_whole(parsed):
    commands = [shlex.split(text) for text in parsed.texts("pre")]
    assert len(commands) == 4
    assert all(
        words[:4] == ["python", "-m", "cefl_jax.main", "--config=configs/default.py"]
        for words in commands
    )
    assert sum(f"--config.data.path={NASTY}" in words for words in commands) == 1


def test_pictures_are_inside(parsed):
    (picture,) = parsed.values("src")
    assert base64.b64decode(picture.split(",")[1]) == b"\x89PNG\r\n\x1a\n"


def test_charts_have_the_points_of_the_runs(parsed):
    data = next(each for each in by_kind(parsed) if len(each["looks"]) == 2)
    assert {look["method"] for look in data["looks"]} == {"cefl", NASTY}
    (place,) = [place for place, look in enumerate(data["looks"]) if look["method"] == "cefl"]
    points = data["points"]["test/accuracy"]["round"]
    assert [(x, y) for at, x, y, _, _ in points if at == place] == [(2, 0.2), (4, 0.55), (6, 0.7)]
    assert [axis["title"] for axis in data["axes"]] == [
        "round",
        "simulated time (s)",
        "energy (kJ)",
        "bytes over all links (MB)",
    ]
    assert [metric["key"] for metric in data["metrics"]] == [
        "test/accuracy",
        "train/loss",
        "cluster/kl_mean",
    ]


def test_specifications_are_vega_lites(parsed):
    for data in by_kind(parsed):
        alt.LayerChart.from_dict(data["spec"], validate=True)
        rows = [
            {"label": data["looks"][place]["label"], "x": x, "y": y, "low": low, "high": high}
            for place, x, y, low, high in data["points"]["test/accuracy"]["round"]
        ]
        datasets = data["spec"].get("datasets", {}) | {"rows": rows}
        picture = vl_convert.vegalite_to_svg({**data["spec"], "datasets": datasets})
        assert picture.count("mark-line") >= 1
        assert "test accuracy" in picture


def test_the_page_says_what_is_missing():
    parsed = Parsed(
        page.render(by_section([make_run(0, [1, 2], folder=pathlib.Path("x"))]), [], 0.8)
    )
    assert by_kind(parsed) == []
    assert "No run here has a partition.json or a partition.png." in parsed.texts("p")
    assert "No run here is finished." in Parsed(page.render([], [], 0.8)).texts("p")


SOME = {  # of each set of metrics that a run can have, one run
    **{method: make_record(5, method) for method in METHODS},
    **{f"cefl without {start}": without(make_record(5), start) for start in OPTIONAL},
    "cefl without both": without(make_record(5), *OPTIONAL),
    "skipping": make_record(5, "fedavg", **{"clients/skipped": 1}),
    "rounds alone": {"round": 5},
}
UNLIKE = {frozenset(record): name for name, record in reversed(SOME.items())}.values()


def made_run(name, **changes):
    """A run of one evaluation by its name in `SOME`."""
    metrics = {key: [value] for key, value in SOME[name].items() if key != "round"}
    return make_run(
        0, [5], folder=pathlib.Path(name), **metrics, **changes, method__name=name.split()[0]
    )


@pytest.mark.parametrize(
    "size",
    [1, 2, *(pytest.param(size, marks=pytest.mark.slow) for size in range(3, len(UNLIKE) + 1))],
)
def test_a_section_of_any_runs_is_shown_with_the_parts_that_some_of_them_have(size, monkeypatch):
    monkeypatch.setattr(page, "_bundle", str)
    for names in itertools.combinations(UNLIKE, size):
        runs = [made_run(name, train__rounds=place) for place, name in enumerate(names, 1)]
        parsed = Parsed(page.render(by_section(runs), [], 0.5))
        keys = {key for name in names for key in SOME[name]}
        heads = parsed.texts("h3")
        assert ("Clusters" in heads) == any(key.startswith("cluster/") for key in keys)
        assert ("Curves" in heads) == bool(keys - {"round"})
        metrics = {metric["key"] for data in by_kind(parsed) for metric in data["metrics"]}
        drawn = {key for key in keys if not key.startswith(("sim/", "comm/", "wall/", "round"))}
        assert metrics == drawn


@pytest.mark.parametrize("method", METHODS)
def test_a_section_of_one_method_alone_is_shown(method, monkeypatch):
    monkeypatch.setattr(page, "_bundle", str)
    parsed = Parsed(page.render(by_section([made_run(method)]), [], 0.5))
    assert ("Clusters" in parsed.texts("h3")) == (method == "cefl")


def test_clusters_are_shown_where_no_curve_is():
    """Seeds that have no round in common."""
    runs = [run(0, pathlib.Path("a")), run(1, pathlib.Path("b"))]
    runs[1].metrics["round"] += 100
    for key in ("sim/time_s", "sim/energy_j", "comm/bytes"):
        runs[1].metrics[key] += 1e9
    parsed = Parsed(page.render(by_section(runs), [], 0.5))
    assert "Curves" not in parsed.texts("h3")
    assert "Clusters" in parsed.texts("h3")
    assert "mean KL of the clusters (nats)" in parsed.texts("th")


def test_figures_are_pdf_with_bands_within_what_a_share_can_be(sections):
    section = next(each for each in sections if len(each.groups) == 2)
    drawn = curves.figures(section, 0.6)
    assert sorted(drawn) == [
        "cluster_kl_mean-by-round",
        "test_accuracy-by-comm_bytes",
        "test_accuracy-by-round",
        "test_accuracy-by-sim_energy_j",
        "test_accuracy-by-sim_time_s",
    ]
    assert all(content.startswith(b"%PDF") for content in drawn.values())
    metric, axis = curves.metrics_of(section)[0], curves.axes_of(section)[0]
    wide = [low for _, _, _, low, _ in curves.points(section, metric, axis)]
    assert min(wide) == 0.0  # 0.55 ± 0.64 at round 4, by t of one degree


def test_many_groups_look_unlike():
    (section,) = by_section([make_run(0, [1], train__batch_size=size) for size in range(1, 31)])
    looks = [(look.colour, look.dash) for look in curves.looks(section)]
    assert len(set(looks)) == 30
