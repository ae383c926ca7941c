"""moto's server as it starts itself, on a free port: the yardstick of the control plane.

Run as a process; it ends with its input.
"""

import logging
import sys
import threading

from moto.server import ThreadedMotoServer
from tests.bench.processes import end_with_input


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # no line for each request
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    end_with_input()
    sys.stdout.write(f"servemu ready http://{host}:{port}\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
