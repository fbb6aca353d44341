"""A run's folder gets both pictures, of sane size, from its timeline alone."""

import json
import subprocess
import sys

import matplotlib.image
import pytest

from cefl_jax.plots.network_map import draw_round
from tests.plots.timelines import make_timeline

pytestmark = pytest.mark.filterwarnings("error")


def run_of(folder, **options):
    (folder / "timeline.json").write_text(json.dumps(make_timeline(**options)))
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {"num_clients": 1, "num_clusters": 1, "steps": 1},
        {
            "num_clients": 20,
            "num_clusters": 6,
            "in_cloud": (1,),
            "dropped": (3,),
            "deadline_s": 3.0,
        },
        {"num_clients": 100, "num_clusters": 10, "steps": 100, "dropped": (50,)},
        {"num_clients": 200, "num_clusters": 50},
    ],
)
def test_both_pictures_are_drawn(tmp_path, options):
    draw_round(run_of(tmp_path, **options))
    height, width = matplotlib.image.imread(tmp_path / "gantt.png").shape[:2]
    assert width == 1440
    assert 300 < height < 2400
    assert matplotlib.image.imread(tmp_path / "map.png").shape[:2] == (840, 1140)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "gantt.png",
        "map.png",
        "timeline.json",
    ]


def test_pictures_differ_with_their_data_and_only_with_it(tmp_path):
    seen = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        draw_round(run_of(tmp_path / name, seed=seed))
        seen.append([(tmp_path / name / file).read_bytes() for file in ("gantt.png", "map.png")])
    one, again, other = seen
    assert one == again
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_without_a_timeline_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"timeline\.json: there is no such file"):
        draw_round(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_of_the_docstring_draws_and_leaves_pyplot_alone(tmp_path):
    program = (
        "import sys; from cefl_jax.plots.network_map import draw_round\n"
        "draw_round(sys.argv[1]); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(run_of(tmp_path))], check=True)
    assert (tmp_path / "map.png").exists()
