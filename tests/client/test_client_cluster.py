"""Nodes by their labels, as ``tsh ls`` and ``tsh ssh`` look for them."""

from __future__ import annotations

import pytest

from teleconch.client.cluster import parse_label, the_one, with_labels
from teleconch.errors import BadParameter
from teleconch.resources.node import Node, NodeStatus


def status(name: str, **labels: str) -> NodeStatus:
    node = Node(f"{name}-uuid", name, "main", "192.0.2.1:3022", labels=labels)
    return NodeStatus(node, 0.0, True, 60.0)


WEB = status("web", env="prod", role="web")
DB = status("db", env="prod", role="db")
ODD = status("odd", motto="one,two=2", env="test")
NODES = (WEB, DB, ODD)


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([], [WEB, DB, ODD]),
        (["env=prod"], [WEB, DB]),
        (["env=prod", "role=db"], [DB]),
        (["env=prod,role=db"], [DB]),
        (["motto=one,two=2"], [ODD]),  # a value with a comma in it comes first
        (['motto="one,two=2",env=test'], [ODD]),
        (["env=prod,motto"], []),  # not a list of labels: one value with a comma
        (["env=PROD"], []),
        (["env=prod", "env=test"], []),
    ],
)
def test_labels(texts: list[str], found: list[NodeStatus]) -> None:
    """A node is found if it has each of the labels, exactly."""
    assert with_labels(NODES, texts) == found


@pytest.mark.parametrize("text", ["env", "=prod", "", "env:prod"])
def test_what_is_not_a_label(text: str) -> None:
    """A label that is none is told with the right form; it never means every node."""
    with pytest.raises(BadParameter, match="key=value"):
        parse_label(text)
    with pytest.raises(BadParameter, match="key=value"):
        with_labels(NODES, [text])


def test_values_may_be_empty_and_have_equals_signs() -> None:
    """The first equals sign ends the key."""
    assert parse_label("a=") == ("a", "")
    assert parse_label("a=b=c") == ("a", "b=c")


def test_one_node_is_meant() -> None:
    """Where several nodes have the label, none is chosen: each is named with its UUID, up to eight."""
    assert the_one("role=web", [WEB]) == "web-uuid"
    many = [status(f"n{number}") for number in range(9)]
    with pytest.raises(BadParameter, match="9 nodes have the label env=prod") as caught:
        the_one("env=prod", many)
    assert "n7 n7-uuid" in str(caught.value)
    assert "n8" not in str(caught.value)
