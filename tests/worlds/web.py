"""The web on loopback, in front of a real auth server whose state is in memory."""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from attrs import define
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread

from teleconch.api.codec import METHODS, decode_arguments, encode_arguments
from teleconch.auth.server import AuthServer
from teleconch.auth.settings import AuthSettings
from teleconch.backend.memory import MemoryBackend
from teleconch.ca import tls as ca_tls
from teleconch.ca.authority import new_authority
from teleconch.ca.keys import new_ssh_key, new_tls_key
from teleconch.errors import ConnectionProblem
from teleconch.resources.user import User
from teleconch.service.auth import auth_server
from teleconch.service.events import LogEmitter
from teleconch.web.app import WebSettings
from teleconch.web.service import WebServer
from teleconch.web.tls import TLSFiles
from tests.worlds.reactor import reactor

CLUSTER = "example.test"
PASSWORD = "correct horse"


def code(secret: str, when: float | None = None) -> str:
    """What an authenticator app shows."""
    key = base64.b32decode(secret)
    return TOTP(key, 6, SHA1(), 30).generate(int(reactor.seconds() if when is None else when)).decode()


@define
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: str

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value

    @property
    def error(self) -> str:
        assert self.headers["Content-Type"] == "application/json; charset=utf-8"
        assert list(self.json) == ["error"]
        assert list(self.json["error"]) == ["message"]
        return str(self.json["error"]["message"])

    @property
    def text(self) -> str:
        """What a person reads on the page."""
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", self.body)).strip()


class Switch:
    """Auth, or nobody: what a proxy's client does when auth is away."""

    def __init__(self, auth: AuthServer) -> None:
        self.auth = auth
        self.away = False
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self.auth, name)

        async def switched(*arguments: Any) -> Any:
            self.calls.append(name)
            if self.away:
                raise ConnectionProblem("No auth server can be reached: 10.0.0.1:3025 refused.")
            method = METHODS[name]  # what cannot cross the wire must not get here
            return await call(*decode_arguments(method, encode_arguments(method, arguments)))

        return switched


class Web:
    def __init__(self) -> None:
        self.auth: AuthServer | None = None
        self.server: WebServer | None = None
        self.ca = new_authority("host", CLUSTER, reactor.seconds())
        self.files = self.certificate()
        self.port = 0

    def certificate(self, serial: int = 1) -> TLSFiles:
        key, public = new_tls_key()
        now = reactor.seconds()
        pem = ca_tls.issue_host_tls(
            self.ca,
            uuid="52e3e46a-372f-494b-bdd9-a1d25b9d6dec",
            roles=("proxy",),
            dns_names=("localhost",),
            public_key=public,
            valid_after=now - 60,
            valid_before=now + 3600,
            serial=serial,
        )
        return TLSFiles(key, pem + self.ca.tls_cert)

    async def start(self, second_factor: str = "otp", **settings: Any) -> Web:
        self.auth = auth_server(
            MemoryBackend(reactor.seconds),
            AuthSettings(CLUSTER, second_factor, password_rounds=4),
            clock=reactor,
            emitter=LogEmitter(),
        )
        await self.auth.start()
        self.api = Switch(self.auth)
        settings = {"ssh_listen_addr": "0.0.0.0:3023", **settings}
        self.server = WebServer(
            reactor,
            TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"),
            self.api,
            WebSettings(CLUSTER, **settings),
            lambda: self.files,
        )
        self.server.startService()
        own: Any = await self.server.listening()
        self.port = own.port
        return self

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stopService()
        if self.auth is not None:
            await self.auth.stop()

    async def token(self, user: str = "alice", logins: tuple[str, ...] = ("root",)) -> str:
        made = await self.auth.create_user(User(user, traits={"logins": logins}), 600)
        return str(made.value.reveal())

    async def signed_up(self, user: str = "alice") -> str:
        """A user who can log in; gives the second factor's secret."""
        token = await self.token(user)
        invite = (await self.get(f"/webapi/users/invites/{token}")).json
        fields = {"invite_token": token, "pass": PASSWORD, "second_factor_token": code(invite["otp_secret"])}
        assert (await self.post("/webapi/users", fields)).status == 200
        return str(invite["otp_secret"])

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.ca.tls_cert)

    def _call(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], source: str = "127.0.0.1"
    ) -> Answer:
        connection = http.client.HTTPSConnection(
            "localhost", self.port, context=self.context(), timeout=20, source_address=(source, 0)
        )
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode())
        finally:
            connection.close()

    async def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        return await deferToThread(self._call, method, path, body, headers)

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.call("GET", path, None, **headers)

    async def post(self, path: str, fields: object) -> Answer:
        return await self.call("POST", path, json.dumps(fields).encode(), **{"Content-Type": "application/json"})

    async def form(self, path: str, **fields: str) -> Answer:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return await self.call("POST", path, urlencode(fields).encode(), **kind)

    async def login(self, user: str, password: str, otp: str, **more: Any) -> Answer:
        keys = {"pub_key": new_ssh_key()[1], "tls_pub_key": new_tls_key()[1]}
        return await self.post(
            "/webapi/ssh/certs", {"user": user, "password": password, "otp_token": otp, **keys, **more}
        )

    def _raw(self, data: bytes, patience: float) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", self.port), 20) as plain,
            self.context().wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.settimeout(patience)
            tls.sendall(data)
            found = b""
            try:
                while more := tls.recv(65536):
                    found += more
            except (TimeoutError, ConnectionError):
                pass
            return found

    async def raw(self, data: bytes, patience: float = 5) -> bytes:
        """Everything that is answered to ``data`` until the server closes, or ``patience`` seconds are over."""
        return await deferToThread(self._raw, data, patience)
