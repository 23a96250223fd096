"""One class for each event, with the names, codes and fields of Teleport 4.2.

Codes that begin with ``T`` are Teleport's: 4.2's, or those of the later version that brought the event. Codes that
begin with ``C`` belong to events that Teleport does not have. The last letter is I if it was done, W or E if it was
not.

An event's texts may come from a stranger; whoever prints them escapes them. An event never holds secrets. ``time``,
``uid`` and ``ei`` (its number) are added by whoever records it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import attrs
from attrs import frozen

NAMES: Final = {"addr_local": "addr.local", "addr_remote": "addr.remote", "exit_code": "exitCode", "size": "len"}
"""Attributes whose field has another name in Teleport."""


@frozen(kw_only=True)
class Peer:
    """Who is at the other end of one connection to the host ``server_id``; ``host:port`` of both ends."""

    user: str = ""
    login: str = ""
    server_id: str = ""
    addr_local: str = ""
    addr_remote: str = ""


@frozen(kw_only=True)
class Event:
    """``error`` says why it was not done; it is empty if it was."""

    event: ClassVar[str]
    done: ClassVar[tuple[str, str] | None] = None
    """The code, and a constant format of the attributes (of ``peer`` too) for people; ``None`` for an event that is
    told only where something was not done."""
    refused: ClassVar[tuple[str, str] | None] = None
    """Likewise of what was not done."""

    error: str = ""

    @property
    def success(self) -> bool:
        """Whether it was done."""
        return self.done is not None and (not self.error or self.refused is None)

    @property
    def code(self) -> str:
        """Teleport's code, or ours if Teleport has none."""
        return self._told[0]

    @property
    def sentence(self) -> str:
        """The sentence for people, as a format string."""
        return self._told[1]

    @property
    def _told(self) -> tuple[str, str]:
        told = self.done if self.success else self.refused
        assert told is not None, type(self)
        return told

    def values(self) -> dict[str, Any]:
        """All attributes, including those of ``peer``."""
        return {attribute.name: value for attribute, value in _attributes(self)}

    def fields(self) -> dict[str, Any]:
        """The event as Teleport writes it: ``event``, ``code``, ``success``, then all fields that are not empty."""
        told = {
            NAMES.get(each.name, each.name): held for each, held in _attributes(self) if held or held != each.default
        }
        return {"event": self.event, "code": self.code, "success": self.success} | told


def _attributes(value: Event | Peer) -> Iterator[tuple[attrs.Attribute[Any], Any]]:
    for attribute in attrs.fields(type(value)):
        held = getattr(value, attribute.name)
        if isinstance(held, Peer):
            yield from _attributes(held)
        else:
            yield attribute, held


# --- what the auth server decides ------------------------------------------------------------------------------------


@frozen(kw_only=True)
class UserLogin(Event):
    """Someone asked for certificates. ``addr_remote`` has no port: the proxy passes the login on."""

    event = "user.login"
    done = ("T1000I", "{user} logged in")
    refused = ("T1000W", "login of {user!r} refused: {error}")

    user: str
    method: str = "local"
    addr_remote: str = ""


@frozen(kw_only=True)
class UserSignup(Event):
    """Someone used a sign-up link. ``user`` is empty if the link belongs to nobody."""

    event = "user.signup"
    done = ("C1000I", "{user} signed up")
    refused = ("C1000W", "sign-up refused: {error}")

    user: str = ""
    addr_remote: str = ""


@frozen(kw_only=True)
class UserCreate(Event):
    """An administrator made a user."""

    event = "user.create"
    done = ("T1002I", "user {user} made")

    user: str
    logins: tuple[str, ...] = ()


@frozen(kw_only=True)
class UserUpdate(Event):
    """An administrator wrote a user's record, new or not."""

    event = "user.update"
    done = ("T1003I", "user {user} written")

    user: str
    logins: tuple[str, ...] = ()


@frozen(kw_only=True)
class UserDelete(Event):
    """An administrator removed a user."""

    event = "user.delete"
    done = ("T1004I", "user {user} removed")

    user: str


@frozen(kw_only=True)
class UserReset(Event):
    """An administrator voided a user's password and second factor."""

    event = "user.reset"
    done = ("C1001I", "password and second factor of {user} voided")

    user: str


@frozen(kw_only=True)
class UserUnlock(Event):
    """An administrator ended a user's lock-outs."""

    event = "user.unlock"
    done = ("C1002I", "wrong answers for {user} forgotten")

    user: str


@frozen(kw_only=True)
class CertCreate(Event):
    """An administrator had certificates signed: a ``user``'s or a ``host``'s, for ``names``. ``ttl`` in seconds."""

    event = "cert.create"
    done = ("TC000I", "signed a {cert_type} certificate for {names}")

    cert_type: str
    names: tuple[str, ...]
    ttl: float
    user: str = ""


@frozen(kw_only=True)
class CertRenew(Event):
    """A host asked for new certificates."""

    event = "cert.renew"
    done = ("C1003I", "renewed the certificates of {server_id}")
    refused = ("C1003W", "renewal refused: {error}")

    server_id: str
    role: str
    addr_remote: str = ""


@frozen(kw_only=True)
class JoinTokenCreate(Event):
    """An administrator made a join token. ``expires`` is epoch seconds."""

    event = "join_token.create"
    done = ("TJT00I", "join token made for {roles}")

    roles: tuple[str, ...]
    expires: float


@frozen(kw_only=True)
class JoinTokenDelete(Event):
    """An administrator removed a join token."""

    event = "join_token.delete"
    done = ("C1004I", "join token removed")


@frozen(kw_only=True)
class SignupTokenDelete(Event):
    """An administrator removed a sign-up token."""

    event = "signup_token.delete"
    done = ("C1005I", "sign-up token removed")

    user: str


@frozen(kw_only=True)
class NodeJoin(Event):
    """A host asked to become a member."""

    event = "node.join"
    done = ("C1006I", "{nodename} ({server_id}) joined as {role}")
    refused = ("C1006W", "join refused: {error}")

    server_id: str
    nodename: str
    role: str
    addr_remote: str = ""


@frozen(kw_only=True)
class NodeLeave(Event):
    """A host is no longer a member in ``role``; in any role, if that is empty."""

    event = "node.leave"
    done = ("C1007I", "host {server_id} removed")

    server_id: str
    role: str = ""


@frozen(kw_only=True)
class APIDenied(Event):
    """A call of the auth API, or the certificate of a connection to it, was refused. ``addr_remote`` has no port."""

    event = "auth.api"
    refused = ("C1008W", "auth API: access denied: {error}")

    method: str = ""
    user: str = ""
    server_id: str = ""
    addr_remote: str = ""


@frozen(kw_only=True)
class CACreate(Event):
    """The cluster's authorities were made."""

    event = "ca.create"
    done = ("C1009I", "made the authorities of {cluster}")

    cluster: str


# --- what an SSH listener decides ------------------------------------------------------------------------------------


@frozen(kw_only=True)
class AuthAttempt(Event):
    """An authentication request to ``service`` (node, proxy) failed."""

    event = "auth"
    refused = ("T3007W", "access denied: {error}")

    peer: Peer
    service: str


@frozen(kw_only=True)
class SessionRejected(Event):
    """An authenticated user has too much open already; ``reason`` says too much of what."""

    event = "session.rejected"
    refused = ("T1006W", "connection of {user} refused: {error}")

    peer: Peer
    service: str
    reason: str


# --- what a node decides ---------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class SessionStart(Event):
    """A process was started for a session (``sid``), or something that a session asked for was refused.

    ``command`` and ``subsystem`` are empty for a shell, ``terminal`` is empty if there is none, and ``sid`` is empty if
    not even the channel was opened.
    """

    event = "session.start"
    done = ("T2000I", "session started: {user} as {login}")
    refused = ("T2000W", "session request refused: {error}")

    peer: Peer
    sid: str = ""
    pid: int = 0
    terminal: str = ""
    command: str = ""
    subsystem: str = ""


@frozen(kw_only=True)
class SessionEnd(Event):
    """A session that was started is over; ``error`` says why if its process did not end by itself. After a signal,
    ``exit_code`` is minus the signal's number; it is ``None`` if unknown."""

    event = "session.end"
    done = ("T2004I", "session ended: {user} as {login}")
    refused = ("T2004I", "session ended: {user} as {login}: {error}")

    peer: Peer
    sid: str
    exit_code: int | None = None


@frozen(kw_only=True)
class Port(Event):
    """Forwarding, by SSH's name for its ``kind``: through the node to ``addr``, from a listener at ``addr``, or of an
    agent."""

    event = "port"
    done = ("T3003I", "{kind} to {addr}")
    refused = ("T3003E", "{kind} to {addr} refused: {error}")

    peer: Peer
    kind: str
    addr: str


@frozen(kw_only=True)
class X11Forward(Event):
    """Forwarding of X11: a display (``addr``), or one connection to it."""

    event = "x11-forward"
    done = ("T3008I", "{kind} to {addr}")
    refused = ("T3008W", "{kind} to {addr} refused: {error}")

    peer: Peer
    kind: str
    addr: str


@frozen(kw_only=True)
class Sftp(Event):
    """A file was transferred, completely or not: ``action`` is ``upload`` or ``download``, ``size`` the bytes
    transferred."""

    event = "sftp"
    done = ("C2000I", "file {action}: {path}, {size} bytes")
    refused = ("C2000W", "file {action} failed: {path}, {size} bytes: {error}")

    peer: Peer
    sid: str
    path: str
    action: str
    size: int


@frozen(kw_only=True)
class Scp(Event):
    """The same, for scp's old protocol."""

    event = "scp"
    done = ("T3005I", "file {action}: {path}, {size} bytes")
    refused = ("T3005E", "file {action} failed: {path}, {size} bytes: {error}")

    peer: Peer
    sid: str
    path: str
    action: str
    size: int

    @property
    def code(self) -> str:
        """Teleport's code; downloads have codes of their own."""
        return super().code.replace("T3005", "T3004") if self.action == "download" else super().code


@frozen(kw_only=True)
class NodeHeld(Event):
    """A user's file system held up the whole node: the ``connections`` of ``login`` were ended, and new ones are
    refused for ``seconds``."""

    event = "node.held"
    refused = ("C2001W", "{login}: {error}: {connections} connections ended, refused for {seconds} s")

    login: str
    user: str
    server_id: str
    connections: int
    seconds: int


# --- what a proxy decides --------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class ProxyDial(Event):
    """A user asked to be connected to ``target``: a node (whose UUID is ``node``, if it was found) or the auth server's
    API."""

    event = "proxy.dial"
    done = ("C3000I", "{user} is connected to {target}")
    refused = ("C3000W", "access denied: {error}")

    peer: Peer
    target: str
    node: str = ""


@frozen(kw_only=True)
class ProxyDenied(Event):
    """A user asked the proxy itself for something that proxies do not offer: a ``kind`` (session, channel, listener) of
    ``target``."""

    event = "proxy.denied"
    refused = ("C3001W", "access denied: {error}")

    peer: Peer
    kind: str
    target: str


EVENTS: Final[Mapping[str, type[Event]]] = {each.event: each for each in Event.__subclasses__()}
"""All types, by the event's name."""
