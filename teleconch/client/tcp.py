"""TCP connections to the proxy, with a sentence for each way in which they fail. Imports little: ``tsh ssh`` dials
while the rest of the program is still being loaded."""

from __future__ import annotations

import socket
import threading

from teleconch.errors import ConnectionProblem

TIMEOUT = 20.0  # seconds


def connect_tcp(host: str, port: int) -> socket.socket:
    """A TCP connection. ConnectionProblem."""
    try:
        # As bytes where that is the same: Python loads its table of international names for text.
        name: str | bytes = host.encode() if host.isascii() else host
        return socket.create_connection((name, port), TIMEOUT)  # type: ignore[arg-type]
    except socket.gaierror:
        raise ConnectionProblem(f"There is no host {host}: check the name of the proxy (--proxy).") from None
    except TimeoutError:
        raise ConnectionProblem(
            f"The proxy {host} does not answer on port {port}: check --proxy, and firewalls in between."
        ) from None
    except OSError as error:
        raise ConnectionProblem(
            f"The proxy {host} takes no connection on port {port} ({error.strerror or error}):"
            " check --proxy, and that it runs."
        ) from None


class Dialling:
    """A TCP connection that is being made in the background."""

    def __init__(self, host: str, port: int) -> None:
        self._socket: socket.socket | None = None
        self._problem: ConnectionProblem | None = None
        self._thread = threading.Thread(target=self._run, args=(host, port), daemon=True)
        self._thread.start()

    def _run(self, host: str, port: int) -> None:
        try:
            self._socket = connect_tcp(host, port)
        except ConnectionProblem as problem:
            self._problem = problem

    def wait(self) -> socket.socket:
        """The socket, once. ConnectionProblem."""
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        assert self._socket is not None
        return self._socket
