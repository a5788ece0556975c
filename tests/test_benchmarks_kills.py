"""What killed writers leave is gone when the next one has been there."""

import json
import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).parents[1] / "experiments" / "benchmarks" / "kills.py"


def test_killed_writers_leave_nothing_after_the_next():
    words = [sys.executable, str(SCRIPT), "--alone", "--count", "20"]
    words += ["--kinds", "result", "snapshot"]
    found = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
    assert found == {"result": {"clean": 10}, "snapshot": {"clean": 10}}
