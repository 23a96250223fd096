"""``teleport configure``, ``status``, ``version`` and ``help``, as typed; and the files in conf/."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from teleconch import __version__
from teleconch.config.load import load_config
from teleconch.config.sample import SAMPLE

CONF = Path(__file__).parents[2] / "conf"


def teleport(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program, outside of any session, on a machine whose locale is plain."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SSH_")}
    return subprocess.run(
        [sys.executable, "-c", "from teleconch.cli.teleport import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**clean, "LC_ALL": "C", **environment},
    )


def test_the_printed_sample_is_good(tmp_path: Path) -> None:
    """`teleport configure > f && teleport configure --check f` says that f is good, and what it starts."""
    file = tmp_path / "teleport.yaml"
    printed = teleport("configure")
    assert (printed.returncode, printed.stderr) == (0, "")
    file.write_text(printed.stdout)
    checked = teleport("configure", "--check", str(file))
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout == f"{file} is good. It starts: auth, proxy, node.\n"


def test_check_prints_every_problem(tmp_path: Path) -> None:
    """`--check` of a wrong file ends with status 1 and a line for each problem, with its place."""
    file = tmp_path / "teleport.yaml"
    file.write_text("teleport:\n  nodname: a\nauth_service:\n  enabled: perhaps\n")
    checked = teleport("configure", "--check", str(file))
    assert (checked.returncode, checked.stdout) == (1, "")
    assert checked.stderr.splitlines() == [
        "ERROR: the configuration has 2 errors:",
        f"{file}:2: There is no key 'nodname' in teleport. Did you mean 'nodename'?",
        f"{file}:4: auth_service.enabled must be yes or no, not 'perhaps'.",
    ]


def test_check_prints_warnings(tmp_path: Path) -> None:
    """A setting that does nothing yet is told by `--check`; the file is good all the same."""
    file = tmp_path / "teleport.yaml"
    file.write_text("ssh_service:\n  namespace: x\n")
    checked = teleport("configure", "--check", str(file))
    assert checked.returncode == 0
    assert "is good" in checked.stdout
    assert checked.stderr == f"WARNING: {file}:2: ssh_service.namespace has no effect in this version yet.\n"


def test_check_prints_warnings_and_errors_apart(tmp_path: Path) -> None:
    """A file with both gets all of both in one run, each with its line, and status 1."""
    file = tmp_path / "teleport.yaml"
    file.write_text(
        "version: v2\nteleport:\n  ca_pin: ''\n  diag_addr: 127.0.0.1:3000\n"
        "ssh_service:\n  port_forwarding: no\nproxy_service: {enabled: no, https_key_file: /nowhere/k}\n"
    )
    checked = teleport("configure", "--check", str(file))
    assert (checked.returncode, checked.stdout) == (1, "")
    assert [line.partition(f"{file}:")[::2] for line in checked.stderr.splitlines()] == [
        ("WARNING: ", "1: 'version' is from Teleport 8 and later, and has no effect here."),
        ("WARNING: ", "3: teleport.ca_pin is empty, which is as if it were left out."),
        ("WARNING: ", "7: proxy_service.https_key_file needs https_cert_file as well."
         " (Only a warning: proxy_service does not run here.)"),
        ("ERROR: the configuration has 2 errors:", ""),
        ("", "4: 'diag_addr' in teleport is from Teleport 7 and later. Here it is a flag:"
         " teleport start --diag-addr=HOST:PORT."),
        ("", "6: 'port_forwarding' in ssh_service is from Teleport 7 and later."
         " Forwarding is a matter of a user's certificate here, not of a node."),
    ]  # fmt: skip


def test_the_later_name_of_check(tmp_path: Path) -> None:
    """`teleport configure --test FILE` of later releases says how the check is asked for here."""
    checked = teleport("configure", "--test", "teleport.yaml")
    assert (checked.returncode, checked.stdout) == (2, "")
    assert "Here: teleport configure --check teleport.yaml" in checked.stderr
    assert "--test" not in teleport("configure", "--help").stdout


def test_check_of_a_missing_file() -> None:
    """`--check` of a file that is not there says so."""
    checked = teleport("configure", "--check", "/nowhere/teleport.yaml")
    assert checked.returncode == 1
    assert "/nowhere/teleport.yaml:1: The file cannot be read: No such file or directory." in checked.stderr


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda path: path.name)
def test_files_in_conf_are_good(file: Path) -> None:
    """Every example file can be copied to /etc/teleport.yaml and starts without an error or a warning."""
    config = load_config(file.read_text(), "/etc/teleport.yaml", hostname=lambda: "graviton")
    assert config.warnings == ()
    expected = {"teleport": ("auth", "proxy", "node")}.get(file.stem, (file.stem,))
    assert config.roles == expected


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda path: path.name)
def test_commented_keys_in_conf_exist(file: Path) -> None:
    """Taking away any '#' in an example gives a key that exists: the comments do not lie."""
    prose = re.compile(r"\s*# \S")
    lines = [line if prose.match(line) else line.replace("#", "", 1) for line in file.read_text().splitlines()]
    text = "\n".join(line for line in lines if prose.match(line) or (": /etc/" not in line and ":/etc/" not in line))
    config = load_config(text, "/etc/teleport.yaml", hostname=lambda: "graviton")
    assert config.warnings == ()


def test_the_sample_is_the_file_in_conf() -> None:
    """`teleport configure` prints conf/teleport.yaml, so there is one sample to read and to keep true."""
    assert (CONF / "teleport.yaml").read_text() == SAMPLE


@pytest.mark.program("systemd-analyze")
@pytest.mark.parametrize("unit", sorted(CONF.glob("*.service")), ids=lambda path: path.name)
def test_units_are_well_formed(unit: Path) -> None:
    """systemd takes the unit files without a complaint about their keys."""
    said = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    about = [line for line in said.stderr.splitlines() if unit.name in line and "not executable" not in line]
    assert about == []


def test_status_inside_a_session() -> None:
    """In a session, `teleport status` shows who one is, where, and the session's ID."""
    shown = teleport(
        "status",
        SSH_SESSION_ID="8d3895b6-e9dd-11e6-94de-40167e68e931",
        SSH_TELEPORT_USER="joe",
        SSH_TELEPORT_CLUSTER_NAME="main",
        SSH_TELEPORT_HOST_UUID="f84f7386-5e22-45ff-8f7d-b8079742e63f",
        SSH_CLIENT="203.0.113.5 4022 3022",
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    rows = dict(line.split(": ", 1) for line in shown.stdout.splitlines())
    assert rows["User ID     "].startswith("joe, logged in as ")
    assert rows["User ID     "].endswith(" from 203.0.113.5")
    assert rows["Cluster Name"] == "main"
    assert rows["Host UUID   "] == "f84f7386-5e22-45ff-8f7d-b8079742e63f"
    assert rows["Session ID  "] == "8d3895b6-e9dd-11e6-94de-40167e68e931"


def test_status_outside_of_a_session() -> None:
    """Elsewhere it says that this is not a session, and how to get one."""
    shown = teleport("status")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr.startswith("ERROR: This is not a session")
    assert "tsh ssh" in shown.stderr


def test_version_imports_little() -> None:
    """`teleport version` answers at once: it loads neither Twisted nor YAML."""
    shown = teleport("version")
    assert shown.stdout.startswith(f"teleconch v{__version__} python 3.")
    code = (
        "import sys; from teleconch.cli import teleport; "
        "print(sorted({'twisted', 'yaml', 'attrs', 'cryptography', 'rich'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert loaded.stdout == "[]\n"


def test_help_of_start_tells_who_wins() -> None:
    """The help says that flags go before the file, since 4.2 had it otherwise in its documents."""
    shown = teleport("help", "start")
    assert "What a flag says goes before" in shown.stdout
    assert shown.stdout == teleport("start", "--help").stdout
