"""Run a script of this folder: see `recording.run`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
import recording
from figures import Draw

SEED = 0


def run(file: str, about: str, main: Callable[[], dict[str, Any]], draw: Draw) -> None:
    """Keep what `main` measures, and what `draw` makes of it, in results/theory."""
    packages = ("scipy", "scikit-learn", "matplotlib", "pillow")
    recording.run(file, about, main, draw, SEED, packages)
