"""Signals that ask a run to leave, after it has saved.

Python runs a signal's handler between two of its own instructions, of which a compiled call has
none. The system's handler wakes a thread of its own at once.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

ASK = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""From a person, a closed terminal, and the launchers and limits of batch systems."""
PREEMPTED = 75  # exit status: EX_TEMPFAIL of sysexits.h, try again later
INTERRUPTED = 130  # of a second Ctrl-C: 128 + SIGINT
LAST_WORDS_S = 1.0  # how long these may take


class Preempted(Exception):
    """A signal has ended a run that can be gone on with."""


class PreemptionGuard:
    """Notices the signals that ask to leave, from `with PreemptionGuard()` to its end.

    The first one is noted in `asked`; whoever computes looks there between two chunks. Within
    `exit_immediately`, where nothing would be lost, it ends the process. A second SIGINT, Ctrl-C,
    always does. Outside the main thread, which alone may set handlers, it notices nothing. A signal
    that is ignored at the start, as SIGHUP by nohup, stays ignored.
    """

    def __init__(self, say=None):
        self.asked = None  # name of the signal
        self.alone = True  # False: other processes would wait for this one, so none leaves at once
        self._say = say or _say
        self._leave: Callable | None = None
        self._handlers = {}
        self._lock = threading.Lock()

    def __enter__(self):
        numbers = [getattr(signal, name) for name in ASK if hasattr(signal, name)]
        numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
        if threading.current_thread() is not threading.main_thread() or not numbers:
            return self
        self._heard, self._told = socket.socketpair()
        self._told.setblocking(False)
        for number in numbers:
            earlier = signal.signal(number, lambda *_: None)
            # None: one that a library in C has set, which Python cannot set again.
            self._handlers[number] = signal.SIG_DFL if earlier is None else earlier
        self._earlier = signal.set_wakeup_fd(self._told.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        if not self._handlers:
            return
        signal.set_wakeup_fd(self._earlier)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
        self._told.close()  # which ends the thread
        self._thread.join()
        self._heard.close()

    @contextlib.contextmanager
    def exit_immediately(self, leave: Callable[[], object] = lambda: None) -> Iterator[None]:
        """While nothing would be lost: a signal ends the process with status 75.

        Args:
          leave: called before that, in another thread.
        """
        with self._lock:
            self._leave = leave if self.alone else None
            if self.asked and self.alone:
                self._end(leave)
        try:
            yield
        finally:
            with self._lock:
                self._leave = None

    def leave(self) -> NoReturn:
        """Ends the program with status 75, as after a Preempted.

        Another signal that asks to leave does not change that; Ctrl-C does.
        """
        for number in self._handlers:
            if number != signal.SIGINT:
                self._handlers[number] = signal.SIG_IGN  # from the end of the context on
        sys.exit(PREEMPTED)

    def _listen(self):
        while numbers := self._heard.recv(64):
            for number in numbers:
                if number in self._handlers:
                    self._hear(signal.Signals(number).name)

    def _hear(self, name):
        with self._lock:
            if self.asked is None:
                self.asked = name
                if self._leave is not None:
                    self._end(self._leave)
                again = "; once more leaves at once" if name == "SIGINT" else ""
                self._say(f"{name}: saving after these rounds, then leaving{again}")
            elif name == "SIGINT":
                _exit(
                    INTERRUPTED,
                    self._say,
                    "leaving at once; the last checkpoint is where to go on from",
                )

    def _end(self, leave):
        with contextlib.suppress(OSError):  # a full disk should not keep it
            leave()
        _exit(
            PREEMPTED,
            self._say,
            f"{self.asked}: left before the next round; the same command goes on",
        )


def _say(line):
    with contextlib.suppress(OSError, ValueError):  # nobody may be listening any more
        print(line, file=sys.stderr, flush=True)


def _exit(status, say, line):
    """Ends the process as it is, with a line; files are whole at any moment."""
    last = threading.Timer(LAST_WORDS_S, os._exit, [status])  # who reads may be stopped
    last.daemon = True
    last.start()
    with contextlib.suppress(OSError, ValueError):
        say(line)
        if sys.stdout.isatty():
            os.write(sys.stdout.fileno(), b"\x1b[?25h\n")  # the cursor, which a display hides
        sys.stdout.flush()
    os._exit(status)
