"""Permits: made by access alone, for what the certificate grants."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from teleconch.access.kinds import NEEDS, Kind, denied
from teleconch.access.permit import AccessPermit, APIPermit, DialPermit, permit_access, permit_api, permit_dial
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
    permit = permit_access(JOE, "joe", "host", NOW)
    assert (permit.login, permit.node) == ("joe", "host")
    for kind in (Kind.PTY, Kind.SHELL, Kind.EXEC, Kind.SFTP, Kind.SCP_UPLOAD, Kind.SCP_DOWNLOAD):
        permit.check(kind)
    for kind in (Kind.DIRECT_TCPIP, Kind.FORWARDED_STREAMLOCAL, Kind.X11):
        with pytest.raises(AccessDenied, match="does not allow port forwarding"):
            permit.check(kind)
    with pytest.raises(AccessDenied, match="does not allow agent forwarding"):
        permit.check(Kind.AGENT)
    with pytest.raises(AccessDenied, match="does not allow user-rc"):
        permit.check(Kind.USER_RC)


def test_the_table_is_whole() -> None:
    """A kind that was forgotten in the table would be granted to nobody."""
    assert set(NEEDS) == set(Kind)
    for kind in Kind:
        assert str(denied(kind))


def test_denied() -> None:
    """Another login, an expired certificate and another cluster's node are refused."""
    for identity, login, now in ((JOE, "root", NOW), (JOE, "joe", NOW + 1)):
        with pytest.raises(AccessDenied):
            permit_access(identity, login, "host", now)
    assert permit_dial(JOE, NODE, NOW).node == NODE
    with pytest.raises(AccessDenied, match="belongs to the cluster"):
        permit_dial(JOE, attrs.evolve(NODE, cluster="leaf"), NOW)
    with pytest.raises(AccessDenied, match="expired"):
        permit_dial(JOE, NODE, NOW + 1)
    assert permit_api(JOE, NOW).identity == JOE
    with pytest.raises(AccessDenied, match="expired"):
        permit_api(JOE, NOW + 1)


def test_nobody_else_makes_permits() -> None:
    """A permit cannot be built, nor an existing one widened, outside of access."""
    with pytest.raises(TypeError):
        AccessPermit(JOE, "root", "host", frozenset(Kind), NOW)
    with pytest.raises(TypeError):
        APIPermit(JOE)
    with pytest.raises(TypeError):
        DialPermit(JOE, NODE)
    permit: Any = permit_access(JOE, "joe", "host", NOW)
    with pytest.raises(TypeError):
        attrs.evolve(permit, login="root")
    with pytest.raises(AttributeError):
        permit.login = "root"
