"""What a process leaves on the disk besides its state."""

from __future__ import annotations

import os

from teleconch.service.run import _pid_file


def test_pid_file_follows_no_link(tmp_path) -> None:
    """A local user who puts a link where the PID file will be does not have root overwrite a file."""
    precious, path = tmp_path / "precious", tmp_path / "teleport.pid"
    precious.write_text("precious")
    path.symlink_to(precious)
    with _pid_file(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
        assert not path.is_symlink()
    assert not path.exists()
    assert precious.read_text() == "precious"
