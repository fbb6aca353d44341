"""Coverage-guided fuzzing of every reader of files and texts from outside.

    python -m tests.fuzz READER [--runs=N]     many inputs, made from valid ones
    python -m tests.fuzz READER FILE           one input again, such as the one that failed
    python -m tests.fuzz all [--runs=N]        N inputs over all readers

A reader may take an input, or refuse it by its own error of one line. Anything else is a failure:
another exception, more memory or time than an input of a few kilobytes can need, or a result that
is not what the reader promises.
"""
