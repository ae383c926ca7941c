"""How many cores torch may use, read before a runner takes them from its own thread: what one
thread sets is what later threads begin with."""

import torch

NUM_THREADS = torch.get_num_threads()


def use_threads(count: int) -> None:
    """In this thread, from now on."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
