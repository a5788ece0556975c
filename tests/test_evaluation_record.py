"""A run's evaluations on disk: attacks of one setting are joined, other settings stand beside."""

import copy
import json

import jax
import numpy as np
import pytest

from robustjax import files
from robustjax.attacks import BIM, FGSM, PGD, Randomized, Square
from robustjax.evaluation import Record, evaluate
from robustjax.evaluation.record import identity, read_tables
from robustjax.threats import L2, Linf

N = 40
IMAGES = np.random.default_rng(0).uniform(0.2, 0.8, (N, 4, 4, 1)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
LABELS = (IMAGES.reshape(N, -1) @ W).argmax(-1)
LABELS[:3] = (LABELS[:3] + 1) % 3
THREAT = Linf(0.02)
ATTACKS = {
    "pgd:start.sigma=1/100": PGD(THREAT, steps=2),  # a name with a slash
    "fgsm": FGSM(THREAT),
    "l2": BIM(L2(0.3), steps=2),  # outside
}


def apply(w, x):
    return x.reshape(len(x), -1) @ w


DICTIONARIES = ("robust", "reached", "rounded", "zero_gradient", "attacks", "setting", "per_class")
RESULT = {name: {} for name in DICTIONARIES}
RESULT |= {"worst_case_over": ["a"], "minimum_norm": [], "warnings": []}
RESULT |= {"stages": {"a": [{"attacked": 1, "backwards": 0}]}}


@pytest.fixture
def add(tmp_path):
    """Evaluate with some attacks, and record it as the command line does."""

    def add(*names, n=N, seed=0, weights="best", images=False):
        model, chosen = jax.tree_util.Partial(apply, W), {name: ATTACKS[name] for name in names}
        subject = model, IMAGES[:n], LABELS[:n], chosen, jax.random.key(seed)
        found = evaluate(*subject, threat=THREAT, levels=255, diagnose=False)
        result = found.to_json() | {"weights": weights, "curves": {name: {} for name in names}}
        result |= {"provenance": {"command": " ".join(names)}}
        record, columns = Record(tmp_path), found.flat_examples()
        content = record.join(result, columns)
        record.write(content, columns, found.adversarial if images else None)
        return files.read_json(tmp_path / "report.json")

    return add


pytestmark = pytest.mark.filterwarnings("ignore:l2. its threat")


def comparable(report):
    report = copy.deepcopy(report)
    for rows in report["stages"].values():
        for row in rows:
            del row["seconds"]
    gone = ("provenance", "earlier_provenance")
    return {k: sorted(v) if k == "warnings" else v for k, v in report.items() if k not in gone}


def test_two_calls_are_one(add, tmp_path):
    """Also in the worst case over attacks that were never run together."""
    first, second, third = ATTACKS
    whole = add(*ATTACKS)
    (tmp_path / "report.json").unlink()
    (tmp_path / "examples.npz").unlink()
    add(first, third)
    both = add(second, third)
    assert comparable(both) == comparable(whole) and both["others"] == []
    assert both["worst_case_over"] == [first, second]
    assert [p["command"] for p in both["earlier_provenance"]] == [f"{first} {third}"]
    table = read_tables(tmp_path / "examples.npz")[identity(both)]
    parts = {"fooled", "counts", "prediction", "distance", "stage", "survives"}
    assert set(table) == {"index", "label", "prediction", "wrong"} | {
        f"{name}/{part}" for name in ATTACKS for part in parts
    }


def test_other_settings_stand_beside_and_come_back(add, tmp_path):
    first = add("fgsm", images=True)
    add("fgsm", seed=1)
    report = add("fgsm", n=20)
    assert [entry["setting"]["n"] for entry in (report, *report["others"])] == [20, N, N]
    with np.load(tmp_path / "examples.npz") as table:
        assert len(table["label"]) == 20 and len(table[f"@{identity(first)}/label"]) == N
    with np.load(tmp_path / "adversarial.npz") as images:  # those of the first setting alone
        assert set(images) == {"setting", f"@{identity(first)}/fgsm"}
    back = add(next(iter(ATTACKS)))
    assert set(back["robust"]) == {"fgsm", next(iter(ATTACKS))}
    assert [entry["setting"]["n"] for entry in back["others"]] == [20, N]
    assert back["others"][1] == {k: v for k, v in report["others"][0].items() if k != "others"}
    assert add("fgsm", weights="last")["robust"].keys() == {"fgsm"}


def test_a_result_whose_table_is_gone_stands_beside(add, tmp_path):
    add("fgsm")
    (tmp_path / "examples.npz").unlink()
    report = add(next(iter(ATTACKS)))
    assert report["worst_case_over"] == [next(iter(ATTACKS))]
    assert report["others"][0]["worst_case_over"] == ["fgsm"]


def test_a_report_of_an_older_version_is_kept(add, tmp_path):
    old = {"clean": 0.5, "robust": {"fgsm": 0.25}, "worst_case": 0.25, "warnings": []}
    (tmp_path / "report.json").write_text(json.dumps(old))
    np.savez_compressed(tmp_path / "examples.npz", label=LABELS)
    report = add("fgsm")
    assert report["others"] == [old]
    with np.load(tmp_path / "examples_earlier.npz") as table:
        np.testing.assert_array_equal(table["label"], LABELS)
    assert add("fgsm", seed=1)["others"][1] == old


def test_killed_between_its_two_files(add, tmp_path, monkeypatch):
    add("fgsm")
    before = files.read_json(tmp_path / "report.json")

    def killed(path, content):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("robustjax.evaluation.record.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            add("fgsm", seed=1)
    assert files.read_json(tmp_path / "report.json") == before
    report = add(next(iter(ATTACKS)))
    assert set(report["robust"]) == {"fgsm", next(iter(ATTACKS))} and report["others"] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged"),
        ('{"others": 3}', "its others is 3, not a list"),
        ('{"setting": {}}', "it has no robust"),
        (json.dumps(RESULT | {"stages": {"a": [{}]}}), r"its stages.a.0..attacked is missing"),
        (json.dumps(RESULT | {"draws": {"n": 2}}), "its draws.vote is missing"),
    ],
)
def test_a_damaged_report_is_told_before_the_attack(tmp_path, content, message):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(ValueError, match=rf"report.json .*{message}"):
        Record(tmp_path)


def test_a_path_is_tried_before_the_attack(tmp_path):
    (tmp_path / "examples.npz").mkdir()
    with pytest.raises(OSError, match=r"cannot write .*examples.npz: Is a directory"):
        Record(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["examples.npz"]


def joined(folder, *calls, **arguments):
    """The report of calls of `evaluate` with some attacks each, as it is written and read again."""
    for attacks in calls:
        found = evaluate(attacks=attacks, key=jax.random.key(0), **arguments)
        record, columns = Record(folder), found.flat_examples()
        record.write(record.join(found.to_json() | {"curves": {}}, columns), columns)
    report = files.read_json(folder / "report.json")
    assert report.pop("others") == []
    return report


def drawn(w, key, x):
    return apply(w, x) + 0.1 * jax.random.normal(key, (len(x), 3))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_calls_are_one_for_a_model_that_draws(tmp_path):
    """A verdict of other draws, or by vote, is another setting."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    model = Randomized(jax.tree_util.Partial(drawn, W))
    subject = {"logits_fn": model, "images": IMAGES, "labels": LABELS, "draws": 3}
    first, second = ({str(steps): PGD(THREAT, steps=steps)} for steps in (1, 2))
    one, two = joined(whole, first | second, **subject), joined(parts, first, second, **subject)
    assert one["draws"]["accuracy"]["worst_case"].pop("fixed") is not None
    assert two["draws"]["accuracy"]["worst_case"].pop("fixed") is None
    assert comparable(one) == comparable(two)
    with pytest.raises(AssertionError):  # it stands beside
        joined(parts, first, **subject, vote=True)


def further(output, label):
    return output["value"] < label


def ascend(output, target):
    return -output["value"]


def test_two_calls_are_one_for_a_model_without_logits(tmp_path):
    def model(x):
        return {"value": apply(W, x)[:, 0]}

    labels = np.asarray(model(IMAGES)["value"]) - np.linspace(0, 0.5, N)
    labels[:4] += 1
    subject = {"logits_fn": model, "images": IMAGES, "labels": labels, "success": further}
    calls = [{f"pgd-{steps}": PGD(THREAT, steps=steps, loss=ascend)} for steps in (1, 2)]
    subject |= {"diagnose": False}
    one = joined(tmp_path / "whole", calls[0] | calls[1], **subject)
    assert comparable(one) == comparable(joined(tmp_path / "parts", *calls, **subject))
    assert 0 < one["worst_case"] < one["clean"] == 0.9 and "further" in one["setting"]["success"]


def test_attacks_of_two_calls_are_compared(tmp_path):
    """A flag that needs both attacks comes when the second one does, and goes with it."""
    model = jax.tree_util.Partial(lambda w, x: 1e4 * apply(w, x), W)
    subject = {"logits_fn": model, "images": IMAGES, "labels": LABELS, "diagnose": False}
    pgd, square = {"pgd": PGD(Linf(0.3), steps=10)}, {"square": Square(Linf(0.3), queries=20)}
    flag = "square sees no gradient, and broke"
    assert any(flag in text for text in joined(tmp_path, pgd, square, **subject)["warnings"])
    again = joined(tmp_path, square, **subject)
    assert sum(flag in text for text in again["warnings"]) == 1
