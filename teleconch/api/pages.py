"""Lists that the API gives page by page, as a whole."""

from __future__ import annotations

from teleconch.api.interface import Nodes
from teleconch.defaults import PAGE_SIZE
from teleconch.resources.node import NodeStatus


async def all_nodes(api: Nodes) -> list[NodeStatus]:
    """Every registered node, by UUID."""
    found: list[NodeStatus] = []
    after: str | None = ""
    while after is not None:
        page = await api.list_nodes(after, PAGE_SIZE)
        found += page.nodes
        after = page.next
    return found
