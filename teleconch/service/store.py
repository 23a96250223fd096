"""The store that the configuration names. This is the only place that knows which stores there are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from teleconch.backend.interface import Backend
from teleconch.config.values import Storage
from teleconch.errors import Unavailable

STATE_FILE: Final = "teleconch.db"


def open_store(storage: Storage, reactor: Any) -> Backend:
    """Open the store, which is made if it does not exist yet. Unavailable."""
    from teleconch.backend.sqlite import SqliteBackend

    assert storage.type == "sqlite", storage.type
    folder = Path(storage.path)
    private_folder(folder)
    return SqliteBackend(folder / STATE_FILE, reactor, reactor.seconds)


def private_folder(path: Path) -> None:
    """Make a folder that only its owner can use. Unavailable."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(path, 0o700)
    except OSError as error:
        raise Unavailable(
            f"The folder {path} cannot be made or made private: {error.strerror}. Run teleport as the user that owns"
            " it, or give another data_dir."
        ) from None
