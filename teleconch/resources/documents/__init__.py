"""Users, nodes, tokens and roles as YAML or JSON documents, in the form of Teleport's ``tctl get`` and ``tctl create``.

::

    kind: user                      kind: node                            kind: token
    version: v2                     version: v2                           version: v2
    metadata:                       metadata:                             metadata:
      name: joe                       name: 52e3e46a-...  (UUID)            name: <the token>
    spec:                             labels: {os: linux}                   expires: '2026-11-22T20:55:07Z'
      roles: [user]                   expires: '...'                      spec:
      traits:                       spec:                                   roles: [node]
        logins: [joe, root]           hostname: web-1                       user: joe   (sign-up tokens only)
                                      cluster: main
                                      addr: 10.1.0.5:3022
                                      public_addr: [web-1.example.com]
                                      version: 0.1.0
                                      roles: [node]
                                    status:
                                      state: online   (or offline)
                                      last_seen: '...'

    kind: role
    version: v3
    metadata:
      name: developer
    spec:
      options: {max_session_ttl: 8h, port_forwarding: local, client_idle_timeout: never}   (those of resources.role)
      allow:
        logins: [deploy, '{{internal.logins}}']
        node_labels: {env: [test, '^stage-[0-9]+$'], team: '{{external.team}}'}            (any node: '*': '*')
        rules: [{resources: [session], verbs: [list, read]}]
        request: {roles: [admin], approvers: [auditor]}
      deny: {}                                                                             (the same keys)

A token's value is its name: a document of a token holds a secret. Times are RFC 3339, written in UTC.

Documents printed by Teleport 4.2 are read as well. Keys that have no meaning here are left out, each with a note;
``null`` is an empty list; a host's roles may be in any case (``Node``).
"""

from __future__ import annotations

from teleconch.resources.documents.every import Resource, document, dump_documents, load_documents

__all__ = ["Resource", "document", "dump_documents", "load_documents"]
