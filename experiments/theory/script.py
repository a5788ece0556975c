"""Run a script of this folder: see `recording.run`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
import recording

SEED = 0


def run(path: str, about: str, main: Callable[[Path], dict[str, Any]]) -> None:
    """Keep what `main` measures and draws in results/theory."""
    packages = ("scipy", "scikit-learn", "matplotlib", "pillow")
    recording.run(path, about, main, SEED, packages)
