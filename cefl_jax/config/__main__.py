"""Prints every setting, with its default, its meaning and the values that it may have.

python -m cefl_jax.config            a table in Markdown
python -m cefl_jax.config --python   configs/default.py, but for what was seen with it
"""

import argparse
import math
import textwrap

from cefl_jax.config.fields import Field, all_fields
from cefl_jax.methods import METHODS

WIDTH = 100
HEAD = '''"""Every setting that is not a method's own, with its default; copy this file and change it.

    python -m cefl_jax.main --config=configs/default.py --workdir=default_run

The methods' own settings stand in `cefl_jax/methods/`. `python -m cefl_jax.config` lists all
settings, and the names of methods, rules, data sets, models and networks.
RESULT
"""

from cefl_jax.config import default_config


def get_config():
    """Returns the defaults."""
    config = default_config()
'''


def markdown() -> str:
    """Returns a table of all settings."""
    lines = ["| setting | default | meaning | values |", "|---|---|---|---|"]
    for path, field in all_fields().items():
        values = _values(field).replace("|", "\\|")
        lines.append(f"| `{path}` | `{field.default!r}` | {field.meaning} | {values} |")
    return "\n".join(lines)


def python(result: str) -> str:
    """Returns the text of configs/default.py.

    Args:
      result: lines of its docstring about what was seen with these settings.
    """
    lines = [HEAD.replace("RESULT", result).rstrip()]
    for path, field in all_fields().items():
        group = path.split(".")[0]
        if group in METHODS and group != "cefl":
            continue
        default = f'"{field.default}"' if isinstance(field.default, str) else repr(field.default)
        statement, comment = f"    config.{path} = {default}", field.meaning
        if field.choices and not field.open:
            comment += f" ({' | '.join(field.choices)})"
        if len(statement) + len(comment) + 4 <= WIDTH:
            lines.append(f"{statement}  # {comment}")
        else:
            lines += textwrap.wrap(
                comment, WIDTH, initial_indent="    # ", subsequent_indent="    # "
            )
            lines.append(statement)
    return "\n".join([*lines, "    return config", ""])


def _values(field: Field) -> str:
    """The values that a field may have, in words."""
    if field.choices:
        return ", ".join(field.choices)
    words = []
    if field.least is not None:
        most = math.inf if field.most is None else field.most
        words.append(f"{field.least:g} to {most:g}" if most < math.inf else f"from {field.least:g}")
    if field.above is not None:
        words.append(f"more than {field.above:g}")
    return ", ".join(words)


def main() -> None:
    """Reads the command line and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", action="store_true", help="as a Python file")
    print(python("") if parser.parse_args().python else markdown())


if __name__ == "__main__":
    main()
