"""The side of a benchmark that does the work: one process that runs rounds when told to.

Needs only the standard library, so that a peer's own environment can import it.
"""

import json
import os
import sys
import time


def serve(prepare):
    """Prepares, says that it is ready, and then times rounds as they are asked for.

    Talks in lines of JSON over the process's own standard streams; whatever the work itself prints
    goes to standard error.

    Args:
      prepare: from nothing to `(advance, about)`: a function that does one round and returns when
        it is done, and a dict of facts such as the number of parameters.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    began = time.perf_counter()
    advance, about = prepare()
    ready = time.perf_counter()
    advance()  # compiles, where that is done at the first call
    first = time.perf_counter()
    about = {"prepare_s": ready - began, "first_round_s": first - ready, **about}
    answers.write(json.dumps(about) + "\n")
    for line in sys.stdin:
        taken = []
        for _ in range(json.loads(line)["rounds"]):
            began = time.perf_counter()
            advance()
            taken.append(1000.0 * (time.perf_counter() - began))
        answers.write(json.dumps(taken) + "\n")
