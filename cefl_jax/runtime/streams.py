"""Standard output and error of a run, which goes on whether or not somebody can see it."""

import io
import os
import sys


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
    """Opens a file descriptor as a text stream to which writing raises no OSError.

    Args:
      number: of the descriptor, which stays open when the stream is closed.
      encoding: of the text.
    Returns:
      The stream; it writes line by line.
    """
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
