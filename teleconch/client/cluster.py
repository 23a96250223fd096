"""The auth API for a user: SSH to the proxy, the subsystem ``auth-api``, and inside it the user's own TLS."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import implementer

from teleconch.api.client import AuthClient
from teleconch.api.interface import AuthAPI
from teleconch.api.pages import all_nodes
from teleconch.api.tls import TLSCredentials, member_tls
from teleconch.client.identity import Identity
from teleconch.client.profile import Profiles, home
from teleconch.client.standing import Standing
from teleconch.codec import string
from teleconch.errors import BadParameter, ConnectionProblem, NotFound, quoted
from teleconch.resources.node import NodeStatus
from teleconch.ssh.client import ClientConnection
from teleconch.ssh.ends import RelayChannel
from teleconch.ssh.nested import run_in_channel
from teleconch.ssh.problems import ChannelRefused, RequestRefused

T = TypeVar("T")

_SENTENCE_MAX = 4096


class ApiChannel(RelayChannel):
    """A session at the proxy that asks for ``auth-api``. ``sentence`` is what the proxy says if it does not connect
    it."""

    name = b"session"

    def __init__(self) -> None:
        super().__init__()
        self.sentence = ""

    def extReceived(self, dataType: int, data: bytes) -> None:
        self.sentence = (self.sentence + data.decode("utf-8", "replace"))[:_SENTENCE_MAX]

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """For TLS, which takes every transport for TCP. The connection to the proxy sends keep-alives of its own."""


@implementer(IStreamClientEndpoint)
class ApiEndpoint:
    """Connects to the auth server through a proxy that the user is logged in to."""

    name = "the auth server"

    def __init__(self, proxy: ClientConnection) -> None:
        self._proxy = proxy
        self.channel = ApiChannel()

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: Any) -> Any:
        channel = self.channel = ApiChannel()
        try:
            await self._proxy.open(channel)
            answer = self._proxy.sendRequest(channel, b"subsystem", string(b"auth-api"), wantReply=1)
            assert answer is not None
            await answer
        except (ChannelRefused, RequestRefused) as refused:
            raise ConnectionProblem(f"The proxy does not lead to the auth server: {refused}.") from refused
        except ConnectionLost as lost:
            raise ConnectionProblem("The proxy closed the connection; try again.") from lost
        protocol = factory.buildProtocol(None)
        run_in_channel(protocol, channel)
        return protocol


def identity_of(standing: Standing) -> Identity:
    """All keys of the user, including the TLS ones. NotFound, BadParameter."""
    if standing.only_ssh is not None:
        raise BadParameter(
            f"{standing.only_ssh} holds an SSH key alone, and the list of nodes (tsh ls, labels) takes a TLS key too:"
            " have an identity made with `tctl auth sign --format=file`."
        )
    return standing.identity or Profiles(home()).identity(standing.profile)


async def ask(
    reactor: Any, proxy: ClientConnection, identity: Identity, question: Callable[[AuthAPI], Awaitable[T]]
) -> T:
    """What ``question`` gets out of the auth API as this user. A TeleconchError."""
    credentials = TLSCredentials(identity.tls_cert, identity.tls_private_key)
    endpoint = ApiEndpoint(proxy)
    client = AuthClient(reactor, [endpoint], member_tls(lambda: credentials, lambda: identity.authorities, time.time))
    try:
        return await question(client.api)
    except ConnectionProblem as problem:
        sentence = endpoint.channel.sentence.strip()
        if sentence:
            raise ConnectionProblem(sentence) from problem
        raise
    finally:
        client.close()


async def nodes_by_name(api: AuthAPI) -> list[NodeStatus]:
    """Every node of the cluster, by name."""
    return sorted(await all_nodes(api), key=lambda status: (status.node.nodename, status.node.uuid))


def parse_label(text: str) -> tuple[str, str]:
    """``key=value``. BadParameter."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise BadParameter(f"{quoted(text)} is not a label: give one as key=value, like env=prod.")
    return key, value


def with_labels(found: Sequence[NodeStatus], texts: Iterable[str]) -> list[NodeStatus]:
    """The nodes that match each of ``texts``: ``key=value``, or several as ``key=value,key=value``.

    A value may have a comma in it: the whole text is tried as one label first. In double quotes it is never split.
    BadParameter.
    """
    remaining = list(found)
    for text in texts:
        whole = parse_label(text)
        matching = [each for each in found if _has(each, [whole])]
        wanted = [whole] if matching else [parse_label(part) for part in _parts(text)]
        remaining = [each for each in remaining if _has(each, wanted)]
    return remaining


def _has(status: NodeStatus, wanted: Iterable[tuple[str, str]]) -> bool:
    return all(status.node.labels.get(key) == value for key, value in wanted)


def _parts(text: str) -> list[str]:
    """``a=1,b="2,3"`` as ``a=1`` and ``b=2,3``. A text that is not a list of labels stays whole."""
    parts = re.findall(r'(?:[^,"]|"[^"]*"?)+', text)
    bare = [part.replace('"', "").strip() for part in parts]
    return bare if all("=" in part for part in bare) else [text]


async def nodes_with_label(api: AuthAPI, label: str) -> list[NodeStatus]:
    """The nodes with a label (or several, see :func:`with_labels`), at least one. NotFound, BadParameter."""
    parse_label(label)
    found = with_labels(await nodes_by_name(api), [label])
    if not found:
        raise NotFound(f"No node has the label {label}: see `tsh ls`.")
    return found


def the_one(label: str, found: list[NodeStatus]) -> str:
    """The UUID of the one node that was found. BadParameter with the candidates."""
    if len(found) > 1:
        names = "; ".join(f"{status.node.nodename} {status.node.uuid}" for status in found[:8])
        raise BadParameter(f"{len(found)} nodes have the label {label}; name the one you mean: {names}.")
    return found[0].node.uuid


async def node_with_label(api: AuthAPI, label: str) -> str:
    """The UUID of the one node with a label. NotFound, BadParameter with the candidates."""
    return the_one(label, await nodes_with_label(api, label))
