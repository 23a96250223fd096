"""``tsh ls``: the nodes of the cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from teleconch.cli.tables import Column, format_option, labels_text, write_document, write_table
from teleconch.cli.tsh_api import ask_cluster
from teleconch.cli.tsh_params import UserCommand, given, profiles, proxy_flag

if TYPE_CHECKING:
    from teleconch.api.interface import AuthAPI
    from teleconch.client.standing import Standing
    from teleconch.resources.node import NodeStatus


@click.command("ls", cls=UserCommand)
@click.argument("labels", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("-v", "--verbose", is_flag=True, help="Also show the nodes' UUIDs.")
@format_option()
def list_nodes(labels: tuple[str, ...], verbose: bool, output_format: str) -> None:
    """List the nodes, or those that have all the labels: env=prod role=db, or env=prod,role=db."""
    from teleconch.client.cluster import parse_label, with_labels

    for text in labels:
        parse_label(text)  # before anything is asked
    found, now = ask_cluster(standing(), bool(given().insecure), _nodes_and_time)
    matching = with_labels(found, labels)
    if output_format != "text":
        write_document([_document(each) for each in matching], output_format)
        return
    empty = (
        "No node has these labels." if labels else "There are no nodes yet. An administrator adds them: tctl nodes add"
    )
    _write(matching, now, verbose, empty)


def standing() -> Standing:
    """The login that the flags refer to. NotFound, AccessDenied, BadParameter."""
    from teleconch.client.standing import find_standing

    flags = given()
    user, cluster = flags.text("user"), flags.text("cluster")
    return find_standing(profiles(), proxy_flag(), user, flags.identity, cluster, time.time())


async def _nodes_and_time(api: AuthAPI) -> tuple[list[NodeStatus], float]:
    from teleconch.client.cluster import nodes_by_name

    return await nodes_by_name(api), (await api.status()).time


def _write(found: list[NodeStatus], now: float, verbose: bool, empty: str) -> None:
    from teleconch.cli.tctl_nodes import status_text

    columns: list[str | Column] = ["Node Name"]
    if verbose:
        columns.append("Node ID")
    columns += [
        "Address",
        Column("Labels", fold=True),
        Column("Status", style=lambda cell: "green" if cell == "online" else "yellow"),
    ]
    rows = [
        (
            each.node.nodename,
            *((each.node.uuid,) if verbose else ()),
            each.node.addr or "",
            labels_text(each.node.labels),
            status_text(each, now),
        )
        for each in found
    ]
    write_table(columns, rows, empty=empty)


def _document(status: NodeStatus) -> Any:
    from teleconch.resources.documents import document

    return document(status)
