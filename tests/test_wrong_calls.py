"""Wrong calls are refused by a message that names the argument: 30 of the generated ones."""

import wrong_calls


def test_wrong_calls_are_refused_by_the_name_of_the_argument():
    found = wrong_calls.judge(seed=0, count=30)
    assert [entry for entry in found if entry[0] not in ("refused", "legal")] == []
    assert sum(outcome == "refused" for outcome, _, _ in found) > 20
