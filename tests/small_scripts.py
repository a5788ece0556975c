"""Run a script of experiments/FOLDER small, as its command would, but not into its results."""

import importlib.util
import json
import sys


def module_of(path):
    """The module, though its name may be taken: `density` is a common word."""
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def left_by(path, frame, constants, results, monkeypatch):
    """The names of the files that it leaves, and its JSON.

    Args:
      path: of the script.
      frame: the module that runs the scripts of its folder.
      constants: what is small; the script has each of them.
      results: the folder to use in place of experiments/results.
    """
    module = module_of(path)
    monkeypatch.setattr(frame.recording, "RESULTS", results)
    monkeypatch.setattr(sys, "argv", [path.name, "--dirty"])
    for constant, value in constants.items():
        assert hasattr(module, constant)
        monkeypatch.setattr(module, constant, value)
    frame.run(module.__file__, module.__doc__, module.main, module.draw)
    folder = results / path.parent.name
    found = json.loads((folder / f"{path.stem}.json").read_text())
    assert found["provenance"]["command"] == f"python experiments/{folder.name}/{path.name}"
    return {file.name for file in folder.iterdir()}, found
