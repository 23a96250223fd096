"""The one table of kinds: what certificate and roles must say."""

from __future__ import annotations

import pytest

from teleconch.access.kinds import NEEDS, Kind, denied, granted
from teleconch.access.options import Grant, grants, option_for, widened
from teleconch.resources.role import Options

EXTENSIONS = frozenset({"permit-pty", "permit-user-rc", "permit-port-forwarding", "permit-agent-forwarding"})


def test_the_table_is_whole() -> None:
    """Each kind has its row, and each thing that an option grants is of use to some kind."""
    assert set(NEEDS) == set(Kind)
    assert frozenset().union(*(need.grants for need in NEEDS.values())) == set(Grant)
    for kind, need in NEEDS.items():
        if need.grants:
            assert option_for(need.grants)
            assert str(denied(kind, EXTENSIONS)).startswith("Your roles do not allow ")
        if need.extension is not None:
            assert "certificate does not allow" in str(denied(kind, frozenset()))


KINDS_OF = {
    "port_forwarding": {
        "local": {Kind.DIRECT_TCPIP, Kind.DIRECT_STREAMLOCAL},
        "remote": {
            Kind.TCPIP_FORWARD,
            Kind.STREAMLOCAL_FORWARD,
            Kind.FORWARDED_TCPIP,
            Kind.FORWARDED_STREAMLOCAL,
        },
    },
    "file_copy": {"upload": {Kind.SCP_UPLOAD}, "download": {Kind.SCP_DOWNLOAD}},
}


@pytest.mark.parametrize(
    ("options", "lacking"),
    [
        (Options(forward_agent=True, permit_x11=True), set()),
        (Options(), {Kind.AGENT, Kind.AGENT_REQUEST, Kind.X11, Kind.X11_REQUEST}),
        (
            Options(port_forwarding="no", forward_agent=True, permit_x11=True),
            KINDS_OF["port_forwarding"]["local"] | KINDS_OF["port_forwarding"]["remote"],
        ),
        (
            Options(port_forwarding="local", forward_agent=True, permit_x11=True),
            KINDS_OF["port_forwarding"]["remote"],
        ),
        (
            Options(port_forwarding="remote", forward_agent=True, permit_x11=True),
            KINDS_OF["port_forwarding"]["local"],
        ),
        (
            Options(file_copy="none", forward_agent=True, permit_x11=True),
            {Kind.SFTP, Kind.SCP_UPLOAD, Kind.SCP_DOWNLOAD},
        ),
        (Options(file_copy="upload", forward_agent=True, permit_x11=True), {Kind.SFTP, Kind.SCP_DOWNLOAD}),
        (Options(file_copy="download", forward_agent=True, permit_x11=True), {Kind.SFTP, Kind.SCP_UPLOAD}),
        (Options(forward_agent=False, permit_x11=True), {Kind.AGENT, Kind.AGENT_REQUEST}),
        (Options(forward_agent=True, permit_x11=False), {Kind.X11, Kind.X11_REQUEST}),
    ],
)
def test_what_options_grant(options: Options, lacking: set[Kind]) -> None:
    """Each option takes away its own kinds and no other."""
    assert granted(EXTENSIONS, grants(options)) == set(Kind) - lacking


def test_both_must_allow() -> None:
    """What the certificate lacks no role grants."""
    assert granted(frozenset(), frozenset(Grant)) == {kind for kind, need in NEEDS.items() if need.extension is None}


def test_widened() -> None:
    """An option that is widened keeps what it let be done."""
    assert widened("port_forwarding", "local", frozenset({Grant.REMOTE})) == "yes"
    assert widened("port_forwarding", "no", frozenset({Grant.LOCAL})) == "local"
    assert widened("file_copy", None, frozenset({Grant.UPLOAD})) == "upload"
    assert widened("file_copy", "download", frozenset({Grant.UPLOAD, Grant.DOWNLOAD})) == "both"
    assert widened("forward_agent", None, frozenset({Grant.AGENT})) == "yes"
