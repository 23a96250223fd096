"""What a node may say about itself: bounded, printable, and with an address that can be dialled."""

from __future__ import annotations

from typing import Final

from teleconch.errors import BadParameter, quoted
from teleconch.resources.address import split_address
from teleconch.resources.addresses import host_of
from teleconch.resources.names import check_name, check_uuid, is_host_principal
from teleconch.resources.node import Node

LABELS_MAX: Final = 128
LABEL_KEY_MAX: Final = 255
LABEL_VALUE_MAX: Final = 1024
LABELS_SIZE_MAX: Final = 32 * 1024  # characters of all keys and values
ADDRESSES_MAX: Final = 32
VERSION_MAX: Final = 64


def check_node(node: Node) -> None:
    """BadParameter for a node that could not be shown, stored or dialled."""
    check_uuid(node.uuid)
    check_name(node.nodename, "Node name")
    check_name(node.cluster, "Cluster name")
    if node.addr is None:
        raise BadParameter("A node needs an address at which the proxies reach it, such as host:3022.")
    check_address(node.addr)
    if len(node.public_addrs) > ADDRESSES_MAX:
        raise BadParameter(f"A node has at most {ADDRESSES_MAX} public addresses; remove some from public_addr.")
    for address in node.public_addrs:
        if not is_host_principal(address):  # a host alone is enough here
            check_address(address)
    if len(node.version) > VERSION_MAX or not node.version.isprintable():
        raise BadParameter(f"Version is at most {VERSION_MAX} printable characters.")
    _check_labels(node)


def public_hosts(node: Node) -> tuple[str, ...]:
    """The hosts of a checked node's public addresses, in lower case, without ports and brackets."""
    return tuple(address.lower() if is_host_principal(address) else host_of(address) for address in node.public_addrs)


def check_address(address: str) -> None:
    """BadParameter unless ``address`` is ``host:port``, with an IPv6 address in brackets."""
    host, port = split_address(address) or ("", None)
    if port is None or not is_host_principal(host):
        raise BadParameter(f"{quoted(address[:300])} is not an address like host:3022 or [2001:db8::1]:3022.")


def _check_labels(node: Node) -> None:
    if len(node.labels) > LABELS_MAX or sum(len(k) + len(v) for k, v in node.labels.items()) > LABELS_SIZE_MAX:
        raise BadParameter(f"A node has at most {LABELS_MAX} labels with {LABELS_SIZE_MAX} characters in all.")
    for key, value in node.labels.items():
        if not key or len(key) > LABEL_KEY_MAX or not key.isprintable() or any(letter in key for letter in " =,"):
            raise BadParameter(
                f"The label key {quoted(key[:LABEL_KEY_MAX])} is not usable: 1 to {LABEL_KEY_MAX} printable characters"
                " without space, comma and equals sign."
            )
        if len(value) > LABEL_VALUE_MAX or not value.isprintable():
            raise BadParameter(
                f"The value of the label {quoted(key)} is not usable: at most {LABEL_VALUE_MAX} printable characters."
            )
