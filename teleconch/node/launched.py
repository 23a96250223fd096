"""The launcher's process, put together: it is run with ``python -I -S``, and imports the standard library only."""

from __future__ import annotations

from teleconch.node.files import child as files
from teleconch.node.forward import child as forwarding
from teleconch.node.launch import launcher


def main() -> None:
    """Everything is imported now: a child that has become a user imports nothing."""
    launcher.main({"forward": forwarding.main, files.SFTP: files.serve_sftp})
