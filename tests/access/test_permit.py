"""Permits: made by access alone, for what the certificate grants."""

from __future__ import annotations

import attrs
import pytest

from teleconch.access.permit import AccessPermit, DialPermit, permit_dial, permit_session
from teleconch.errors import AccessDenied
from teleconch.resources.identity import SSHIdentity
from teleconch.resources.node import Node

NOW = 1_800_000_000.0
JOE = SSHIdentity(
    user="joe",
    logins=("joe",),
    roles=("user",),
    traits={},
    cluster="main",
    extensions=frozenset({"permit-pty"}),
    valid_before=NOW + 1,
    serial=1,
    certificate=b"",
)
NODE = Node(uuid="u", nodename="web1", cluster="main", addr="10.0.0.1:3022")


def test_a_permit_grants_what_the_certificate_grants() -> None:
    """A user without permit-port-forwarding gets a session and no forwarding."""
    permit = permit_session(JOE, "joe", NOW)
    assert (permit.login, permit.pty, permit.port_forwarding, permit.agent_forwarding) == ("joe", True, False, False)
    assert permit.expires == NOW + 1


def test_denied() -> None:
    """Another login, an expired certificate and another cluster's node are refused."""
    for identity, login, now in ((JOE, "root", NOW), (JOE, "joe", NOW + 1)):
        with pytest.raises(AccessDenied):
            permit_session(identity, login, now)
    assert permit_dial(JOE, NODE, NOW).node == NODE
    with pytest.raises(AccessDenied, match="belongs to the cluster"):
        permit_dial(JOE, attrs.evolve(NODE, cluster="leaf"), NOW)
    with pytest.raises(AccessDenied, match="expired"):
        permit_dial(JOE, NODE, NOW + 1)


def test_nobody_else_makes_permits() -> None:
    """A permit cannot be built, nor an existing one widened, outside of access."""
    with pytest.raises(TypeError):
        AccessPermit(JOE, "root", True, True, True, NOW)
    with pytest.raises(TypeError):
        DialPermit(JOE, NODE)
    with pytest.raises(TypeError):
        attrs.evolve(permit_session(JOE, "joe", NOW), login="root")
    with pytest.raises(AttributeError):
        permit_session(JOE, "joe", NOW).login = "root"
