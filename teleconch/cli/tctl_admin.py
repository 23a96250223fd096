"""How tctl reaches the auth server: its configuration, the admin identity in ``data_dir``, the API over TLS.

The auth service writes ``data_dir/admin/tls.key``, ``tls.crt`` and ``ca.crt`` (PEM). Anyone who can read them is an
administrator.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from attrs import field, frozen

from teleconch.cli import boundary
from teleconch.cli.tctl_params import config_path
from teleconch.errors import ConnectionProblem, TeleconchError

if TYPE_CHECKING:
    from teleconch.api.interface import AuthAPI
    from teleconch.api.tls import ClientTLS
    from teleconch.config.values import Config

T = TypeVar("T")

ADMIN = "admin"  # the directory in data_dir
KEY, CERTIFICATE, AUTHORITY = "tls.key", "tls.crt", "ca.crt"
_LOADED = "teleconch.config.loaded"
_REWRITTEN_WITHIN = 0.5  # seconds: a starting auth server replaces the three files one after the other
_ATTEMPTS = 5
_WHO = "as root, or as the user that runs teleport"


def load_config() -> Config:
    """The auth server's configuration, read once. ConfigError, TeleconchError."""
    meta = click.get_current_context().meta
    if _LOADED not in meta:
        meta[_LOADED] = _read_config()
    config: Config = meta[_LOADED]
    return config


def _read_config() -> Config:
    from teleconch.config.flags import NO_FLAGS
    from teleconch.config.load import default_config, read_config

    path, named = config_path()
    if os.path.exists(path):
        return read_config(path)
    if named:
        raise TeleconchError(f"There is no file {path}: name the auth server's configuration with -c FILE.")
    config = default_config(NO_FLAGS)
    if not os.path.isdir(config.teleport.data_dir):
        raise TeleconchError(
            f"There is no {path} on this machine. Run tctl on the host of the auth server, and if its configuration"
            " is elsewhere, name it with -c FILE."
        )
    return config


def call(use: Callable[[AuthAPI], Coroutine[Any, Any, T]]) -> T:
    """Returns what ``await use(api)`` returns, with the API of this host's auth server. Call it once per process.
    TeleconchError."""
    config = load_config()
    tls = _admin_tls(config)
    auth = config.auth_service
    addresses = [str(auth.listen_addr.local)] if auth.enabled else [str(each) for each in config.teleport.auth_servers]

    connections: list[None] = []

    async def use_it(reactor: Any) -> T:
        from teleconch.api.client import AuthClient

        client = AuthClient(reactor, addresses, tls, connected=lambda: connections.append(None))
        try:
            return await use(client.api)
        finally:
            client.close()

    try:
        return boundary.run_reactor(use_it)
    except ConnectionProblem as e:
        if connections:
            raise
        start = f"teleport start -c {config.filename}" if config.filename else "teleport start"
        raise ConnectionProblem(
            f"The auth server does not answer at {_reasons(str(e)) or ' or '.join(addresses)}."
            f" Start it, or its system service: {start}"
        ) from e


def _reasons(sentence: str) -> str:
    """``127.0.0.1:3025 (connection refused)`` from the client's ``... (127.0.0.1:3025: connection refused) ...``."""
    inner = sentence.partition("(")[2].rpartition(")")[0]
    told = [each.rpartition(": ") for each in inner.split("; ")]
    return " or ".join(f"{address} ({reason})" for address, _, reason in told if address)


@frozen
class OneByOne:
    """Does several things, each of which may fail by itself, and keeps the exit status."""

    done: str = "{} has been deleted."
    _failed: list[str] = field(factory=list, init=False)

    async def run(self, jobs: Iterable[tuple[Any, ...]]) -> None:
        """``jobs`` are (title, async function, arguments...). A lost connection ends them all and is raised."""
        for title, do, *arguments in jobs:
            try:
                await do(*arguments)
            except ConnectionProblem:
                raise
            except TeleconchError as e:
                self._failed.append(title)
                boundary.say_error(f"{title}: {e}")
            else:
                click.echo(self.done.format(title))

    def told(self) -> int:
        """The exit status."""
        return 1 if self._failed else 0


def _admin_tls(config: Config) -> ClientTLS:
    """The admin's credentials for the API. TeleconchError, which says who may have them, and where."""
    import time

    for _ in range(_ATTEMPTS - 1):
        try:
            return _read_admin_tls(config)
        except _Damaged:
            time.sleep(_REWRITTEN_WITHIN / _ATTEMPTS)
    return _read_admin_tls(config)


class _Damaged(TeleconchError):
    """The files do not belong together."""


def _read_admin_tls(config: Config) -> ClientTLS:
    import time

    from teleconch.api.tls import TLSCredentials, member_tls
    from teleconch.resources.secret import Secret
    from teleconch.resources.times import utc_text

    directory = os.path.join(config.teleport.data_dir, ADMIN)
    key, certificate, authority = (_read(directory, name, config) for name in (KEY, CERTIFICATE, AUTHORITY))
    try:
        credentials = TLSCredentials(certificate, Secret(key))
        authorities = _authorities(authority)
        tls = member_tls(lambda: credentials, lambda: authorities, time.time)
        tls.clientConnectionForTLS(None)  # finds a damaged file here, where it can be named
        ended = _end(certificate)
    except Exception as e:
        raise _Damaged(
            f"The admin identity in {directory} is damaged. Restart teleport, which writes a new one."
        ) from e
    if ended <= time.time():
        raise TeleconchError(
            f"The admin identity in {directory} expired at {utc_text(ended)}. Restart teleport, which writes a new one."
        )
    return tls


def _end(certificate: str) -> float:
    from cryptography import x509

    return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc.timestamp()


def _authorities(pem: str) -> tuple[Any, ...]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    from teleconch.resources.authority import TrustedAuthority

    certificates = x509.load_pem_x509_certificates(pem.encode())
    cluster = str(certificates[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    pems = tuple(each.public_bytes(Encoding.PEM).decode() for each in certificates)
    return (TrustedAuthority(type="host", cluster=cluster, ssh_public_keys=(), tls_certs=pems),)


def _read(directory: str, name: str, config: Config) -> str:
    path = os.path.join(directory, name)
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except PermissionError:
        raise TeleconchError(f"You may not read the admin identity in {directory}: run tctl {_WHO}.") from None
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as e:
        raise TeleconchError(f"The admin identity {path} cannot be read ({e}): run tctl {_WHO}.") from None
    if not config.auth_service.enabled:
        raise TeleconchError(
            f"{config.filename or 'This configuration'} is not an auth server's (auth_service is off). Run tctl on the"
            " host of the auth server, with its configuration: -c FILE."
        )
    raise TeleconchError(
        f"There is no admin identity in {directory}: the auth server writes it when it starts. Start it once"
        f" (teleport start -c {config.filename or '/etc/teleport.yaml'}), and run tctl on the same host, {_WHO}."
    )
