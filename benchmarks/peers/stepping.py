"""Lets a framework's own training loop be advanced one round at a time."""

import queue
import threading


class SteppedLoop:
    """A loop in a thread of its own that waits before every round until it is told to go on.

    The first wait is the constructor's to see, so that what a framework starts before its first
    round is preparation.
    """

    def __init__(self, loop):
        """Starts it.

        Args:
          loop: function of `wait`, which it calls before the first round and after every round.
        """
        self._go, self._reached = queue.SimpleQueue(), queue.SimpleQueue()
        threading.Thread(target=self._run, args=(loop,), daemon=True).start()
        self._raise_if_over(self._reached.get())

    def advance(self):
        """Does one round; raises RuntimeError when the loop ends instead."""
        self._go.put(None)
        self._raise_if_over(self._reached.get())

    def _run(self, loop):
        try:
            loop(self._wait)
            self._reached.put(RuntimeError("the framework's loop ended by itself"))
        except BaseException as error:  # to be raised where it is waited for
            self._reached.put(error)

    def _wait(self):
        self._reached.put(None)
        self._go.get()

    @staticmethod
    def _raise_if_over(error):
        if error is not None:
            raise RuntimeError(f"the framework's loop ended: {error!r}") from error
