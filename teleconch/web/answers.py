"""How the web answers: the headers of every answer, JSON, and errors as a status with one sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from twisted.web.iweb import IRequest

from teleconch.errors import (
    AccessDenied,
    AlreadyExists,
    BadParameter,
    ConnectionProblem,
    LimitExceeded,
    NotFound,
    TeleconchError,
    Unavailable,
)
from teleconch.resources import strict_json

CSP: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": CSP,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the URL may hold a sign-up token
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Strict-Transport-Security": "max-age=31536000",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
TEXT_MAX: Final = 8192  # characters of one field: a 16,384-bit RSA public key has 2,800
UNEXPECTED: Final = "Something went wrong on the server, which has logged it: try again, or tell your administrator."

_STATUS: Final[tuple[tuple[type[TeleconchError], int], ...]] = (
    (AccessDenied, 403),
    (BadParameter, 400),
    (NotFound, 404),
    (AlreadyExists, 409),
    (LimitExceeded, 429),
    (ConnectionProblem, 503),
    (Unavailable, 503),
)


class HttpProblem(TeleconchError):
    """A request that HTTP itself refuses (405, 415, ...), with its status."""

    code = "http"

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def status_of(error: TeleconchError) -> int:
    """The HTTP status of an error's kind; 500 for a kind that no user should see."""
    if isinstance(error, HttpProblem):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def sentence_of(error: TeleconchError) -> str:
    """What the peer is told. When auth is unreachable it is told only that: which address refused is for the
    administrator."""
    if isinstance(error, (ConnectionProblem, Unavailable)):
        return "The auth server cannot answer at the moment: try again in a minute."
    return UNEXPECTED if status_of(error) == 500 else str(error)


def answer(request: IRequest, content_type: str, body: bytes, status: int = 200) -> bytes:
    """``body`` as a complete answer."""
    request.setResponseCode(status)
    request.setHeader(b"Server", b"teleconch")
    request.setHeader(b"Content-Type", content_type.encode())
    request.setHeader(b"Content-Length", b"%d" % len(body))
    return body


def json_answer(request: IRequest, value: object, status: int = 200) -> bytes:
    """``value`` as the JSON body of an answer."""
    body = json.dumps(value, ensure_ascii=True).encode() + b"\n"
    return answer(request, "application/json; charset=utf-8", body, status)


def json_error(request: IRequest, error: TeleconchError) -> bytes:
    """``{"error": {"message": sentence}}`` with the status of the error's kind."""
    return json_answer(request, {"error": {"message": sentence_of(error)}}, status_of(error))


def read_json(request: IRequest) -> dict[str, object]:
    """The request's body, a JSON object. HttpProblem, BadParameter."""
    content_type = (request.getHeader("content-type") or "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        # A form on another site's page cannot send this type, so no such page can post here in a user's name.
        raise HttpProblem(415, "Send the request as JSON, with Content-Type: application/json.")
    value = strict_json.read_json(request.content.read(), "The request")
    if not isinstance(value, dict):
        raise BadParameter("The request is not a JSON object.")
    return value


def text_field(fields: Mapping[str, object], *names: str, optional: bool = False) -> str:
    """The value of the first of ``names`` that is present, which must be a string. BadParameter."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, str):
            if len(value) > TEXT_MAX:
                raise BadParameter(f"{name} is too long: it may have at most {TEXT_MAX} characters.")
            return value
        if value is not None:
            raise BadParameter(f"{name} must be a string.")
    if optional:
        return ""
    raise BadParameter(f"{names[0]} is missing from the request.")
