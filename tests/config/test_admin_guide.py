"""docs/admin.rst names every key that teleport.yaml can have, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from teleconch.config.load import load_config
from teleconch.errors import ConfigError
from tests.worlds.checks import found

GUIDE = (Path(__file__).parents[2] / "docs" / "admin.rst").read_text()
SUBSECTIONS = {
    "teleport": ("connection_limits", "log", "storage"),
    "auth_service": ("authentication",),
    "ssh_service": ("pam",),
    "proxy_service": (),
}


def known(path: str) -> set[str]:
    """The keys of a section, as the message for an unknown one lists them."""
    text = "{qqqqqqqqqq: 1}"
    for name in reversed(path.split(".")):
        text = f"{{{name}: {text}}}"
    with pytest.raises(ConfigError) as caught:
        load_config(text, "x", hostname=lambda: "h")
    return set(found(r"Known here: (.*)\.$", str(caught.value).splitlines()[0])[1].split(", "))


@pytest.mark.parametrize("section", SUBSECTIONS)
def test_guide_and_program_know_the_same_keys(section: str) -> None:
    """An administrator who looks up a key finds it, and what is found there is accepted."""
    keys = known(section) - set(SUBSECTIONS[section])
    for name in SUBSECTIONS[section]:
        if name != "storage":  # those of other back-ends are told in one sentence
            keys |= {f"{name}.{key}" for key in known(f"{section}.{name}")}
    part = re.search(rf"\n{section}\n~+\n(.*?)\n\n\S[^\n]*\n[~-]+\n", GUIDE, re.DOTALL)
    assert part is not None
    table = set(re.findall(r"^([a-z_]+(?:\.[a-z_]+)?)  ", part[1], re.MULTILINE))
    inert = set(re.findall(r"``([a-z_0-9.]+)``", part[1][part[1].index("No effect yet:") :])) - {"storage"}
    assert table & inert == set()
    assert {key for key in table | inert if not key.startswith("storage.")} == keys
