"""Users, nodes and tokens as documents."""

from __future__ import annotations

import json
import uuid
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleconch.errors import ConfigError
from teleconch.resources.documents import document, dump_documents, load_documents
from teleconch.resources.node import Node, NodeStatus
from teleconch.resources.secret import Secret
from teleconch.resources.text import json_text
from teleconch.resources.token import HOST_ROLES, Token
from teleconch.resources.user import User

NAMES = st.from_regex(r"[A-Za-z0-9._@][A-Za-z0-9._@-]{0,20}", fullmatch=True)
PEOPLE = st.from_regex(r"[A-Za-z0-9._@][A-Za-z0-9._@+-]{0,20}", fullmatch=True)
LOGINS = st.from_regex(r"([A-Z]{1,9}\\)?[A-Za-z0-9._@][A-Za-z0-9._@+-]{0,20}\$?", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TIMES = st.integers(0, 10_000_000_000).map(lambda quarter: quarter / 4)
LISTS = st.lists(NAMES, max_size=3).map(tuple)

USERS = st.builds(
    User,
    PEOPLE,
    LISTS,
    st.fixed_dictionaries(
        {}, optional={"logins": st.lists(LOGINS, max_size=3).map(tuple), "team": st.lists(TEXTS, max_size=3)}
    ),
)
NODES = st.builds(
    NodeStatus,
    st.builds(
        Node,
        uuid=st.uuids().map(str),
        nodename=NAMES,
        cluster=NAMES,
        addr=TEXTS,
        public_addrs=st.lists(TEXTS, max_size=2).map(tuple),
        labels=st.dictionaries(TEXTS, TEXTS, max_size=3),
        version=TEXTS,
        roles=st.sets(st.sampled_from(HOST_ROLES)).map(sorted).map(tuple),
    ),
    last_seen=TIMES,
    online=st.booleans(),
    expires=TIMES,
)
HOST_TOKENS = st.builds(
    lambda value, roles, expires: Token(Secret(value), tuple(sorted(roles)), expires, static=expires is None),
    TEXTS.filter(bool),
    st.sets(st.sampled_from(HOST_ROLES), min_size=1),
    st.none() | TIMES,
)
SIGNUP_TOKENS = st.builds(lambda value, name, end: Token(Secret(value), ("signup",), end, name), NAMES, PEOPLE, TIMES)
RESOURCES = st.lists(USERS | NODES | HOST_TOKENS | SIGNUP_TOKENS, max_size=4).map(tuple)


@given(RESOURCES)
def test_round_trip(resources: tuple[Any, ...]) -> None:
    """What `tctl get` prints, in either format, `tctl create` reads back without loss."""
    assert load_documents(dump_documents(resources), "f") == resources
    assert load_documents(json_text([document(resource) for resource in resources]), "f") == resources


def test_as_teleport_prints_it() -> None:
    """A user document has Teleport's shape, so existing ones can be used."""
    assert dump_documents([User("joe", traits={"logins": ("joe", "root")})]) == dedent(
        """\
        kind: user
        version: v2
        metadata:
          name: joe
        spec:
          roles:
          - user
          traits:
            logins:
            - joe
            - root
        """
    )


TELEPORTS_USER = """\
kind: user
version: v2
metadata: {name: carol, namespace: default, id: 15, labels: null}
spec:
  created_by: {time: "0001-01-01T00:00:00Z", user: {name: builtin-Admin}}
  expires: "0001-01-01T00:00:00Z"
  status: {is_locked: false, lock_expires: "0001-01-01T00:00:00Z"}
  oidc_identities: null
  github_identities: [{connector_id: github, username: carol}]
  local_auth: {password_hash: c2VjcmV0, totp_key: SECRET}
  roles: [admin]
  traits: {logins: [carol], kubernetes_groups: null}
"""


def test_a_user_as_teleport_prints_it() -> None:
    """Users move here from a Teleport cluster: what means nothing here is left out, with a line for each key."""
    left_out: list[str] = []
    (carol,) = load_documents(TELEPORTS_USER, "f", left_out)
    assert carol == User("carol", ("admin",), {"logins": ("carol",), "kubernetes_groups": ()})
    keys = [line.split(" ")[1] for line in left_out]
    assert sorted(keys) == [
        "metadata.id",
        "metadata.labels",
        "metadata.namespace",
        "spec.created_by",
        "spec.expires",
        "spec.github_identities",
        "spec.local_auth",
        "spec.oidc_identities",
        "spec.status",
    ]
    text = "\n".join(left_out)
    assert "f:10: spec.local_auth is left out: password and second factor are not taken over; carol sets" in text
    assert "tctl users reset carol" in text
    assert "SECRET" not in text
    left_out.clear()
    assert load_documents(dump_documents([carol]), "f", left_out) == (carol,)
    assert left_out == []


def test_what_changes_the_meaning_is_told() -> None:
    """A user who would have ended, has ended, or is locked is not made without a word."""
    left_out: list[str] = []
    soon = TELEPORTS_USER.replace('  expires: "0001-01-01T00:00:00Z"', '  expires: "2030-01-01T00:00:00Z"')
    (carol,) = load_documents(soon.replace("is_locked: false", "is_locked: true"), "f", left_out, 1_800_000_000.0)
    assert carol.name == "carol"
    text = "\n".join(left_out)
    assert "user carol does not expire 2030-01-01T00:00:00Z" in text
    assert "tctl users rm carol" in text
    assert "the lock of carol is not taken over" in text
    assert load_documents(soon, "f", left_out, 1_900_000_000.0) == ()
    assert "f:6: user carol is left out: spec.expires says that it has expired." in left_out
    assert load_documents(soon.replace("id: 15", "expires: 2026-11-22T20:55:07Z"), "f", left_out, 1_800_000_000.0) == ()


def test_tokens_as_teleport_prints_them() -> None:
    """Roles of hosts begin with a capital there; several documents, YAML or JSON, are read in one go."""
    token = {
        "kind": "token",
        "version": "v2",
        "metadata": {"name": "t1", "namespace": "default", "id": 7, "expires": "2030-01-01T00:00:00Z"},
        "spec": {"roles": ["Node", "Proxy", "node"], "user": ""},
    }
    found = Token(Secret("t1"), ("node", "proxy"), 1893456000.0)
    left_out: list[str] = []
    assert load_documents(json.dumps(token), "f", left_out) == (found,)
    assert len(left_out) == 2
    assert load_documents(json.dumps([token, token]), "f") == (found, found)
    both = f"---\n{json.dumps(token)}\n---\n{TELEPORTS_USER}---\n"
    assert [type(each) for each in load_documents(both, "f")] == [Token, User]
    never = {**token, "metadata": {"name": "t1", "expires": "0001-01-01T00:00:00Z"}}
    assert load_documents(json.dumps(never), "f") == (Token(Secret("t1"), ("node", "proxy"), None, static=True),)


@pytest.mark.parametrize("spec", ["null", "{}", "{roles: null, traits: null}"])
def test_nothing_is_empty(spec: str) -> None:
    """`null` means what an absent key means."""
    assert load_documents(f"kind: user\nversion: v2\nmetadata: {{name: a}}\nspec: {spec}\n", "f") == (User("a"),)


def test_nodes_of_another_cluster_are_left_out() -> None:
    """A backup of everything is read, though its nodes are not: they register themselves."""
    node = """\
        kind: node
        version: v2
        metadata: {name: 52e3e46a-372f-494b-bdd9-a1d25b9d6dec, namespace: default, expires: "2030-01-01T00:00:00Z"}
        spec: {addr: "10.0.0.1:3022", hostname: web-1, rotation: {state: standby}, cmd_labels: null, use_tunnel: false}
        """
    left_out: list[str] = []
    assert load_documents(dedent(node), "f", left_out) == ()
    assert len(left_out) == 1
    assert "tctl nodes add" in left_out[0]


def test_a_single_role_may_stand_without_a_list() -> None:
    """`roles: admin`, as Teleport's manual has it, is a list of one."""
    text = "kind: user\nversion: v2\nmetadata: {name: joe}\nspec: {roles: admin, traits: {logins: [joe]}}\n"
    assert load_documents(text, "f") == (User("joe", ("admin",), {"logins": ("joe",)}),)


def test_json_object_and_empty_documents() -> None:
    """A JSON object alone works, and so do empty documents between lines of `---`."""
    joe = User("joe")
    assert load_documents(json.dumps(document(joe)), "f") == (joe,)
    assert load_documents(f"---\n---\n{dump_documents([joe])}---\n", "f") == (joe,)
    assert load_documents("", "f") == ()


def problems(text: str) -> list[tuple[int, str]]:
    with pytest.raises(ConfigError) as caught:
        load_documents(dedent(text), "joe.yaml")
    assert all(file == "joe.yaml" for file, _, _ in caught.value.problems)
    return [(line, sentence) for _, line, sentence in caught.value.problems]


def test_all_problems_at_once_by_line() -> None:
    """Every mistake of a file is told in one go, each with its line."""
    found = problems(
        """\
        kind: user
        version: v2
        metadata:
          name: joe,root
        spec:
          role: [admin]
          traits:
            logins:
            - joe
            - 12
            - "*"
        ---
        kind: usr
        version: v2
        metadata: {name: a}
        spec: {}
        """
    )
    assert [line for line, _ in found] == [4, 6, 10, 11, 13]
    text = "\n".join(sentence for _, sentence in found)
    assert "User name 'joe,root' is not usable" in text
    assert "unknown key 'role' in spec; did you mean 'roles'?" in text
    assert 'must be text, not a number: put it in quotes, "12"' in text
    assert "Login '*' is not usable" in text
    assert "no documents of kind 'usr'; did you mean 'user'?" in text


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("kind: [", 1, "not YAML"),
        ("kind: user\n\tversion: v2", 2, "not YAML"),
        ("kind: user\nversion: v2\nmetadata: {name: a}\n", 1, "lacks 'spec'"),
        ("kind: user\nversion: v3\nmetadata: {name: a}\nspec: {}\n", 2, "version 'v3' is not known"),
        ("kind: user\nversion: v2\nmetadata: {name: a, name: b}\nspec: {}\n", 3, "'name' is there twice"),
        ("kind: user\nversion: v2\nmetadata: {name: a}\nspec: {}\nstatus: {}\n", 5, "unknown key 'status'"),
        ("kind: user\nversion: v2\nmetadata: {name: null}\nspec: {}\n", 3, "must be text, not nothing"),
        ("kind: user\nversion: v2\nmetadata: joe\nspec: {}\n", 3, "must be a mapping"),
        ("kind: user\nversion: v2\nmetadata: {name: a}\nspec: {roles: {a: b}}\n", 4, "must be a list, not a mapping"),
        ("kind: saml\nversion: v3\nmetadata: {name: a}\nspec: {}\n", 1, "take this one out of the file"),
        ("kind: user\nversion: v2\nmetadata: {name: a}\nspec: {expires: soon}\n", 4, "RFC 3339"),
        ("kind: user\nversion: v2\nmetadata: {name: a}\nspec: {locla_auth: {}}\n", 4, "unknown key 'locla_auth'"),
        ("kind: token\nversion: v2\nmetadata: {name: t}\nspec: {roles: null}\n", 4, "spec.roles is a list"),
        ("kind: token\nversion: v2\nmetadata: {name: t}\nspec: {roles: [Trusted_cluster]}\n", 4, "a host has no role"),
        ("a: &x [1]\nb: *x\n", 2, "aliases"),
        ("just words", 1, "must be a mapping"),
        ("[" * 5000, 1, "nested too deep"),
        ("kind: token\nversion: v2\nmetadata: {name: t}\nspec: {roles: [nod]}\n", 4, "did you mean 'node'?"),
        ("kind: token\nversion: v2\nmetadata: {name: t}\nspec: {roles: []}\n", 4, "spec.roles is a list"),
        ("kind: token\nversion: v2\nmetadata: {name: t}\nspec: {roles: [signup]}\n", 4, "with spec.user"),
        ("kind: token\nversion: v2\nmetadata: {name: t, expires: soon}\nspec: {roles: [node]}\n", 3, "RFC 3339"),
        ('kind: user\nversion: v2\nmetadata: {name: "\\ud800"}\nspec: {}\n', 3, "surrogate"),
    ],
)
def test_one_problem(text: str, line: int, part: str) -> None:
    """Each kind of mistake has its own sentence."""
    found = problems(text)
    assert len(found) == 1, found
    assert found[0][0] == line
    assert part in found[0][1]


def test_node_document_needs_its_parts() -> None:
    """A node document is checked like any other, though nodes register themselves."""
    text = f"""\
        kind: node
        version: v2
        metadata: {{name: {uuid.uuid4()}, expires: 2026-11-22T20:55:07Z}}
        spec: {{hostname: web-1, cluster: main, addr: "10.0.0.1:3022", roles: [door]}}
        status: {{state: asleep, last_seen: 2026-11-22T20:55:07Z}}
        """
    assert [line for line, _ in problems(text)] == [4, 5]


@given(st.text(max_size=200) | st.text("kind: usertokenv2[]{}-\n &*!|>'\"#%,", max_size=80))
def test_any_text_loads_or_is_refused(text: str) -> None:
    """Whatever a file holds, the answer is resources or a list of problems."""
    try:
        load_documents(text, "f")
    except ConfigError as e:
        told = e.problems
    else:
        return
    assert told
