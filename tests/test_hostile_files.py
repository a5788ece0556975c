"""No file harms its reader: 300 of them, made or damaged, read by a process with little memory."""

import collections

import hostile


def test_every_file_is_read_or_refused_by_name():
    found = hostile.judge(seed=0, count=300)
    assert [entry for entry in found if entry[2] not in ("read", "refused")] == []
    kinds = collections.Counter(kind for kind, _, _ in found)
    assert kinds.keys() == hostile.valid().keys() and sum(kinds.values()) == 300
    assert sum(outcome == "refused" for _, _, outcome in found) > 200
