"""Many idle connections from one process: ``PORT KEY CERTIFICATE COUNT``. Says ``all`` once they are logged in."""

from __future__ import annotations

import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, FirstError
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.python.failure import Failure

from bench.peers import LOGIN
from teleconch.resources.secret import Secret
from teleconch.ssh.client import ClientOptions, connect

ABREAST = 16
_OPTIONS = ClientOptions(kex_algos=["curve25519-sha256"], timeout=120)


async def some(port: int, key: Secret, certificate: str | None, left: list[object], kept: list[object]) -> None:
    while left:
        left.pop()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port, timeout=60)
        kept.append(
            await connect(
                reactor, endpoint, user=LOGIN, private_key_pem=key, certificate=certificate,
                verify_host=lambda _: None, options=_OPTIONS,
            )
        )  # fmt: skip


async def main(port: str, key: str, certificate: str, count: str) -> None:
    left: list[object] = [None] * int(count)
    kept: list[object] = []
    line = Path(certificate).read_text() if certificate else None
    secret = Secret(Path(key).read_text())
    lanes = [Deferred.fromCoroutine(some(int(port), secret, line, left, kept)) for _ in range(ABREAST)]
    await DeferredList(lanes, fireOnOneErrback=True, consumeErrors=True)
    print("all", flush=True)
    await Deferred()


def failed(failure: Failure) -> None:
    first = failure.check(FirstError)
    print((failure.value.subFailure if first else failure).getErrorMessage(), file=sys.stderr)
    reactor.stop()


if __name__ == "__main__":
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main(*sys.argv[1:])).addErrback(failed))
    reactor.run()
