"""What sets of finished runs say: read, grouped over seeds, tabulated, drawn, and shown as a page.

`read_runs` -> `by_section` -> tables, curves -> formats, page. Only `page.write_report` writes.
"""

import importlib.util


def check_libraries(*names: str) -> None:
    """Refuses to go on without optional libraries, before anything is run that needs them.

    Raises:
      ValueError: one line with those that cannot be imported, and the remedy.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} cannot be imported; pip install 'cefl_jax[report]'"
        )
