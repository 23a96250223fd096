"""The systemd units in conf/: systemd takes them, and what they promise stands in them."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CONF = Path(__file__).resolve().parents[2] / "conf"
UNITS = sorted(CONF.glob("*.service"))
BIN = Path(sys.executable).parent
# What `systemd-analyze security` says at most, from 0 (shut in) to 10. Users' shells cannot be shut in.
EXPOSURE = {"teleport": 9.7, "teleport-node": 9.7, "teleport-auth": 6.0, "teleport-proxy": 6.0}
OF_A_USERS_MANAGER = 0.2  # what it says more than the system's
ROOT = os.geteuid() == 0


def _analyze(*line: str | Path, runtime: Path) -> subprocess.CompletedProcess[str]:
    """systemd-analyze as the system's manager; for an ordinary user, who may not make /run/systemd, as theirs."""
    scope = [] if ROOT else ["--user"]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(runtime)}
    return subprocess.run(
        ["systemd-analyze", *scope, *line], capture_output=True, text=True, check=False, env=environment
    )


def _unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(path)
    return parser


@pytest.fixture
def installed(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A unit with the programs of this checkout."""
    path: Path = tmp_path / request.param.name
    path.write_text(request.param.read_text().replace("/opt/teleconch/bin", str(BIN)))
    return path


def test_every_unit() -> None:
    """No unit goes untested."""
    assert {path.stem for path in UNITS} == set(EXPOSURE)


@pytest.mark.program("systemd-analyze")
@pytest.mark.parametrize("installed", UNITS, indirect=True, ids=lambda path: path.stem)
def test_systemd_takes_it(installed: Path) -> None:
    """systemd has nothing to say against a unit as it is installed: no unknown key, no program that is not there."""
    done = _analyze("verify", "--recursive-errors=no", "--man=no", installed, runtime=installed.parent)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.program("systemd-analyze")
@pytest.mark.parametrize("installed", UNITS, indirect=True, ids=lambda path: path.stem)
def test_exposure(installed: Path) -> None:
    """A unit does not become more open by the way."""
    done = _analyze("security", "--offline=yes", "--no-pager", installed, runtime=installed.parent)
    assert done.returncode == 0, done.stderr
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert float(exposure) <= EXPOSURE[installed.stem] + (0 if ROOT else OF_A_USERS_MANAGER), done.stdout


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_promises(path: Path) -> None:
    """A reload is harmless, whatever ends the daemon it comes back, and users' processes do not decide about it."""
    unit = _unit(path)
    service = unit["Service"]
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert (service["Restart"], unit["Unit"]["StartLimitIntervalSec"]) == ("always", "0")
    assert int(service["TimeoutStopSec"]) > 27  # what a stop takes at most
    if path.stem in ("teleport", "teleport-node"):
        assert (service["OOMPolicy"], service["TasksMax"], service["KillMode"]) == ("continue", "infinity", "process")
        assert "OOMScoreAdjust" not in service  # sessions would keep it; the daemon lowers its own
