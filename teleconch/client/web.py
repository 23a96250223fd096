"""The proxy's HTTPS side, as ``tsh`` uses it: Teleport 4.2's ``/webapi``, blocking, one connection a call."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from typing import Any
from urllib.parse import quote

from attrs import frozen

from teleconch import __version__
from teleconch.ca.authority import ca_pin
from teleconch.client.address import ProxyAddress, split_address
from teleconch.client.tcp import TIMEOUT, connect_tcp
from teleconch.client.trust import Trust, explain, tls_context
from teleconch.defaults import PROXY_PORT, WEB_PORT
from teleconch.errors import (
    AccessDenied,
    AlreadyExists,
    BadParameter,
    ConnectionProblem,
    LimitExceeded,
    NotFound,
    TeleconchError,
    TrustError,
    Unavailable,
)
from teleconch.resources.address import join_address
from teleconch.resources.authority import TrustedAuthority
from teleconch.resources.login import LoginRequest, Signup, UserCertificates
from teleconch.resources.names import is_name, is_user_name
from teleconch.resources.secret import Secret
from teleconch.resources.strict_json import read_json

_ANSWER_PATIENCE = 45.0  # seconds: in a crowd, a login waits for 20 at the proxy, and again at the auth server
_ANSWER_MAX = 4 * 1024 * 1024
_KINDS: dict[int, type[TeleconchError]] = {
    400: BadParameter,
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    409: AlreadyExists,
    429: LimitExceeded,
    503: Unavailable,
}
_INVITE = re.compile(r"(?:https://)?(?P<proxy>[^/?#]+)/web/(?:newuser|invite)/(?P<token>[A-Za-z0-9._~-]{1,256})/?")


@frozen
class Ping:
    """What the proxy says of itself. ``ssh_proxy_addr`` is where its SSH server is, seen from here."""

    cluster: str
    server_version: str
    second_factor: str
    ssh_proxy_addr: str


class WebClient:
    """Talks to one proxy. Each call raises the kinds of ``teleconch.errors`` with the server's sentence;
    TrustError before anything is sent to a server that is not believed."""

    def __init__(self, proxy: ProxyAddress, trust: Trust) -> None:
        self.proxy = proxy
        self._trust = trust
        self._host = proxy.host
        self._port = proxy.web_port or WEB_PORT
        self._context: ssl.SSLContext | None = None

    def ping(self) -> Ping:
        """Ask what kind of login there is, and where SSH is."""
        answer = self._call("GET", "/webapi/ping")
        auth, proxy = _mapping(answer.get("auth")), _mapping(answer.get("proxy"))
        return Ping(
            cluster=_name(answer, "cluster_name"),
            server_version=_text(answer, "server_version"),
            second_factor=str(auth.get("second_factor") or "off"),
            ssh_proxy_addr=self._ssh_address(_mapping(proxy.get("ssh"))),
        )

    def _ssh_address(self, ssh: dict[str, Any]) -> str:
        if self.proxy.ssh_port:
            return self.proxy.ssh
        try:
            if ssh.get("ssh_public_addr"):
                return join_address(*split_address(str(ssh["ssh_public_addr"]), PROXY_PORT))
            return join_address(self._host, split_address(str(ssh.get("listen_addr") or "x"), PROXY_PORT)[1])
        except BadParameter:
            raise self._strange() from None

    def login(self, request: LoginRequest) -> UserCertificates:
        """Certificates for a password (and second factor). AccessDenied. With a pin, the authorities are checked."""
        body: dict[str, object] = {
            "user": request.user,
            "password": request.password.reveal(),
            "otp_token": request.otp,
            "pub_key": request.ssh_public_key,
            "tls_pub_key": request.tls_public_key,
        }
        if request.ttl is not None:
            body["ttl"] = request.ttl
        answer = self._call("POST", "/webapi/ssh/certs", body)
        certificates = self._certificates(answer)
        pin = self._trust.pin
        pins = {ca_pin(cert) for authority in certificates.authorities for cert in authority.tls_certs}
        if pin is not None and pin not in pins:
            raise TrustError(
                f"The cluster behind {self._host} has another authority than the one with the pin {pin}: compare it"
                " with `tctl status` on the auth server. Nothing was stored."
            )
        return certificates

    def _certificates(self, answer: dict[str, Any]) -> UserCertificates:
        try:
            return UserCertificates(
                user=_name(answer, "username"),
                cluster=_name(answer, "cluster"),
                logins=tuple(str(login) for login in answer["logins"]),
                roles=tuple(str(role) for role in answer["roles"]),
                extensions=tuple(str(extension) for extension in answer["extensions"]),
                ssh_cert=_text(answer, "cert"),
                tls_cert=_text(answer, "tls_cert"),
                authorities=tuple(
                    TrustedAuthority(
                        type="host",
                        cluster=_name(signer, "domain_name"),
                        ssh_public_keys=tuple(str(key) for key in signer["checking_keys"]),
                        tls_certs=tuple(str(cert) for cert in signer["tls_certs"]),
                    )
                    for signer in answer["host_signers"]
                ),
                valid_before=float(answer["valid_before"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self._strange() from None

    def start_signup(self, token: Secret) -> Signup:
        """What a sign-up shows. AccessDenied."""
        answer = self._call("GET", f"/webapi/users/invites/{quote(token.reveal(), safe='')}")
        url, secret = answer.get("otp_url"), answer.get("otp_secret")
        return Signup(
            user=_name(answer, "user"),
            cluster=_name(answer, "cluster"),
            otp_url=Secret(url) if isinstance(url, str) and url.isprintable() else None,
            otp_secret=Secret(secret) if isinstance(secret, str) and secret.isprintable() else None,
        )

    def finish_signup(self, token: Secret, password: Secret, otp: str) -> str:
        """Set password and second factor; the user's name. AccessDenied; BadParameter: the token is still good."""
        body = {"invite_token": token.reveal(), "pass": password.reveal(), "second_factor_token": otp}
        return _name(self._call("POST", "/webapi/users", body), "user")

    # --- HTTP ---

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if self._context is None:
            self._context = tls_context(self._trust, self._host, self._port)
        headers = {"User-Agent": f"tsh/{__version__}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT, context=self._context)
        tcp = connect_tcp(self._host, self._port, https=True)
        try:
            connection.sock = self._context.wrap_socket(tcp, server_hostname=self._host)
            connection.sock.settimeout(_ANSWER_PATIENCE)
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read(_ANSWER_MAX)
        except ssl.SSLError as error:
            raise explain(error, self._trust, self._host) from error
        except (http.client.HTTPException, OSError) as error:
            raise ConnectionProblem(
                f"The proxy at {self._host}:{self._port} broke off the connection: try again, or check --proxy."
            ) from error
        finally:
            connection.close()
            tcp.close()
        return self._answer(response.status, text)

    def _answer(self, status: int, text: bytes) -> dict[str, Any]:
        try:
            answer = read_json(text, "The proxy's answer")
        except BadParameter:
            answer = None
        if status == 200 and isinstance(answer, dict):
            return answer
        sentence = _mapping(_mapping(answer).get("error")).get("message")
        if isinstance(sentence, str) and sentence:
            raise _KINDS.get(status, TeleconchError)(sentence[:1000])
        raise self._strange()

    def _strange(self) -> ConnectionProblem:
        return ConnectionProblem(
            f"What answers at {self._host}:{self._port} is not a proxy of this kind: check --proxy (HOST:HTTPS_PORT)."
        )


def parse_signup_url(text: str) -> tuple[str, Secret]:
    """Proxy (as after ``--proxy``) and token of a sign-up link. BadParameter."""
    match = _INVITE.fullmatch(text.strip())
    if match is None:
        raise BadParameter("That is not a sign-up link; it looks like https://PROXY:3080/web/newuser/TOKEN.")
    return match["proxy"], Secret(match["token"])


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(answer: dict[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise ConnectionProblem(f"The proxy's answer has no {name}: its version does not fit this tsh.")
    return value


def _name(answer: dict[str, Any], name: str) -> str:
    """A name of a user or cluster. It goes into files, commands and the terminal, so nothing else is allowed."""
    value = _text(answer, name)
    if not (is_user_name if name.startswith("user") else is_name)(value):
        raise ConnectionProblem(f"The proxy's answer has a {name} that is not a name: do not trust this proxy.")
    return value
