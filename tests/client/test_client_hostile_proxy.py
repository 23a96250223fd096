"""A proxy that is out to harm whoever logs in: its words end in files, in commands and on the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from teleconch.client.address import parse_proxy, split_address
from teleconch.client.openssh_config import openssh_config
from teleconch.client.profile import Profile
from teleconch.client.trust import Trust
from teleconch.client.web import WebClient
from teleconch.errors import BadParameter, ConnectionProblem
from teleconch.resources.login import LoginRequest
from teleconch.resources.secret import Secret

NAMES = ["main\n    ProxyCommand touch /x\nHost *", "\x1b[2J", "a b", "$(id)", "-oProxyCommand=id", "", "*", "a,*"]
HOSTS = ["x;touch${IFS}/x;#", "$(id)", "`id`", "-oProxyCommand=id", "a b", "a\nb", "a|b", "\x1b[2J", "a,b", "*"]


class Answers(WebClient):
    """Gets these answers instead of asking; what it does with them is the real thing."""

    def __init__(self, **answer: object) -> None:
        super().__init__(parse_proxy("proxy.example.com"), Trust(insecure=True))
        self._given = answer

    def _call(self, method: str, path: str, body: object = None) -> dict[str, object]:
        return self._answer(200, json.dumps(self._given).encode())


@pytest.mark.parametrize("name", NAMES)
def test_names_are_names(name: str) -> None:
    """A cluster or user that is no name gets nowhere: not into ~/.tsh, nor ~/.ssh/config, nor on the screen."""
    with pytest.raises(ConnectionProblem, match="not a name"):
        Answers(cluster_name=name).ping()
    signer = {"domain_name": "main", "checking_keys": [], "tls_certs": []}
    good: dict[str, Any] = {"username": "joe", "cluster": "main", "cert": "", "tls_cert": "", "host_signers": [signer]}
    good |= {"logins": [], "roles": [], "extensions": [], "valid_before": 1.0}
    request = LoginRequest("joe", Secret("x"), "", "", "", None)
    assert Answers(**good).login(request).cluster == "main"
    for bad in ({"username": name}, {"cluster": name}, {"host_signers": [{**signer, "domain_name": name}]}):
        with pytest.raises(ConnectionProblem, match="not a name"):
            Answers(**good | bad).login(request)
    for bad in ({"user": name, "cluster": "main"}, {"user": "joe", "cluster": name}):
        with pytest.raises(ConnectionProblem, match="not a name"):
            Answers(**bad).start_signup(Secret("token"))
    with pytest.raises(ConnectionProblem, match="not a name"):
        Answers(user=name).finish_signup(Secret("token"), Secret("x"), "")


@pytest.mark.parametrize("host", HOSTS)
def test_addresses_are_addresses(host: str) -> None:
    """The SSH address that a proxy names cannot be a command; nor can one that somebody wrote into a profile."""
    with pytest.raises(BadParameter):
        split_address(f"{host}:3023", 3023)
    with pytest.raises(ConnectionProblem):
        Answers(cluster_name="main", server_version="1", proxy={"ssh": {"ssh_public_addr": f"{host}:3023"}}).ping()
    with pytest.raises(BadParameter):
        openssh_config(Profile("p:3080", f"{host}:3023", "joe", "main"), Path("/k"), Path("/h"))


@pytest.mark.parametrize("name", NAMES)
def test_what_tsh_config_prints(name: str) -> None:
    """`tsh config >> ~/.ssh/config` gives no line that the proxy wrote, also not from an older profile."""
    with pytest.raises(BadParameter):
        openssh_config(Profile("p:3080", "p:3023", "joe", name), Path("/k"), Path("/h"))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("proxy.example.com", ("proxy.example.com", 3023)),
        ("proxy_1:22", ("proxy_1", 22)),
        ("[2001:db8::1]:22", ("2001:db8::1", 22)),
        ("::1", ("::1", 3023)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
    ],
)
def test_real_addresses(address: str, expected: tuple[str, int]) -> None:
    """Names and addresses of all families go on working."""
    assert split_address(address, 3023) == expected
