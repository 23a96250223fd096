"""Keys that 4.2 does not have: a slip of the hand, a wrong place, or a later release of Teleport."""

from __future__ import annotations

import pytest

from teleconch.config.later import LATER
from teleconch.config.load import load_config
from teleconch.errors import ConfigError


def found(text: str) -> tuple[list[str], list[str]]:
    """Errors and warnings."""
    try:
        config = load_config(text, "/etc/teleport.yaml", hostname=lambda: "graviton")
    except ConfigError as e:
        return [sentence for _, _, sentence in e.problems], [sentence for _, _, sentence in e.warnings]
    return [], [sentence for _, _, sentence in config.warnings]


def document(section: str, key: str, value: str) -> str:
    text = f"{{{key}: {value}}}"
    for name in reversed(section.split(".") if section else []):
        text = f"{{{name}: {text}}}"
    return text


ALL = [(section, key) for section, keys in LATER.items() for key in keys]


@pytest.mark.parametrize(("section", "key"), ALL, ids=[".".join(filter(None, name)) for name in ALL])
def test_each_later_key_names_its_release(section: str, key: str) -> None:
    """A key of a later release is told as such, with what to do, and never as a slip of the hand."""
    later = LATER[section][key]
    value = "{enabled: yes}" if not section or key in ("acme", "x11", "restricted_session", "idp") else "[qqq]"
    errors, warnings = found(document(section, key, value))
    where = f" in {section}" if section else ""
    if later.same is None:
        assert (errors, warnings) == (
            [],
            [f"{key!r}{where} is from Teleport {later.since} and later, and has no effect here."],
        )
    else:
        assert errors == [f"{key!r}{where} is from Teleport {later.since} and later. {later.here}"]
        assert later.here.endswith((".", ")"))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("", "version", "v1"),
        ("", "version", "v3"),
        ("", "app_service", "{enabled: no, apps: [{name: a}]}"),
        ("", "db_service", "{enabled: 'no'}"),
        ("", "kubernetes_service", "{enabled: false, listen_addr: '0.0.0.0:3027'}"),
        ("", "windows_desktop_service", "{}"),
        ("", "discovery_service", "{aws: []}"),
        ("", "debug_service", "{enabled: yes}"),
        ("teleport", "diag_addr", "''"),
        ("teleport", "proxy_server", ""),
        ("teleport", "join_params", "{token_name: '', method: token}"),
        ("teleport.log", "format", "{output: text}"),
        ("teleport.log", "format", "[level, message]"),
        ("proxy_service", "https_keypairs", "[]"),
        ("proxy_service", "acme", "{}"),
        ("proxy_service", "acme", "{enabled: no, email: a@example.com}"),
        ("proxy_service", "acme", "{email: a@example.com}"),
        ("proxy_service", "kube_listen_addr", "''"),
        ("auth_service", "proxy_listener_mode", "separate"),
        ("auth_service.authentication", "require_session_mfa", "false"),
        ("ssh_service", "port_forwarding", "true"),
        ("ssh_service.pam", "use_pam_auth", "no"),
    ],
)
def test_a_later_key_that_asks_for_nothing_is_a_warning(section: str, key: str, value: str) -> None:
    """What `teleport configure` of later releases prints without being asked keeps nothing from starting."""
    errors, warnings = found(document(section, key, value))
    assert errors == []
    assert len(warnings) == 1
    assert f"{key!r}" in warnings[0]
    assert "and has no effect here." in warnings[0]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("", "version", "v9"),
        ("teleport", "join_params", "{token_name: x, method: token}"),
        ("ssh_service", "port_forwarding", "no"),
        ("ssh_service", "ssh_file_copy", "no"),
        ("ssh_service", "x11", "{enabled: yes}"),
        ("auth_service", "proxy_listener_mode", "multiplex"),
        ("auth_service.authentication", "require_session_mfa", "hardware_key"),
        ("proxy_service", "acme", "{enabled: yes}"),
        ("proxy_service", "https_keypairs", "[{key_file: k, cert_file: c}]"),
    ],
)
def test_a_later_key_that_asks_for_something_is_an_error(section: str, key: str, value: str) -> None:
    """A restriction or a service that is asked for and missing here is told before anything starts."""
    errors, _ = found(document(section, key, value))
    assert len(errors) == 1
    assert "from Teleport" in errors[0]


def test_a_later_key_of_a_role_that_does_not_run_is_a_warning() -> None:
    """The proxy's certificates of a later release, in a file for all hosts, keep no node from starting."""
    errors, warnings = found("""
teleport: {auth_servers: [a]}
auth_service: {enabled: no, ca_key_params: {pkcs11: {module_path: /x}}}
proxy_service: {enabled: no, https_keypairs: [{key_file: k, cert_file: c}]}
""")
    assert errors == []
    assert ["Only a warning" in warning for warning in warnings] == [True, True]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("teleport: {nodname: a}", "Did you mean 'nodename'?"),
        ("teleport: {auth_sevrers: [a]}", "Did you mean 'auth_servers'?"),
        ("teleport: {kex_algorithms: [a]}", "Known here: "),
        ("teleport: {log: {level: info}}", "Known here: output, severity."),
        ("proxy_service: {web_addr: a}", "Known here: "),
        ("proxy_service: {https_cert: a}", "Known here: "),
        ("auth_services: {enabled: no}", "Did you mean 'auth_service'?"),
        ("node_service: {enabled: no}", "Known here: auth_service, "),
        ("join_params: {method: token}", "It is from Teleport 8 and later, in teleport. Here: auth_token"),
        ("ssh_service: {app_service: {enabled: yes}}", "It is from Teleport 5 and later. There is no access to web"),
        ("ssh_service: {cluster_name: a}", "It belongs in auth_service."),
        (f"{{{'x' * 1000}: 1}}", "Known here: "),
    ],
)
def test_a_guess_is_made_for_a_slip_of_the_hand_only(text: str, said: str) -> None:
    """A key that is two edits from a known one gets it as a guess; any other gets the list, or its place."""
    errors, _ = found(text)
    assert len(errors) == 1
    assert said in errors[0]
