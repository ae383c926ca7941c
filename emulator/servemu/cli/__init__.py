"""The `servemu` command. All but `up`, `plan`, `models pull` are clients of a running emulator."""

import gc
import sys


def main() -> None:
    """The console script. `up` comes alone: a start need not wait for the other commands."""
    if sys.argv[1:2] == ["up"]:
        gc.disable()  # imports make no garbage, and looking for it is a fifth of the start
        from servemu.cli.starting import app
    else:
        from servemu.cli.commands import app
    app()
