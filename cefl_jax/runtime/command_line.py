"""What the commands share: settings among the flags, and errors of one line."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """A parser that refuses in one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with one line."""
        refuse(message)


def refuse(error: object, status: int = 2) -> NoReturn:
    """Ends the program with one line on standard error and an exit status."""
    print("error:", re.sub(r"\s+", " ", str(error)), file=sys.stderr)
    sys.exit(status)


def warn(line: str) -> None:
    """Says one line on standard error, and goes on."""
    print("warning:", line, file=sys.stderr)


def split_settings(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Returns a command line without its `--config.PATH=TEXT`, and these as pairs.

    Raises:
      ValueError: one line, for a field without a value.
    """
    rest, settings, arguments = [], [], iter(argv)
    for argument in arguments:
        match = re.fullmatch(r"--?config\.([^=]+)(?:=(.*))?", argument, re.DOTALL)
        if not match:
            rest.append(argument)
            continue
        path, text = match[1], next(arguments, None) if match[2] is None else match[2]
        if text is None:
            raise ValueError(f"{path} has no value; write --config.{path}=VALUE")
        settings.append((path, text))
    return rest, settings
