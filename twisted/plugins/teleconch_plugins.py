"""``twistd teleport-auth``, ``twistd teleport-node``, ``twistd teleport-proxy``: one role each, from one file."""

from twisted.application.service import ServiceMaker

auth = ServiceMaker(
    "teleport-auth", "teleconch.service.twistd_auth", "The certificate authority and API of a cluster", "teleport-auth"
)
node = ServiceMaker(
    "teleport-node", "teleconch.service.twistd_node", "The SSH server of a cluster's node", "teleport-node"
)
proxy = ServiceMaker(
    "teleport-proxy", "teleconch.service.twistd_proxy", "The SSH and HTTPS gateway of a cluster", "teleport-proxy"
)
