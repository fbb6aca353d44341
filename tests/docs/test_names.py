"""What README.md and docs/ name is there: links, settings, metrics, files and methods."""

import importlib
import re

from cefl_jax import config
from cefl_jax.config.fields import choices, defaults
from tests.docs.pages import PAGES, ROOT, each, read_blocks, read_prose
from tests.runtime.examples import MORE_KEYS
from tests.test_main import FILES, METRIC_KEYS

LEFT = FILES | {"network_trace.npz", "checkpoints/", ".lock", "report.html", "report_files/"}

"""What runs and reports leave."""

GIVEN = {
    "partition.json",
    "batch_size_results/smoke/batch_size.md",
    "cefl_jax/methods/relaxed.py",
    "sweep.json",
    "NAME.md",
    "workers/",
}
"""Files of a reader, as examples name them, and of a sweep."""

DEFAULTS, CHOICES = defaults(), choices()
METRICS = {*METRIC_KEYS, *MORE_KEYS, "clients/skipped"}
GROUPS = {path.partition(".")[0] for path in DEFAULTS}
ENDINGS = ("py", "md", "json", "jsonl", "yaml", "png", "npz", "html", "txt", "toml")


def read_spans(page):
    """Returns what stands between single backticks in the prose of a page."""
    return re.findall(r"`([^`\n]+)`", read_prose(page))


def slugs(page):
    """Returns the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", read_prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


def is_named(path):
    """Whether a dotted path is a setting, a group of them, or something in the package."""
    if path in DEFAULTS or any(known.startswith(f"{path}.") for known in DEFAULTS):
        return True
    module, *rest = path.split(".")
    found = importlib.import_module(f"cefl_jax.{module}")
    for name in rest:
        if not hasattr(found, name):
            found = importlib.import_module(f"{found.__name__}.{name}")
        else:
            found = getattr(found, name)
    return True


@each(PAGES)
def test_every_link_resolves(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", read_prose(page)):
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), target
        assert not anchor or anchor in slugs(linked), target


@each(PAGES)
def test_every_setting_is_one(page):
    for span in read_spans(page):
        found = re.fullmatch(r"(?:--config\.)?(\w+(?:\.\w+)+)(?:=(\S+))?", span)
        if not found or found[1].rpartition(".")[2] in ENDINGS:
            continue
        path, value = found.groups()
        if span.startswith("--config.") or path.partition(".")[0] in GROUPS:
            assert is_named(path), span
        if value and not value.isupper():
            config.set_field(config.default_config(), path, value)
            assert value in CHOICES.get(path, (value,)), span


@each(PAGES)
def test_every_metric_and_file_is_one(page):
    for span in read_spans(page):
        if span in METRICS | LEFT | GIVEN or " " in span or "*" in span:
            continue
        is_metric = re.fullmatch(r"(train|test|cluster|offload|sim|comm|wall|clients)/\w+", span)
        is_file = span.endswith("/") or re.fullmatch(rf"[\w/.]*\w\.({'|'.join(ENDINGS)})", span)
        if is_metric or is_file:
            assert any((ROOT / place / span).exists() for place in (".", "cefl_jax")), span


def test_every_metric_is_explained():
    spans = read_spans(ROOT / "docs" / "outputs.md")
    assert {*METRICS} <= {*spans}
    assert {*LEFT} <= {*spans}


def test_every_method_is_in_the_table():
    rows = re.findall(r"^\| (`.*?`) \|.*\|.*\|$", read_prose(ROOT / "README.md"), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert {*CHOICES["method.name"]} <= {*named}


def test_the_tree_of_the_package_is_whole():
    """Every file and folder of the package's top level, and every folder beside it."""
    (tree, *_) = read_blocks(ROOT / "docs" / "architecture.md", "")
    package, _, beside = tree.text.partition("\nconfigs/")
    tops = [*(ROOT / "cefl_jax").glob("[a-z]*.py"), *(ROOT / "cefl_jax").glob("[a-z]*/__init__.py")]
    names = {f"{top.parent.name}/" if top.stem == "__init__" else top.name for top in tops}
    named = {word for line in package.splitlines()[1:] for word in re.findall(r"^  (\S+)", line)}
    assert names - {"sweep.py", "report.py"} == named
    assert all((ROOT / f"{name}/").is_dir() for name in re.findall(r"^(\w+)/", beside, re.M))


def test_every_page_is_linked_from_the_readme():
    linked = re.findall(r"\]\((docs/\w+\.md)\)", read_prose(ROOT / "README.md"))
    assert {*linked} == {str(page.relative_to(ROOT)) for page in PAGES[1:]}
