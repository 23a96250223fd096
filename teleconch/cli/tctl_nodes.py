"""``tctl nodes``: inviting hosts, and what is registered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from teleconch import defaults
from teleconch.cli import boundary
from teleconch.cli.tables import Column, format_option, labels_text, write_document, write_table
from teleconch.cli.tctl_params import AdminGroup, CommaList, ttl_option
from teleconch.resources.token import HOST_ROLES

if TYPE_CHECKING:
    from teleconch.api.interface import AuthAPI
    from teleconch.resources.node import NodeStatus


@click.group(cls=AdminGroup)
def nodes() -> None:
    """Nodes of the cluster."""


@nodes.command()
@click.option("--roles", type=CommaList(HOST_ROLES), default="node", show_default=True, metavar="ROLE[,ROLE...]",
              help=f"What the new host may become: {', '.join(HOST_ROLES)}.")  # fmt: skip
@ttl_option("30m", defaults.TOKEN_TTL_MAX, "How long the token is valid; at most 48h.")
@click.option("--token", "value", metavar="TOKEN", help="The token itself; a random one if left out.")
@format_option()
def add(roles: tuple[str, ...], ttl: float, value: str | None, output_format: str) -> None:
    """Make a token for new hosts, and print the command with which they join."""
    write_invitation(roles, value, ttl, output_format)


@nodes.command("ls")
@format_option()
@boundary.without_effect("--namespace", value="NAME", why="a cluster has one namespace")
def list_nodes(output_format: str) -> None:
    """List the nodes, online or not."""
    from teleconch.cli.tctl_admin import call
    from teleconch.resources.documents import document

    found, now = call(nodes_and_time)
    if output_format != "text":
        write_document([document(status) for status in found], output_format)
        return
    write_node_table(found, now)


def write_node_table(found: Sequence[NodeStatus], now: float) -> None:
    """Print the table of ``tctl nodes ls``. ``now`` is the auth server's time."""
    columns: list[str | Column] = [
        "Nodename",
        "UUID",
        "Address",
        Column("Labels", fold=True),
        Column("Status", style=lambda cell: "green" if cell == "online" else "yellow"),
    ]
    rows = [
        (
            each.node.nodename,
            each.node.uuid,
            each.node.addr or "",
            labels_text(each.node.labels),
            status_text(each, now),
        )
        for each in sorted(found, key=lambda each: (each.node.nodename, each.node.uuid))
    ]
    write_table(columns, rows, empty="There are no nodes yet. Invite one: tctl nodes add")


def status_text(status: NodeStatus, now: float) -> str:
    """``online``, or ``offline since 22 Nov 26 20:55 UTC (3m)``."""
    from teleconch.resources.times import duration_text, utc_text

    if status.online:
        return "online"
    return f"offline since {utc_text(status.last_seen)} ({duration_text(now - status.last_seen)})"


async def find_node(api: AuthAPI, name: str) -> NodeStatus:
    """The node with this UUID, or the only one with this nodename. NotFound; BadParameter, which names the
    candidates."""
    from teleconch.api.pages import all_nodes
    from teleconch.errors import BadParameter, NotFound

    if is_uuid(name):
        return await api.get_node(name)
    found = [each for each in await all_nodes(api) if each.node.nodename == name]
    if not found:
        raise NotFound(f"There is no node {name}. To list them all: tctl nodes ls")
    if len(found) > 1:
        uuids = ", ".join(f"{each.node.uuid} ({each.node.addr or 'no address'})" for each in found)
        raise BadParameter(f"{len(found)} nodes have the name {name}; use the UUID of one: {uuids}.")
    return found[0]


async def remove_host(api: AuthAPI, name: str) -> None:
    """End a host's membership. A UUID works even if no listed node has it: a proxy, or a node that is no longer listed.
    NotFound; BadParameter, which names the candidates."""
    await api.delete_node(name if is_uuid(name) else (await find_node(api, name)).node.uuid)


def is_uuid(name: str) -> bool:
    """Whether ``name`` is a UUID."""
    from teleconch.errors import BadParameter
    from teleconch.resources.names import check_uuid

    try:
        check_uuid(name)
    except BadParameter:
        return False
    return True


async def nodes_and_time(api: AuthAPI) -> tuple[list[NodeStatus], float]:
    """Every node, and the auth server's time."""
    from teleconch.api.pages import all_nodes

    found = await all_nodes(api)
    return found, (await api.status()).time


def write_invitation(roles: tuple[str, ...], value: str | None, ttl: float, output_format: str) -> None:
    """Make a join token and print it with the complete command for the new host."""
    from shlex import quote

    from teleconch.cli.tctl_admin import call, load_config
    from teleconch.cli.tctl_where import auth_address
    from teleconch.resources.login import ClusterStatus
    from teleconch.resources.secret import Secret
    from teleconch.resources.times import duration_text, rfc3339, utc_text
    from teleconch.resources.token import Token

    async def invite(api: AuthAPI) -> tuple[Token, ClusterStatus]:
        token = await api.create_token(roles, ttl, None if value is None else Secret(value))
        return token, await api.status()

    token, cluster = call(invite)
    assert token.expires is not None  # only static tokens never expire
    address, certain = auth_address(load_config())
    secret = token.value.reveal()
    words = [
        "teleport",
        "start",
        f"--roles={','.join(token.roles)}",
        f"--token={secret}",
        *(f"--ca-pin={pin}" for pin in cluster.ca_pins[:1]),
        f"--auth-server={address}",
    ]
    command = " ".join(quote(word) for word in words)
    if output_format != "text":
        value_shown = {
            "token": secret,
            "roles": list(token.roles),
            "expires": rfc3339(token.expires),
            "ca_pins": list(cluster.ca_pins),
            "auth_server": address,
            "command": command,
        }
        write_document(value_shown, output_format)
        return
    click.echo(f"The invite token: {secret}")
    click.echo(f"It is valid for {duration_text(ttl)} (until {utc_text(token.expires)}), for any number of hosts.\n")
    click.echo("Run this on the new host to join the cluster:\n")
    # On a line of its own and unbroken: a terminal wraps it, and what is copied is still one command.
    click.echo(f"{command}\n")
    click.echo(f"NOTE: {_reach(address, certain)}")


def _reach(address: str, certain: bool) -> str:
    """What to check about the auth server's address before the command is used elsewhere."""
    if address.startswith(("127.", "[::1]", "localhost:")):
        return (
            f"only this machine itself can reach {address}. For other hosts, set auth_service.listen_addr"
            " (and public_addr) in the configuration."
        )
    if certain:
        return f"make sure that the new host reaches this auth server at {address}."
    return (
        f"{address} is a guess: use another address if the new host reaches this auth server by that one, and"
        " set auth_service.public_addr to have it printed."
    )
