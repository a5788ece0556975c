"""`import robustjax`."""

import pathlib
import re
import subprocess
import sys

import pytest

import robustjax

SCRIPT = """
import sys, robustjax
before = set(sys.modules)
assert not before & {"jax", "flax", "tensorflow_datasets"}, "import robustjax alone is free"
attack = robustjax.attacks.PGD(robustjax.threats.Linf(0.1), loss=robustjax.losses.margin)
robustjax.evaluation.evaluate
assert "flax" not in sys.modules, "attacks and evaluation never import Flax"
for name in robustjax.__all__:
    getattr(robustjax, name)
import jax
jax.config.update("jax_num_cpu_devices", 3)  # refused once a device has been touched
assert jax.device_count("cpu") == 3
"""


def test_modules_load_when_used_and_touch_no_device():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_one_version():
    root = pathlib.Path(__file__).parents[1]
    (cited,) = re.findall(r"^version: (.*)$", (root / "CITATION.cff").read_text(), re.M)
    (newest, *_) = re.findall(r"^## ([\d.]+)", (root / "CHANGELOG.md").read_text(), re.M)
    assert robustjax.__version__ == cited == newest


def test_public_modules_are_listed():
    assert set(robustjax.__all__) <= set(dir(robustjax))
    for name in robustjax.__all__:
        assert getattr(robustjax, name).__name__ == f"robustjax.{name}"
    with pytest.raises(AttributeError, match="no attribute 'defences'"):
        _ = robustjax.defences
