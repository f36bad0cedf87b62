"""With what and where something was run, as a manifest says it: versions, commit, host and device."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradlab

PACKAGES = ("torch", "numpy", "pandas", "pyarrow", "hydra-core")
"""Whose versions it names."""


def surroundings(device: Mapping[str, Any]) -> dict[str, Any]:
    """Versions, commit, host and device, for the manifest."""
    return {
        "versions": {
            "gradlab": gradlab.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "git": _commit(),
        "host": {"name": socket.gethostname(), "system": platform.platform(), "cores": os.cpu_count()},
        "device": dict(device),
    }


def _commit() -> str | None:
    """The commit of gradlab's own sources, where they are a git checkout."""
    sources = Path(__file__).resolve().parents[2]
    if not (sources / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(sources), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
