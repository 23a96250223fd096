"""A process as an administrator sees it: what it leaves on the disk, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from teleconch.service.run import _pid_file

WAITING = """\
teleport:
  data_dir: {folder}/data
  auth_token: a-token-that-is-never-shown
  auth_servers: ["127.0.0.1:1"]
  log: {{output: stderr}}
auth_service: {{enabled: no}}
proxy_service: {{enabled: no}}
ssh_service: {{enabled: yes, listen_addr: "127.0.0.1:3022"}}
"""


def test_pid_file_follows_no_link(tmp_path: Path) -> None:
    """A local user who puts a link where the PID file will be does not have root overwrite a file."""
    precious, path = tmp_path / "precious", tmp_path / "teleport.pid"
    precious.write_text("precious")
    path.symlink_to(precious)
    with _pid_file(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
        assert not path.is_symlink()
    assert not path.exists()
    assert precious.read_text() == "precious"


def test_told_to_stop_while_it_waits_for_the_auth_server(tmp_path: Path) -> None:
    """A node that is stopped before its auth server was ever up ends in good order, with no traceback in the log."""
    config = tmp_path / "teleport.yaml"
    config.write_text(WAITING.format(folder=tmp_path))
    program = Path(sys.executable).parent / "teleport"
    with subprocess.Popen([program, "start", "-c", config], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "cannot join the cluster yet" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGTERM)
        said += process.communicate(timeout=30)[1]
    assert "Traceback" not in said
    assert "ERROR" not in said
    assert process.returncode == 0
