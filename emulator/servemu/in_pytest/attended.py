"""`python -m servemu.in_pytest.attended PID up …`: the command, ended when that process is gone.

A killed pytest cannot stop its emulator; this can.
"""

import os
import signal
import sys
import threading
import time

from servemu.cli import main

SECONDS = 2.0
"""Between two looks; a process that is not our parent has no event for its end."""


def watch(owner: int) -> None:
    """Ends this process once the owner's id belongs to nobody."""
    while is_alive(owner):
        time.sleep(SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


if __name__ == "__main__":
    owner = int(sys.argv.pop(1))
    if sys.platform != "win32":  # there, signal 0 ends a process
        threading.Thread(target=watch, args=(owner,), daemon=True).start()
    main()
