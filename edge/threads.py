"""How many threads numerical libraries may start."""

from __future__ import annotations

import os

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
"""Environment of a process that takes one processor."""


def one_thread() -> None:
    """Let this process' numerical libraries use one thread, unless the environment says otherwise.

    To be called before NumPy is imported. The products of one window are so small that handing them
    to a second thread takes longer than they do (README, "Light").
    """
    for name, count in ONE_THREAD.items():
        os.environ.setdefault(name, count)
