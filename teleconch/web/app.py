"""The web's routes: Teleport 4.2's paths, with and without the leading ``/v1``."""

from __future__ import annotations

from importlib.resources import files
from urllib.parse import parse_qs

from attrs import frozen
from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.template import Tag, flattenString
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from teleconch import __version__
from teleconch.errors import BadParameter, NotFound, TeleconchError
from teleconch.resources.address import split_address
from teleconch.resources.login import LoginRequest, UserCertificates
from teleconch.resources.secret import Secret
from teleconch.web import pages
from teleconch.web.answers import (
    UNEXPECTED,
    HttpProblem,
    answer,
    json_answer,
    json_error,
    read_json,
    sentence_of,
    status_of,
    text_field,
)
from teleconch.web.front import Front, WebApi

log = Logger()


@frozen
class WebSettings:
    """What the web says about itself; addresses are ``host:port``.

    ``public_addr`` is where users reach the web; it is empty if the configuration does not say. ``pinned``: the web's
    certificate is the cluster's own, so that ``tsh login`` needs the CA pin.
    """

    cluster: str
    ssh_listen_addr: str
    ssh_public_addr: str = ""
    public_addr: str = ""
    pinned: bool = False


class WebApp:
    """The routes, given the auth API. ``seconds`` of ``clock`` drive the limits."""

    app = Klein()
    # Build no redirects from a path or a Host header that a peer wrote.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False

    def __init__(self, api: WebApi, settings: WebSettings, clock: IReactorTime) -> None:
        self._front = Front(api, clock)
        self._settings = settings
        self._style = files("teleconch.web").joinpath("static", "style.css").read_bytes()

    # JSON

    @app.route("/webapi/ping", methods=["GET"])
    @app.route("/v1/webapi/ping", methods=["GET"], endpoint="ping_v1")
    async def ping(self, request: IRequest) -> bytes:
        """What ``tsh`` asks first: version, kind of login, addresses."""
        status = await self._front.status()
        ssh = {
            "listen_addr": self._settings.ssh_listen_addr,
            "public_addr": self._settings.public_addr,  # in 4.2 this is the web's, in spite of its place
            "ssh_public_addr": self._settings.ssh_public_addr,
        }
        return json_answer(
            request,
            {
                "server_version": __version__,
                "cluster_name": status.cluster,
                "auth": {"type": "local", "second_factor": status.second_factor},
                "proxy": {"kube": {"enabled": False}, "ssh": {key: value for key, value in ssh.items() if value}},
            },
        )

    @app.route("/webapi/ssh/certs", methods=["POST"])
    @app.route("/v1/webapi/ssh/certs", methods=["POST"], endpoint="certs_v1")
    async def certs(self, request: IRequest) -> bytes:
        """Log in: ``{user, password, otp_token, pub_key, tls_pub_key, ttl}`` (``ttl`` in seconds)."""
        signed = await self._front.login(_source(request), _login_request(read_json(request)))
        return json_answer(request, certificates_json(signed))

    @app.route("/webapi/users/invites/<token>", methods=["GET"])
    @app.route("/v1/webapi/users/invites/<token>", methods=["GET"], endpoint="invite_v1")
    async def invite(self, request: IRequest, token: str) -> bytes:
        """What a sign-up shows: ``{invite_token, user, cluster, otp_url, otp_secret}``."""
        signup = await self._front.start_signup(_source(request), token)
        return json_answer(
            request,
            {
                "invite_token": token,
                "user": signup.user,
                "cluster": signup.cluster,
                "otp_url": signup.otp_url.reveal() if signup.otp_url else None,
                "otp_secret": signup.otp_secret.reveal() if signup.otp_secret else None,
            },
        )

    @app.route("/webapi/users", methods=["POST"])
    @app.route("/v1/webapi/users", methods=["POST"], endpoint="users_v1")
    async def users(self, request: IRequest) -> bytes:
        """Finish a sign-up: ``{invite_token (or token), pass, second_factor_token}``."""
        fields = read_json(request)
        token = text_field(fields, "invite_token", "token")
        password = text_field(fields, "pass")
        code = text_field(fields, "second_factor_token", optional=True)
        user = await self._front.finish_signup(_source(request), token, password, code)
        return json_answer(request, {"user": user, "cluster": self._settings.cluster})

    # Pages

    @app.route("/", methods=["GET"])
    @app.route("/web", methods=["GET"], endpoint="home_web")
    async def home(self, request: IRequest) -> bytes:
        """A page that says what this is."""
        return await self._page(request, pages.home_page(self._settings.cluster, self._address(request)))

    @app.route(pages.STYLE_PATH, methods=["GET"])
    async def style(self, request: IRequest) -> bytes:
        """The one style sheet."""
        request.setHeader(b"Cache-Control", b"public, max-age=3600")
        return answer(request, "text/css; charset=utf-8", self._style)

    @app.route("/web/newuser/<token>", methods=["GET"])
    async def newuser(self, request: IRequest, token: str) -> bytes:
        """The sign-up form."""
        signup = await self._front.start_signup(_source(request), token)
        return await self._page(request, pages.signup_page(f"/web/newuser/{token}", signup))

    # No CSRF token: it would prove that a form came from our own page, which matters where the browser adds the user's
    # authority (a cookie) by itself. There is no cookie here. The authority is the sign-up token in the URL, and a page
    # of another site that knows the token needs no help from the browser.
    @app.route("/web/newuser/<token>", methods=["POST"], endpoint="newuser_post")
    async def newuser_post(self, request: IRequest, token: str) -> bytes:
        """The submitted sign-up form. A problem is shown above the form; nothing that was typed comes back."""
        fields = _form(request)
        try:
            if fields.get("password", "") != fields.get("password2", ""):
                raise BadParameter("The two passwords differ: type the same one twice.")
            user = await self._front.finish_signup(
                _source(request), token, fields.get("password", ""), fields.get("code", "").replace(" ", "")
            )
        except BadParameter as error:
            signup = await self._front.start_signup(_source(request), token)
            page = pages.signup_page(f"/web/newuser/{token}", signup, sentence_of(error))
            return await self._page(request, page, status_of(error))
        pins = (await self._front.status()).ca_pins if self._settings.pinned else ()
        steps = pages.NextSteps(self._address(request), user, pins[0] if pins else None)
        return await self._page(request, pages.done_page(self._settings.cluster, steps))

    # Errors

    @app.handle_errors(TeleconchError)
    async def _known(self, request: IRequest, failure: Failure) -> bytes:
        assert isinstance(failure.value, TeleconchError)
        if sentence_of(failure.value) == UNEXPECTED:
            log.failure("the web could not answer", failure=failure)
        return await self._error(request, failure.value)

    @app.handle_errors(HTTPException)
    async def _unrouted(self, request: IRequest, failure: Failure) -> bytes:
        if isinstance(failure.value, MethodNotAllowed):
            request.setHeader(b"Allow", ", ".join(failure.value.valid_methods or ()).encode())
            return await self._error(request, HttpProblem(405, "This address does not accept that method."))
        return await self._error(request, NotFound("There is nothing at this address."))

    @app.handle_errors(CancelledError)
    async def _left(self, request: IRequest, failure: Failure) -> bytes:
        return b""  # the client went away; nobody reads this

    @app.handle_errors(Exception)
    async def _unexpected(self, request: IRequest, failure: Failure) -> bytes:
        log.failure("the web could not answer", failure=failure)
        return await self._error(request, HttpProblem(500, UNEXPECTED))

    async def _error(self, request: IRequest, error: TeleconchError) -> bytes:
        if "/webapi/" in request.path.decode("latin-1"):
            return json_error(request, error)
        title = {403: "This link does not work", 404: "Nothing here", 429: "Please wait"}.get(status_of(error), "Sorry")
        return await self._page(request, pages.message_page(title, sentence_of(error)), status_of(error))

    async def _page(self, request: IRequest, page: Tag, status: int = 200) -> bytes:
        body = b"<!DOCTYPE html>\n" + await flattenString(request, page)
        return answer(request, "text/html; charset=utf-8", body, status)

    def _address(self, request: IRequest) -> str:
        """Where users reach us: as configured, or else what the user's own browser says, if that can be an address."""
        host = (request.getHeader("host") or "").strip()
        return self._settings.public_addr or (host if split_address(host) else "PROXY")


def _source(request: IRequest) -> str:
    return str(getattr(request.getClientAddress(), "host", ""))


def _form(request: IRequest) -> dict[str, str]:
    request.content.seek(0)
    try:  # an undecodable character must not turn into another: it may be part of a password
        body = request.content.read().decode("utf-8")
        fields = parse_qs(body, keep_blank_values=True, max_num_fields=20, errors="strict")
    except UnicodeError:
        raise BadParameter("The form cannot be read: it is not UTF-8 text.") from None
    except ValueError:
        raise BadParameter("The form has too many fields.") from None
    return {name: values[-1] for name, values in fields.items()}


def _login_request(fields: dict[str, object]) -> LoginRequest:
    ttl = fields.get("ttl")
    if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, (int, float)) or not 0 <= ttl <= 1e9):
        raise BadParameter("ttl must be a number of seconds.")
    return LoginRequest(
        user=text_field(fields, "user"),
        password=Secret(text_field(fields, "password")),
        otp=text_field(fields, "otp_token", optional=True),
        ssh_public_key=text_field(fields, "pub_key"),
        tls_public_key=text_field(fields, "tls_pub_key"),
        ttl=float(ttl) if ttl else None,
    )


def certificates_json(signed: UserCertificates) -> dict[str, object]:
    """A login's answer. ``host_signers`` are the host authorities in 4.2's shape, times are epoch seconds."""
    return {
        "username": signed.user,
        "cluster": signed.cluster,
        "cert": signed.ssh_cert,
        "tls_cert": signed.tls_cert,
        "logins": list(signed.logins),
        "roles": list(signed.roles),
        "extensions": list(signed.extensions),
        "valid_before": signed.valid_before,
        "host_signers": [
            {
                "domain_name": authority.cluster,
                "checking_keys": list(authority.ssh_public_keys),
                "tls_certs": list(authority.tls_certs),
            }
            for authority in signed.authorities
            if authority.type == "host"
        ],
    }
