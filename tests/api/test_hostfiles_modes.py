"""The data_dir against other users of the machine."""

from __future__ import annotations

import stat
from pathlib import Path

from teleconch.api.hostfiles import HostFiles


def test_a_data_dir_that_everyone_could_write(tmp_path: Path) -> None:
    """In a volume that is made 0777, no other user can swap the host's folders for his own."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    data_dir.chmod(0o1777)
    HostFiles(data_dir, "node").uuid()
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o775


def test_other_modes_stay(tmp_path: Path) -> None:
    """An administrator's own choice, such as a group that may read, is left alone."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    data_dir.chmod(0o750)
    HostFiles(data_dir, "node").uuid()
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o750
