"""Work in a thread of its own, which ends with it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def apart(work: Callable[[], T]) -> T:
    """What `work` returns or raises.

    A thread that has run a parallel operation keeps a team of OpenMP threads until it ends. With a
    second team there are more threads than cores, and libgomp has them sleep between operations
    instead of spin: each of the many small ones of a step then waits for a wake-up.
    """
    with ThreadPoolExecutor(1, "servemu-apart") as thread:
        return thread.submit(work).result()
