"""TCP connections to the proxy, with a sentence for each way they can fail. Imports little: ``tsh ssh`` dials
while the rest of the program is still being loaded."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from teleconch.errors import ConnectionProblem

if TYPE_CHECKING:
    from teleconch.client.http_proxy import HTTPProxy

TIMEOUT = 20.0  # seconds
HTTPS = ("HTTPS_PROXY", "ALL_PROXY")  # the variables that name an HTTP proxy on the way to that port
SSH = ("ALL_PROXY",)


def connect_tcp(host: str, port: int, https: bool = False) -> socket.socket:
    """A TCP connection, through an HTTP proxy if the environment names one. BadParameter, ConnectionProblem."""
    http_proxy = _http_proxy(host, port, https)
    if http_proxy is None:
        return _connect(host, port, f"The proxy {host}", "--proxy", lambda: _why_direct(host, port, https))
    deadline = time.monotonic() + TIMEOUT
    connected = _connect(http_proxy.host, http_proxy.port, f"The HTTP proxy {http_proxy.host}", http_proxy.variable)
    try:
        from teleconch.client.http_proxy import ask_through

        ask_through(connected, http_proxy, host, port, deadline)
        connected.settimeout(TIMEOUT)
    except BaseException as error:
        connected.close()
        if isinstance(error, OSError):
            why = "takes too long" if isinstance(error, TimeoutError) else error.strerror or str(error)
            raise ConnectionProblem(f"No connection to {host}:{port} through {http_proxy}: {why}.") from None
        raise
    return connected


def _http_proxy(host: str, port: int, https: bool) -> HTTPProxy | None:
    names = HTTPS if https else SSH
    if not _any_set(names):
        return None
    from teleconch.client.http_proxy import http_proxy

    return http_proxy(names, host, port)


def _any_set(names: tuple[str, ...]) -> bool:
    return any(os.environ.get(name) or os.environ.get(name.lower()) for name in names)


def _connect(host: str, port: int, who: str, where: str, hint: Callable[[], str] = str) -> socket.socket:
    try:
        # As bytes if that is the same: for text, Python loads its table of international names.
        name: str | bytes = host.encode() if host.isascii() else host
        return socket.create_connection((name, port), TIMEOUT)  # type: ignore[arg-type]
    except socket.gaierror:
        raise ConnectionProblem(f"There is no host {host}: check the name of the proxy ({where}).{hint()}") from None
    except TimeoutError:
        raise ConnectionProblem(
            f"{who} does not answer on port {port}: check {where}, and firewalls in between.{hint()}"
        ) from None
    except OSError as error:
        raise ConnectionProblem(
            f"{who} accepts no connection on port {port} ({error.strerror or error}):"
            f" check {where}, and that it runs.{hint()}"
        ) from None


def _why_direct(host: str, port: int, https: bool) -> str:
    if not _any_set(HTTPS):
        return ""
    from teleconch.client.http_proxy import why_direct

    return why_direct(HTTPS if https else SSH, host, port)


class Dialling:
    """A TCP connection that is being made in the background."""

    def __init__(self, host: str, port: int) -> None:
        self._socket: socket.socket | None = None
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(host, port), daemon=True)
        self._thread.start()

    def _run(self, host: str, port: int) -> None:
        try:
            self._socket = connect_tcp(host, port)
        except Exception as problem:  # noqa: BLE001 - raised where it is waited for
            self._problem = problem

    def wait(self) -> socket.socket:
        """The socket, once. BadParameter, ConnectionProblem."""
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        assert self._socket is not None
        return self._socket
