"""What ``tsh status`` shows."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from teleconch.client.profile import Profile, Profiles
from teleconch.client.status import LoginStatus, status_of, valid_text
from tests.worlds.identities import make_identity

PROFILE = Profile("proxy.example.com:3080", "proxy.example.com:3023", "joe", "example.com")
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (3600, "[valid for 1h0m0s]"),
        (43_199.9, "[valid for 11h59m59s]"),
        (61, "[valid for 1m1s]"),
        (59, "[valid for 59s]"),
        (0.9, "[EXPIRED]"),
        (0, "[EXPIRED]"),
        (-1, "[EXPIRED]"),
    ],
)
def test_how_long_it_is_valid(left: float, text: str) -> None:
    """As Teleport writes it: hours, minutes and seconds from the first that is not zero, or EXPIRED."""
    assert valid_text(NOW + left, NOW).endswith(f" {text}")


def test_a_login() -> None:
    """Each line has its title and value; only the current profile has the mark."""
    status = LoginStatus(PROFILE, True, ("user",), ("root", "joe"), ("permit-pty",), NOW + 60)
    lines = status.lines(NOW)
    assert lines[:3] == [
        "> Profile URL:  https://proxy.example.com:3080",
        "  Logged in as: joe",
        "  Cluster:      example.com",
    ]
    assert [line.split(":")[0].strip() for line in lines[3:]] == ["Roles", "Logins", "Valid until", "Extensions"]
    assert "  Logins:       root, joe" in lines
    assert LoginStatus(PROFILE, False).lines(NOW)[0] == "  Profile URL:  https://proxy.example.com:3080"


def test_after_a_logout(tmp_path: Path) -> None:
    """Without a key it says how to log in again, and nothing of rights."""
    status = status_of(Profiles(tmp_path), PROFILE, current=True)
    assert status.valid_before is None
    assert status.lines(NOW)[1] == f"  Logged out:   type `{PROFILE.login_command}`"
    assert len(status.lines(NOW)) == 3


def test_what_the_certificate_says(tmp_path: Path) -> None:
    """Logins, roles, extensions and the end come from the certificate that was stored."""
    profiles = Profiles(tmp_path / "tsh")
    profiles.save(PROFILE, make_identity(), "ssh-ed25519 AAAA")
    status = status_of(profiles, PROFILE, current=False)
    assert status.logins == ("root", "joe")
    assert status.roles == ("user",)
    assert status.extensions
    assert all(each.startswith("permit-") for each in status.extensions)
    assert status.valid_before is not None
    assert status.valid_before > time.time()
