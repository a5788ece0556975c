"""Bars, which one place can hide."""

from robustjax import progress


def test_a_hidden_bar_still_counts(capsys):
    with progress.hidden():
        assert list(progress.bar("numbers", range(3))) == [0, 1, 2]
        assert progress.doing() == "numbers"
    assert capsys.readouterr().err == ""
    with progress.bar("steps", total=2) as shown:
        shown.update(2)
    assert "steps: 100%" in capsys.readouterr().err
