"""Two pictures of one simulated round of a finished run.

    python -c "from cefl_jax.runtime.round_pictures import draw_round; draw_round('DIR')"
"""

import pathlib

from cefl_jax.runtime.gantt import draw_gantt
from cefl_jax.runtime.network_map import draw_map
from cefl_jax.runtime.timeline import read_timeline


def draw_round(workdir_path: str | pathlib.Path) -> None:
    """Writes gantt.png and map.png into the folder of a run, from its timeline.json.

    Args:
      workdir_path: folder of a run.
    Raises:
      ValueError: the timeline is missing or wrong; nothing is written.
    """
    folder = pathlib.Path(workdir_path)
    timeline = read_timeline(folder / "timeline.json")
    draw_gantt(folder / "gantt.png", timeline)
    draw_map(folder / "map.png", timeline)
