"""A long evaluation that is killed ends with the report that it would have had."""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from robustjax.attacks import (
    DDN,
    FGSM,
    PGD,
    Restarts,
    WorstOf,
)
from robustjax.detection import BitDepth, FeatureSqueezing, accepted_and_wrong, with_score
from robustjax.evaluation import curve, evaluate, journal
from robustjax.losses import margin
from robustjax.threats import L2, Linf

N = 40
IMAGES = np.random.default_rng(0).uniform(0.2, 0.8, (N, 4, 4, 1)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
LABELS = (IMAGES.reshape(N, -1) @ W).argmax(-1)
LABELS[:3] = (LABELS[:3] + 1) % 3
WEAK = PGD(Linf(0.06), steps=2, rel_step=1.0)
ATTACKS = {
    "weak": Restarts(WEAK, 3),
    "both/nested": WorstOf((FGSM(Linf(0.05)), Restarts(WEAK, 2))),
}


def apply(w, x):
    return x.reshape(len(x), -1) @ w


def run(folder=None, attacks=ATTACKS, w=W, seed=0, **more):
    subject = jax.tree_util.Partial(apply, w), IMAGES, LABELS, attacks
    key = jax.random.key(seed)
    return evaluate(*subject, key, batch_size=8, journal=folder, diagnose=False, **more)


def same(a, b):
    for name in ATTACKS:
        np.testing.assert_array_equal(a.adversarial[name], b.adversarial[name])
        for part in a.examples[name]:
            np.testing.assert_array_equal(a.examples[name][part], b.examples[name][part])
        for x, y in zip(a.stages[name], b.stages[name], strict=True):
            assert {**x, "seconds": 0} == {**y, "seconds": 0}
    assert (a.clean, a.robust, a.worst_case) == (b.clean, b.robust, b.worst_case)


@pytest.fixture(scope="module")
def whole():
    return run()


class Killed(Exception):
    pass


def test_killed_at_any_snapshot_the_report_is_the_same(whole, tmp_path, monkeypatch):
    """Killed again and again, just after each snapshot, until it comes through."""
    monkeypatch.setattr(journal, "INTERVAL", 0.0)
    save, deaths = journal.FileStore.save, 0

    def save_and_die(store, take, last):
        before = os.stat(store.path).st_mtime_ns if store.path.exists() else None
        save(store, take, last)
        if before != os.stat(store.path).st_mtime_ns:
            raise Killed

    monkeypatch.setattr(journal.FileStore, "save", save_and_die)
    while True:
        try:
            result = run(tmp_path)
            break
        except Killed:
            deaths += 1
    assert deaths > 20
    same(result, whole)
    same(run(tmp_path), whole)


def test_another_tile_takes_over_what_is_done(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "INTERVAL", 0.0)
    save, calls = journal.FileStore.save, []

    def save_and_die(store, take, last):
        save(store, take, last)
        calls.append(last)
        if len(calls) == 2:
            raise Killed

    monkeypatch.setattr(journal.FileStore, "save", save_and_die)
    with pytest.raises(Killed):
        run(tmp_path)
    subject = jax.tree_util.Partial(apply, W), IMAGES, LABELS, ATTACKS, jax.random.key(0)
    same(evaluate(*subject, batch_size=16, journal=tmp_path, diagnose=False), whole)


def test_a_folder_is_found_by_all_that_decides_the_result(tmp_path):
    def folders():
        return len(list(tmp_path.iterdir()))

    alone = {"weak": ATTACKS["weak"]}
    run(tmp_path, alone)
    run(tmp_path, alone)
    assert folders() == 1
    run(tmp_path, alone, w=2 * W)
    run(tmp_path, alone, seed=1)
    run(tmp_path, {"weak": Restarts(WEAK, 4)})
    run(tmp_path, alone, success=never)
    assert folders() == 5
    run(tmp_path, {"fgsm": FGSM(Linf(0.05)), "renamed": ATTACKS["weak"]})
    assert folders() == 6


def test_what_is_done_is_not_attacked_again_in_other_company(tmp_path, monkeypatch):
    """Neither by an attack beside it or another name, nor because another evaluation is safe."""
    whole, kept = run(), journal.Journal(tmp_path)
    run(tmp_path)
    run(kept, {"fgsm": FGSM(Linf(0.05))})
    kept.clear()
    with monkeypatch.context() as context:
        context.setattr(journal.FileStore, "save", None)  # nothing is crafted
        found = run(tmp_path, {"first": ATTACKS["weak"]})
    assert found.robust["first"] == whole.robust["weak"]
    kept = journal.Journal(tmp_path)
    run(kept)
    kept.clear()
    assert not tmp_path.exists()


def test_a_killed_curve_resumes(tmp_path, monkeypatch):
    """Each radius has its own snapshots, and a minimum-norm attack's one run too."""
    radii, subject = [0.02, 0.04, 0.06], (jax.tree_util.Partial(apply, W), IMAGES, LABELS)
    for attack, runs in ((WEAK, 3), (DDN(L2(1.0), steps=5), 1)):
        how = {"key": jax.random.key(0), "journal": tmp_path / type(attack).__name__}
        whole = curve(*subject, attack, radii, **how)
        assert len(list(how["journal"].iterdir())) == runs
        with monkeypatch.context() as context:
            context.setattr(journal.FileStore, "save", None)
            assert curve(*subject, attack, radii, **how) == whole


def never(output, y):
    return output[0] > 1e9


def scaled(factor):
    @jax.jit
    def loss(output, target):
        return (factor * margin(output, target)).sum()

    return loss


def test_an_edited_loss_is_not_given_the_snapshots_of_the_old_one(tmp_path):
    """The name stays; the body, a number or an array that it closes over does not."""
    factors = 1.0, -1.0, np.ones(1, np.float32), -np.ones(1, np.float32)
    for loss in (*map(scaled, factors), functools.partial(margin)):
        attacks = {"edited": PGD(Linf(0.06), steps=3, loss=loss)}
        assert run(tmp_path, attacks).robust == run(None, attacks).robust
    assert len(list(tmp_path.iterdir())) == 5
    written = run(None, attacks).attacks["edited"]["fields"]["loss"]
    assert written == {"partial": "margin", "args": [], "keywords": {}}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Plain:
    """An attack of one step that is no config."""

    threat: Linf
    size: float

    def __call__(self, logits_fn, key, x, y, target=None):
        gradient = jax.grad(lambda z: margin(logits_fn(z), y))(x)
        return self.threat.step(x, gradient, self.size, x)


def test_an_attack_that_is_no_config_is_known_by_its_numbers_too(tmp_path):
    for size in (0.0, 0.05):
        found = run(tmp_path, {"plain": Plain(Linf(0.05), size)})
        assert found.attacks["plain"]["fields"]["size"] == size
        assert (
            found.robust["plain"] == run(None, {"plain": Plain(Linf(0.05), size)}).robust["plain"]
        )
    assert found.robust["plain"] < found.clean


def test_a_detector_with_other_flags_is_another_model(tmp_path):
    """A flag is no array, and the logits are those of the classifier, whatever watches it."""
    for bits in (1, 2):
        squeezing = FeatureSqueezing((BitDepth(bits),))
        watched = with_score(squeezing.fit(jax.tree_util.Partial(apply, W), IMAGES, LABELS), -0.1)
        subject = watched, IMAGES, LABELS, {"weak": WEAK}, jax.random.key(0)
        evaluate(*subject, success=accepted_and_wrong, journal=tmp_path, diagnose=False)
    assert len(list(tmp_path.iterdir())) == 2


def test_no_two_stages_share_a_file(tmp_path):
    names = ("a/b", "a_b", "a", "a-0", "..")
    attacks = {name: PGD(Linf(0.02 * i), steps=2) for i, name in enumerate(names)}
    attacks["a"] = Restarts(WEAK, 2)
    assert run(tmp_path, attacks).robust == run(None, attacks).robust


def test_a_torn_snapshot_says_what_to_do(tmp_path):
    run(tmp_path, {"weak": ATTACKS["weak"]})
    file = next(tmp_path.rglob("stage,0.npz"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"stage,0.npz is damaged.*delete it, and this stage"):
        run(tmp_path)
    np.savez(file, *[np.zeros(3)] * 4)
    with pytest.raises(ValueError, match="delete it"):
        run(tmp_path)
    file.unlink()
    run(tmp_path)


PROGRAM = """
import sys, json, time, jax, numpy as np
sys.path.insert(0, sys.argv[2])
import test_evaluation_journal as t
from robustjax.attacks._engine.slots import SnapshotStore
from robustjax.evaluation import journal
journal.INTERVAL = 0.0
save = journal.FileStore.save
def slow(store, take, last):
    save(store, take, last)
    print("saved", flush=True)
    time.sleep(0.02)
journal.FileStore.save = slow
report = t.run(sys.argv[1])
print(json.dumps(report.robust), flush=True)
"""


def test_sigkill_at_a_random_moment(whole, tmp_path):
    """The process itself is killed while it works, and another one ends the job."""

    def start():
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(Path(__file__).parent)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with start() as first:
        for _ in range(3):
            assert first.stdout.readline() == "saved\n"
        time.sleep(np.random.default_rng().uniform(0, 0.05))
        first.send_signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
    with start() as second:
        output, _ = second.communicate(timeout=120)
    assert json.loads(output.splitlines()[-1]) == pytest.approx(whole.robust)
    assert len(list(tmp_path.iterdir())) == 2  # it resumed, and did not start over
