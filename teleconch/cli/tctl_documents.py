"""What ``tctl create`` reads, and how each document becomes a call."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from teleconch import defaults
from teleconch.errors import AlreadyExists, BadParameter, ConfigError, NotFound
from teleconch.resources.documents import Resource, load_documents
from teleconch.resources.node import NodeStatus
from teleconch.resources.role import Role
from teleconch.resources.token import SIGNUP, Token
from teleconch.resources.user import User

if TYPE_CHECKING:
    from teleconch.api.interface import AuthAPI


def read_documents(filename: str) -> list[User | Token]:
    """The documents in a file (``-``: standard input) that can be created; the others are named on stderr.

    BadParameter with all errors of the documents; OSError.
    """
    if filename == "-":
        if sys.stdin.isatty():
            click.echo("Reading documents from the terminal; end with Ctrl-D.", err=True)
        content, shown = sys.stdin.buffer.read(), "<stdin>"
    else:
        with open(filename, "rb") as file:
            content, shown = file.read(), filename
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadParameter(f"{shown} is not UTF-8 text; save it as UTF-8.") from None
    left_out: list[str] = []
    try:
        resources = load_documents(text, shown, left_out, time.time())
    except ConfigError as e:
        count = len(e.problems)
        raise BadParameter(
            f"{shown} has {count} {'error' if count == 1 else 'errors'}; nothing was created:\n{e}"
        ) from None
    for line in left_out:
        click.echo(line, err=True)
    if not resources and not left_out:
        raise BadParameter(f"{shown} holds no documents. An example of one: tctl get users")
    found: list[User | Token] = []
    for resource in resources:
        reason = _left_out(resource)
        if reason:
            click.echo(f"Left out: {reason}", err=True)
        elif not isinstance(resource, (NodeStatus, Role)):
            found.append(resource)
    if not found:
        raise BadParameter(f"Nothing in {shown} can be created.")
    return found


def _left_out(resource: Resource) -> str:
    """Why ``tctl create`` does not create this resource; "" if it does."""
    if isinstance(resource, NodeStatus):
        return f"node {resource.node.nodename}: nodes register themselves when they start. Invite one: tctl nodes add"
    if isinstance(resource, Role):
        return f"role {resource.name}: this version does not keep roles; what users may do is in their logins."
    if isinstance(resource, Token):
        if resource.roles == (SIGNUP,):
            return f"a sign-up token of {resource.user}: make a new one with `tctl users reset {resource.user}`."
        if resource.expires is None:
            return "a token without metadata.expires: static tokens belong in auth_service.tokens of the configuration."
        if resource.expires <= time.time():
            return "a token that has expired already."
    return ""


async def write_resource(api: AuthAPI, resource: User | Token, replace: bool) -> None:
    """Create the resource; ``replace`` allows overwriting an existing one."""
    if isinstance(resource, User):
        await api.upsert_user(resource, replace)
        return
    assert resource.expires is not None
    ttl = resource.expires - time.time()
    if ttl > defaults.TOKEN_TTL_MAX:
        raise BadParameter("A token ends within 48h at the latest: give an earlier metadata.expires.")
    try:
        await api.create_token(resource.roles, ttl, resource.value)
    except AlreadyExists:
        if not replace:
            raise
        try:
            await api.delete_token(resource.value)
        except NotFound:
            pass
        await api.create_token(resource.roles, ttl, resource.value)
