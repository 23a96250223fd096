"""Documents of nodes, which only ``tctl get`` writes: nodes register themselves."""

from __future__ import annotations

from teleconch.errors import quoted
from teleconch.resources.documents.reading import Fields, Reader, check_host_roles, checked, host_roles, plain
from teleconch.resources.names import check_name, check_uuid
from teleconch.resources.node import Node, NodeStatus
from teleconch.resources.times import rfc3339
from teleconch.resources.token import HOST_ROLES


def node_document(status: NodeStatus) -> dict[str, object]:
    """The plain data of one document."""
    node = status.node
    return {
        **plain(
            "node",
            {"name": node.uuid, "labels": dict(node.labels), "expires": rfc3339(status.expires)},
            {
                "hostname": node.nodename,
                "cluster": node.cluster,
                **({} if node.addr is None else {"addr": node.addr}),
                "public_addr": list(node.public_addrs),
                "version": node.version,
                "roles": list(node.roles),
            },
        ),
        "status": {
            "state": "online" if status.online else "offline",
            "last_seen": rfc3339(status.last_seen),
        },
    }


def load_node(reader: Reader, top: Fields, before: int) -> NodeStatus | None:
    metadata = reader.fields(top["metadata"], "metadata", ("name", "labels", "expires"), ("name", "expires"))
    uuid = checked(reader, metadata.get("name"), "metadata.name", check_uuid)
    labels = reader.text_map(metadata.get("labels"), "metadata.labels") or {}
    expires = reader.time(metadata.get("expires"), "metadata.expires")
    known = ("hostname", "cluster", "addr", "public_addr", "version", "roles")
    spec = reader.fields(top["spec"], "spec", known, ("hostname", "cluster", "addr"))
    nodename = checked(reader, spec.get("hostname"), "spec.hostname", lambda text: check_name(text, "Host name"))
    cluster = checked(reader, spec.get("cluster"), "spec.cluster", lambda text: check_name(text, "Cluster name"))
    addr = reader.text(spec.get("addr"), "spec.addr")
    public_addrs = reader.texts(spec.get("public_addr"), "spec.public_addr") or ()
    version = reader.text(spec.get("version"), "spec.version") or ""
    roles = host_roles(reader.texts(spec.get("roles"), "spec.roles"))
    check_host_roles(reader, spec.get("roles"), roles, HOST_ROLES)
    status = reader.fields(top["status"], "status", ("state", "last_seen"), ("state", "last_seen"))
    state = reader.text(status.get("state"), "status.state")
    if state not in (None, "online", "offline"):
        reader.problem(status["state"], f"status.state is online or offline, not {quoted(state)}.")
    last_seen = reader.time(status.get("last_seen"), "status.last_seen")
    if len(reader.problems) > before or uuid is None or nodename is None or cluster is None:
        return None
    if addr is None or last_seen is None or expires is None:
        return None
    node = Node(uuid, nodename, cluster, addr, public_addrs, labels, version, ("node",) if roles is None else roles)
    return NodeStatus(node, last_seen, state == "online", expires)
