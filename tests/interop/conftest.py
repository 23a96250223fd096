"""Shares the node's test world, and what its files are asked with, with the tests here."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("node", "node_files", "node_forward"):
    sys.path.append(str(Path(__file__).resolve().parent.parent / folder))
