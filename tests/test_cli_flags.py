"""What flags mean."""

import pathlib
import shutil
import subprocess
import sys

import pytest

from robustjax import files
from robustjax.cli.flags import AttackOptions, choose_threat
from robustjax.threats import L2, Linf

RUN = pathlib.Path(__file__).parent / "golden" / "runs" / "pgd-at-cnn"


@pytest.mark.parametrize(
    ("norm", "eps", "want"),
    [
        (None, None, Linf(0.1)),
        (None, 0.2, Linf(0.2)),
        ("linf", None, Linf(0.1)),
        ("linf", 0.2, Linf(0.2)),
        ("l2", None, L2()),
        ("l2", 2.0, L2(2.0)),
        ("linf:eps=4/255", None, Linf(4 / 255)),
        ("linf:bounds=-1,1", None, Linf(0.1, (-1.0, 1.0))),
        ("l2:bounds=none:eps=3", 2.0, L2(2.0, None)),
    ],
)
def test_threats_fall_back(norm, eps, want):
    assert choose_threat(norm, eps, Linf(0.1)) == want


def test_a_radius_in_grey_levels_is_refused():
    with pytest.raises(ValueError, match=r"is 8/255 meant\?"):
        choose_threat(None, 8.0, Linf(0.1))
    with pytest.raises(ValueError, match="eps must lie in"):
        choose_threat(None, -1.0, Linf(0.1))
    assert choose_threat("l2", 8.0, Linf(0.1)) == L2(8.0)
    assert choose_threat("linf", 1.0, L2()) == Linf(1.0)


def test_an_unknown_threat_is_named():
    with pytest.raises(ValueError, match="unknown threat 'l3'; known: linf, l2, l1, l0"):
        choose_threat("l3", None, Linf())


def test_a_threat_of_a_run_is_known_to_a_command_that_has_imported_nothing_yet():
    program = (
        "from robustjax.cli.flags import AttackOptions\n"
        "run = {'threat': {'type': 'L2', 'fields': {'eps': 0.5}}}\n"
        "print(AttackOptions().threat_of(run))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("L2(eps=0.5"), done.stderr


def edits(value):
    """A JSON value with one part replaced by another type, missing, or with an entry more."""
    yield from (None, True, -1, 0.5, "text", [1], {})
    if isinstance(value, dict):
        yield value | {"surprise": 1}
        for name in value:
            yield {n: v for n, v in value.items() if n != name}
            yield from (value | {name: other} for other in edits(value[name]))
    if isinstance(value, list):
        yield from ([other, *value[1:]] for other in edits(value[0]))


@pytest.mark.parametrize("part", ["threat", "model", "image_shape", "data", "class_names"])
def test_every_edit_of_a_config_is_read_or_refused_by_name(tmp_path, part):
    run = shutil.copytree(RUN, tmp_path / "run")
    config, seen = files.read_json(run / "config.json"), 0
    for edited in edits(config[part]):
        files.write_json(run / "config.json", config | {part: edited})
        try:
            AttackOptions().load(run)
        except ValueError as error:
            assert "config.json" in str(error)
            seen += 1
    assert seen > 5


def test_a_threat_without_its_radius_is_not_the_default(tmp_path):
    run = shutil.copytree(RUN, tmp_path / "run")
    config = files.read_json(run / "config.json")
    for fields in ({}, {"bounds": [0, 1]}):
        config["threat"] = {"type": "Linf", "fields": fields}
        files.write_json(run / "config.json", config)
        with pytest.raises(ValueError, match=r"config\.json .*its threat has no eps"):
            AttackOptions().load(run)
