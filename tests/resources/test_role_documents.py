"""Roles as documents."""

from __future__ import annotations

import json
from textwrap import dedent

import pytest
from hypothesis import given

from teleconch.errors import ConfigError
from teleconch.resources.documents import document, dump_documents, load_documents
from teleconch.resources.role import BUILT_IN, Conditions, Options, Requests, Role, Rule
from teleconch.resources.text import json_text
from tests.worlds.roles import ROLE_SETS


@given(ROLE_SETS)
def test_round_trip(roles: tuple[Role, ...]) -> None:
    """What `tctl get` prints, in either format, reads back without loss and without notes."""
    notes: list[str] = []
    assert load_documents(dump_documents(roles), "f", []) == roles
    assert load_documents(json_text([document(role) for role in roles]), "f", notes) == roles
    assert all("allows logins on no node" in note for note in notes)


def test_built_in() -> None:
    """Built-in roles can be written out and read."""
    notes: list[str] = []
    assert load_documents(dump_documents(BUILT_IN.values()), "f", notes) == tuple(BUILT_IN.values())
    assert notes == []


def test_as_teleport_prints_it() -> None:
    """A document has Teleport's shape."""
    role = Role(
        "dev",
        Options(max_session_ttl=28800, forward_agent=True, port_forwarding="yes", client_idle_timeout=0, record="off"),
        Conditions(
            ("root", "{{internal.logins}}"),
            {"env": ("test", "stage"), "*": ("*",)},
            (Rule(("session",), ("list", "read")),),
            Requests(("admin",)),
        ),
    )
    assert dump_documents([role]) == dedent(
        """\
        kind: role
        version: v3
        metadata:
          name: dev
        spec:
          options:
            max_session_ttl: 8h
            forward_agent: true
            port_forwarding: true
            client_idle_timeout: never
            record: 'off'
          allow:
            logins:
            - root
            - '{{internal.logins}}'
            node_labels:
              env:
              - test
              - stage
              '*': '*'
            rules:
            - resources:
              - session
              verbs:
              - list
              - read
            request:
              roles:
              - admin
          deny: {}
        """
    )


# docs/4.2/enterprise/ssh_rbac.md, with one of the values that it shows for `environment`
ADMIN = """\
kind: role
version: v3
metadata:
  name: admin
spec:
  # SSH options used for user sessions with default values:
  options:
    max_session_ttl: 8h
    forward_agent: true
    port_forwarding: true
    client_idle_timeout: never
    disconnect_expired_cert: no
  allow:
    logins: [root, '{{internal.logins}}']
    kubernetes_groups: ["system:masters", "{{external.trait_name}}"]
    node_labels:
      '*': '*'
      'environment': '^test|staging$'
    rules:
    - resources: [role]
      verbs: [list, create, read, update, delete]
    - resources: [auth_connector]
      verbs: [connect, list, create, read, update, delete]
    - resources: [session]
      verbs: [list, read]
    - resources: [trusted_cluster]
      verbs: [connect, list, create, read, update, delete]
  deny: {}
"""


def test_the_documents_example() -> None:
    """The example of Teleport's documents is read; what means nothing here is named."""
    notes: list[str] = []
    (admin,) = load_documents(ADMIN, "f", notes)
    assert isinstance(admin, Role)
    assert admin.options == Options(28800, True, "yes", client_idle_timeout=0, disconnect_expired_cert=False)
    assert admin.allow.logins == ("root", "{{internal.logins}}")
    assert admin.allow.node_labels == {"*": ("*",), "environment": ("^test|staging$",)}
    assert len(admin.allow.rules) == 4
    assert notes == ["f:15: spec.allow.kubernetes_groups is left out: there is no access to Kubernetes here."]
    notes.clear()
    assert load_documents(dump_documents([admin]), "f", notes) == (admin,)
    assert notes == []


def test_as_teleport_keeps_it() -> None:
    """A role that a Teleport cluster printed is taken over, with a note for each thing that is not."""
    printed = {
        "kind": "role",
        "version": "v3",
        "metadata": {"name": "dev", "id": 15, "expires": "2030-01-01T00:00:00Z"},
        "spec": {
            "options": {
                "cert_format": "standard",
                "max_session_ttl": "30h0m0s",
                "client_idle_timeout": "0s",
                "port_forwarding": True,
                "forward_agent": False,
                "enhanced_recording": ["command"],
            },
            "allow": {"logins": ["root"], "namespaces": ["default"], "rules": None},
            "deny": {"namespaces": ["default"]},
        },
    }
    notes: list[str] = []
    (role,) = load_documents(json.dumps(printed), "f", notes)
    assert role == Role(
        "dev",
        Options(108000, False, "yes", client_idle_timeout=0, cert_format="standard"),
        Conditions(("root",)),
    )
    told = "\n".join(notes)
    for part in ("metadata.id", "the role does not end 2030", "enhanced_recording", "allow.namespaces", "deny.name"):
        assert part in told
    assert "role dev allows logins on no node" in told


def problems(text: str) -> list[tuple[int, str]]:
    with pytest.raises(ConfigError) as caught:
        load_documents(text, "dev.yaml")
    return [(line, sentence) for _, line, sentence in caught.value.problems]


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("{options: {max_session_tl: 8h}}", ("unknown key 'max_session_tl'", "did you mean 'max_session_ttl'?")),
        ("{options: {zzz: 8h}}", ("unknown key 'zzz' in spec.options", "known here: max_session_ttl", "require_sess")),
        ("{options: {max_session_ttl: 8}}", ("spec.options.max_session_ttl", "A number needs its unit: 8s or 8m")),
        ("{options: {max_session_ttl: never}}", ("max_session_ttl must be a duration", "30s, 5m or 1h30m")),
        ("{options: {max_session_ttl: 0s}}", ("max_session_ttl must be a duration like",)),
        ("{options: {client_idle_timeout: nver}}", ("client_idle_timeout", "write never")),
        ("{options: {client_idle_timeout: [1h]}}", ("client_idle_timeout must be a duration",)),
        ("{options: {forward_agent: maybe}}", ("spec.options.forward_agent must be yes or no",)),
        ("{options: {port_forwarding: both}}", ("port_forwarding is yes, no, local or remote, not 'both'",)),
        ("{options: {file_copy: yes}}", ("file_copy is both, upload, download or none, not 'yes'",)),
        ("{options: {record: on}}", ("record is strict, best_effort or off",)),
        ("{options: {max_sessions: 0}}", ("max_sessions must be 1 or more",)),
        ("{options: {max_sessions: 0x10}}", ("max_sessions must be a whole number",)),
        ("{options: {max_sessions: many}}", ("max_sessions must be a whole number", "not text")),
        ("{options: {require_session_mfa: often}}", ("require_session_mfa must be yes, no, or a duration",)),
        ("{options: [a]}", ("spec.options must be a mapping",)),
        ("{allow: {login: [root]}}", ("unknown key 'login' in spec.allow; did you mean 'logins'?",)),
        ("{allow: {logins: ['*']}}", ("Login '*' is not usable",)),
        ("{allow: {logins: ['{{internal.}}']}}", ("{{internal.NAME}}",)),
        ("{allow: {node_labels: {env: '^(a$'}}}", ("'^(a$' is not a regular expression",)),
        ("{allow: {node_labels: {env: []}}}", ("spec.allow.node_labels.env needs a value",)),
        ("{allow: {node_labels: {env: 12}}}", ("put it in quotes",)),
        ("{allow: {node_labels: [env]}}", ("spec.allow.node_labels must be a mapping",)),
        ("{allow: {node_labels: {'*': prod}}}", ("any node",)),
        ("{allow: {rules: [{resources: [sesion], verbs: [list]}]}}", ("'sesion' is not a resource", "session")),
        ("{allow: {rules: [{resources: [session], verbs: [see]}]}}", ("'see' is not a verb; known: *, list",)),
        ("{allow: {rules: [{resources: [session], verbs: []}]}}", ("verbs of a rule names none",)),
        ("{allow: {rules: [{resources: [session]}]}}", ("a rule of spec.allow.rules lacks 'verbs'",)),
        ("{allow: {rules: {resources: [session]}}}", ("spec.allow.rules must be a list of rules",)),
        ("{allow: {rules: [{resources: [role], verbs: ['*'], where: x}]}}", ("'where' of a rule is not built yet",)),
        ("{deny: {rules: [{resources: [role], verbs: ['*'], actions: []}]}}", ("'actions' of a rule is not built",)),
        ("{allow: {request: {roles: [../x]}}}", ("Role '../x' is not usable",)),
        ("{allow: {request: {roles: [], approvers: [a]}}}", ("approvers needs spec.allow.request.roles",)),
        ("{deny: {request: {roles: [a], approvers: [a]}}}", ("unknown key 'approvers'",)),
        ("{allows: {}}", ("unknown key 'allows' in spec; did you mean 'allow'?",)),
    ],
)
def test_one_problem(spec: str, parts: tuple[str, ...]) -> None:
    """Each mistake is told once, with its line, its field and what would be right."""
    found = problems(f"kind: role\nversion: v3\nmetadata: {{name: dev}}\nspec:\n  {spec}\n")
    assert len(found) == 1, found
    assert found[0][0] == 5
    for part in parts:
        assert part in found[0][1]


@pytest.mark.parametrize("name", ["../x", "admin ", "adm\\0in"])
def test_names(name: str) -> None:
    """A role cannot be smuggled in under a name that is a path or looks like another."""
    (found,) = problems(f'kind: role\nversion: v3\nmetadata: {{name: "{name}"}}\nspec: {{}}\n')
    assert found[0] == 3
    assert "is not usable: use 1 to 255 letters" in found[1]


def test_version() -> None:
    """Roles are of version 3, all else of version 2."""
    (found,) = problems("kind: role\nversion: v2\nmetadata: {name: a}\nspec: {}\n")
    assert found == (2, "version 'v2' is not known; this is v3.")


def test_each_line() -> None:
    """Problems in one role come together, each with its own line."""
    found = problems(
        dedent(
            """\
            kind: role
            version: v3
            metadata: {name: dev}
            spec:
              options:
                record: always
              allow:
                logins:
                - root
                - "a b"
                node_labels:
                  env:
                  - ok
                  - "^($"
            """
        )
    )
    assert [line for line, _ in found] == [6, 10, 14]


def test_words() -> None:
    """YAML's yes, no and off are the words that they look like."""
    (role,) = load_documents(
        "kind: role\nversion: v3\nmetadata: {name: a}\n"
        "spec: {options: {port_forwarding: no, record: off, require_session_mfa: 5m}}\n",
        "f",
    )
    assert role == Role(
        "a", Options(port_forwarding="no", record="off", require_session_mfa=True, session_mfa_window=300)
    )
