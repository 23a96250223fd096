"""``tctl get``, ``tctl create``, ``tctl rm``: users, nodes and tokens as documents, by ``kind`` or ``kind/name``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from teleconch.cli.tables import format_option
from teleconch.cli.tctl_params import AdminCommand, CommaList
from teleconch.errors import quoted

if TYPE_CHECKING:
    from teleconch.api.interface import AuthAPI
    from teleconch.resources.documents import Resource

KINDS = ("user", "node", "token")  # in the order that `get all` prints them
_REFERENCE = "KIND[/NAME][,KIND[/NAME]...]"


@click.command(cls=AdminCommand)
@click.argument("references", type=CommaList(), metavar=_REFERENCE)
@format_option("yaml")
def get(references: tuple[str, ...], output_format: str) -> None:
    """Print resources as documents: users, nodes, tokens, or all.

    \b
    tctl get users              all of a kind
    tctl get user/joe           one of them
    tctl get users,nodes        several kinds
    tctl get all > state.yaml   everything; holds tokens, so keep the file private
    """
    from teleconch.cli.tables import write_document
    from teleconch.cli.tctl_admin import call
    from teleconch.resources.documents import document, dump_documents

    wanted = [(kind, None) for kind in KINDS] if references == ("all",) else [parse(text) for text in references]

    async def ask(api: AuthAPI) -> tuple[list[Resource], float]:
        found = [resource for kind, name in wanted for resource in await _find(api, kind, name)]
        return found, (await api.status()).time if output_format == "text" else 0.0

    resources, now = call(ask)
    if output_format == "json":
        write_document([document(resource) for resource in resources], "json")
    elif output_format == "yaml":
        click.echo(dump_documents(resources), nl=False)
    else:
        _write_tables(resources, now)


@click.command(cls=AdminCommand, short_help="Create or replace users and tokens from documents.")
@click.argument("filename", metavar="[FILE]", default="-")
@click.option("-f", "--force", is_flag=True, help="Replace what is there already.")
def create(filename: str, force: bool) -> int:
    """Create users and tokens from the documents in FILE (YAML or JSON), or from standard input.

    Passwords and second factors are not in documents: a replaced user keeps them, a new one signs up with the link
    of `tctl users reset NAME`. Nodes register themselves and are left out.
    """
    from teleconch.cli.tctl_admin import OneByOne, call
    from teleconch.cli.tctl_documents import read_documents, write_resource

    resources = read_documents(filename)
    each = OneByOne(done="{} has been " + ("written." if force else "created."))
    call(lambda api: each.run((title(resource), write_resource, api, resource, force) for resource in resources))
    return each.told()


@click.command("rm", cls=AdminCommand)
@click.argument("references", type=CommaList(), metavar="KIND/NAME[,KIND/NAME...]")
def remove(references: tuple[str, ...]) -> int:
    """Delete resources: user/NAME, node/UUID, token/VALUE.

    Stop a node's process before you delete the node: one that is deleted cannot come back without a new token.
    """
    from teleconch.cli.tctl_admin import OneByOne, call

    wanted = [parse(text) for text in references]
    for kind, name in wanted:
        if name is None:
            raise click.UsageError(f"Say which {kind}: {kind}/NAME. To list them all: tctl get {kind}s")

    each = OneByOne()
    call(lambda api: each.run((f"{kind.capitalize()} {name}", _delete, api, kind, name) for kind, name in wanted))
    return each.told()


async def _delete(api: AuthAPI, kind: str, name: str) -> None:
    from teleconch.cli.tctl_nodes import remove_host
    from teleconch.resources.secret import Secret

    if kind == "user":
        await api.delete_user(name)
    elif kind == "node":
        await remove_host(api, name)
    else:
        await api.delete_token(Secret(name))


def parse(reference: str) -> tuple[str, str | None]:
    """Parse ``users`` or ``user/joe`` into the kind, and the name if there is one. click.UsageError."""
    kind, slash, name = reference.partition("/")
    if slash and not name:
        raise click.UsageError(f"{quoted(reference)} names nothing after the slash: write {kind}/NAME.")
    singular = kind.lower().removesuffix("s")
    if singular not in KINDS:
        from difflib import get_close_matches

        close = get_close_matches(singular, KINDS, n=1)
        hint = f" Did you mean {close[0]}?" if close else f" Possible: {', '.join(KINDS)}."
        raise click.UsageError(f"There is no kind of resource called {quoted(kind)}.{hint}")
    return singular, name or None


def title(resource: Resource) -> str:
    """``User joe``."""
    from teleconch.resources.role import Role
    from teleconch.resources.token import Token
    from teleconch.resources.user import User

    if isinstance(resource, User):
        return f"User {resource.name}"
    if isinstance(resource, Role):
        return f"Role {resource.name}"
    return f"Token {resource.value.reveal()}" if isinstance(resource, Token) else f"Node {resource.node.uuid}"


async def _find(api: AuthAPI, kind: str, name: str | None) -> list[Resource]:
    """All resources of a kind, or the one with that name. NotFound."""
    from teleconch.api.pages import all_nodes
    from teleconch.cli.tctl_nodes import find_node
    from teleconch.errors import NotFound
    from teleconch.resources.secret import Secret

    if kind == "user":
        return [await api.get_user(name)] if name else list(await api.list_users())
    if kind == "node":
        return [await find_node(api, name)] if name else list(await all_nodes(api))
    tokens = [token for token in await api.list_tokens() if name is None or token.value == Secret(name)]
    if name and not tokens:
        raise NotFound("There is no such token; it may have expired. To list them all: tctl tokens ls")
    return list(tokens)


def _write_tables(resources: list[Resource], now: float) -> None:
    from teleconch.cli.tables import Column, write_table
    from teleconch.cli.tctl_nodes import write_node_table
    from teleconch.cli.tctl_tokens import write_token_table
    from teleconch.resources.node import NodeStatus
    from teleconch.resources.token import Token
    from teleconch.resources.user import User

    users = [each for each in resources if isinstance(each, User)]
    nodes = [each for each in resources if isinstance(each, NodeStatus)]
    tokens = tuple(each for each in resources if isinstance(each, Token))
    if users:
        rows = [(each.name, ",".join(each.logins), ",".join(each.roles)) for each in users]
        write_table(["User", Column("Allowed Logins", fold=True), "Roles"], rows)
    if nodes:
        click.echo("\n" if users else "", nl=False)
        write_node_table(nodes, now)
    if tokens:
        click.echo("\n" if users or nodes else "", nl=False)
        write_token_table(tokens)
