"""An auth server with a clock that tests move, and the people who talk to it."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from twisted.internet.task import Clock

from teleconch.auth.server import AuthServer
from teleconch.auth.settings import AuthSettings
from teleconch.backend.interface import Backend
from teleconch.ca.keys import new_ssh_key, new_tls_key
from teleconch.resources.host import JoinRequest, Ping
from teleconch.resources.identity import ApiIdentity
from teleconch.resources.login import LoginRequest
from teleconch.resources.node import Node
from teleconch.resources.secret import Secret
from teleconch.resources.token import Token
from teleconch.resources.user import User
from teleconch.service.auth import auth_server
from teleconch.service.events import LogEmitter

CLUSTER = "example.com"
STATIC = "static-node-token"
PASSWORD = "correct horse"


def new_uuid() -> str:
    return str(uuid.uuid4())


def code(secret: Secret, when: float) -> str:
    """The TOTP code of a base32 secret, as an authenticator app shows it."""
    return TOTP(base64.b32decode(secret.reveal()), 6, SHA1(), 30).generate(int(when)).decode()


class Server(AuthServer):
    """An auth server as mypy should see it: its use cases' methods become attributes when it is built."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]: ...


class Cluster:
    """One auth server under test."""

    def __init__(self, clock: Clock, backend: Backend, **changes: Any) -> None:
        self.clock = clock
        self.backend = backend
        self.server = self.another(**changes)

    def another(self, **changes: Any) -> Server:
        """A second auth server on the same state, not started."""
        settings: dict[str, Any] = {
            "cluster": CLUSTER,
            "second_factor": "otp",
            "static_tokens": (Token(Secret(STATIC), ("node",), None, static=True),),
            "password_rounds": 4,
        }
        settings |= {name: changes.pop(name) for name in settings if name in changes}
        changes = {"emitter": LogEmitter()} | changes
        return cast("Server", auth_server(self.backend, AuthSettings(**settings), clock=self.clock, **changes))

    def request(self, **changes: Any) -> JoinRequest:
        """What a new node asks for with the static token."""
        request = JoinRequest(
            token=Secret(STATIC),
            uuid=new_uuid(),
            nodename="web1",
            role="node",
            ssh_public_key=new_ssh_key()[1],
            tls_public_key=new_tls_key()[1],
            addresses=("192.0.2.7",),
            time=self.clock.seconds(),
            version="0.1.0",
        )
        return evolve(request, **changes)

    def identity(self, uuid: str, *roles: str) -> ApiIdentity:
        return ApiIdentity("host", uuid, roles or ("node",), CLUSTER, self.clock.seconds() + 1000)

    def node(self, uuid: str, **changes: Any) -> Node:
        return evolve(Node(uuid, "web1", CLUSTER, "192.0.2.7:3022", (), {"env": "prod"}, "0.1.0"), **changes)

    async def joined(self, nodename: str = "web1", **changes: Any) -> str:
        """A node that has joined: its UUID."""
        request = self.request(nodename=nodename, **changes)
        await self.server.join(request)
        return request.uuid

    async def ping(self, uuid: str, instance: str = "one", **changes: Any) -> Ping:
        ping: Ping = await self.server.heartbeat(self.node(uuid, **changes), instance, self.identity(uuid))
        return ping

    async def signed_up(self, name: str = "alice", logins: tuple[str, ...] = ("root",)) -> Secret:
        """A user who has signed up: the OTP secret."""
        token = await self.server.create_user(User(name, traits={"logins": logins}), 3600)
        signup = await self.server.start_signup(token.value)
        await self.server.finish_signup(token.value, Secret(PASSWORD), code(signup.otp_secret, self.clock.seconds()))
        self.clock.advance(30)
        secret: Secret = signup.otp_secret
        return secret

    def login_request(
        self, name: str = "alice", password: str = PASSWORD, otp: str = "", **changes: Any
    ) -> LoginRequest:
        request = LoginRequest(name, Secret(password), otp, new_ssh_key()[1], new_tls_key()[1], None)
        return evolve(request, **changes)

    def meanwhile(self, act: Callable[..., Any], skip: int = 0) -> None:
        """Have ``act()`` happen just before the next commit (or, after some): between its reading and its writing."""
        real = self.backend.commit
        left = skip

        async def commit(*changes: Any) -> int:
            nonlocal left
            left -= 1
            if left < 0:
                self.backend.commit = real
                await act()
            return await real(*changes)

        self.backend.commit = commit

    async def stored(self) -> dict[str, bytes]:
        """Everything in the state, as bytes by key."""
        return {item.key: item.value async for item in self.backend.all("/")}
