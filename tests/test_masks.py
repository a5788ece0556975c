"""Flags know the masks of the zoo, their advice leads to the truth, and sound networks have none.

All twenty defences and ten networks take a minute and a half to compile, and are in the committed
table; here are those that the flags know each in another way.
"""

import pathlib
import sys

from robustjax import files

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
sys.path.insert(0, str(EXPERIMENTS))

import masks
from zoo.defences import DEFENCES
from zoo.sound import SOUND
from zoo.study import of_defences, of_sound

N = 32
TABLE = files.read_json(masks.RESULT)
FLAGGED = {
    "bit depth": "exactly zero at 100.0%",
    "ripples": "a random step raises the margin more",
    "distillation": "square sees no gradient, and broke",
}


def test_every_kind_of_mask_is_flagged_and_the_advice_leads_to_the_truth():
    rows = list(of_defences([d for d in DEFENCES if d.name in FLAGGED], N))
    assert {row["defence"] for row in rows} == set(FLAGGED)
    for row in rows:
        assert any(FLAGGED[row["defence"]] in flag for flag in row["flags"]), row
        assert row["clean"] > 0.9 and row["advice"] and row["adapted"] <= 1 / N, row


def test_sound_networks_raise_no_flag():
    chosen = ("ReLU", "convolution", "adversarially trained")
    rows = list(of_sound([s for s in SOUND if s.name in chosen], N))
    assert len(rows) == 6 and [row["flags"] for row in rows] == [[]] * 6
    assert all(row["pgd"] > 0.6 for row in rows[::2])  # there is something to doubt


def test_the_committed_table_holds_the_whole_zoo():
    assert [row["defence"] for row in TABLE["defences"]] == [d.name for d in DEFENCES]
    assert sum(bool(row["flags"]) and row["advice"] for row in TABLE["defences"]) >= 19
    assert TABLE["undefended"] == 0 and len(DEFENCES) == 20
    assert max(row["adapted"] for row in TABLE["defences"]) <= 2 / TABLE["n"]
    names = dict.fromkeys(row["network"] for row in TABLE["sound"])
    assert list(names) == [s.name for s in SOUND] and len(names) == 10
    assert not any(row["flags"] for row in TABLE["sound"])
    assert masks.PAGE.read_text() == masks.page(TABLE)


def test_a_defence_takes_at_most_forty_lines():
    for defence in DEFENCES:
        lines = [line for *_, line in defence.logits.__code__.co_lines() if line]
        assert max(lines) - min(lines) < 40
