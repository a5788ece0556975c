"""Thresholds, AUC and rates, against scikit-learn and counting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from robustjax.detection import NOT_SURE, auc, decide, rates, roc, threshold_at, tpr_at_fpr

tied = st.lists(st.sampled_from([-1e30, -1.0, 0.0, 1e-30, 0.5, 1.0]), min_size=1, max_size=30)
RNG = np.random.default_rng(0)


@given(tied, tied)
def test_auc_is_that_of_scikit_learn_with_ties(positives, negatives):
    truth = np.repeat([1, 0], [len(positives), len(negatives)])
    expected = roc_auc_score(truth, np.concatenate([positives, negatives]))
    assert auc(positives, negatives) == pytest.approx(expected, abs=1e-12)
    assert auc(positives, negatives) + auc(negatives, positives) == pytest.approx(1, abs=1e-12)


def test_auc_of_infinite_scores_counts_pairs():
    assert auc([np.inf, 0.0], [-np.inf, np.inf]) == (0.5 + 1 + 0 + 1) / 4


def test_auc_of_separated_and_equal_populations():
    low, high = RNG.normal(size=500), RNG.normal(size=500)
    assert auc(low + 20, high) == 1 and auc(low - 20, high) == 0
    assert auc(low, high) == pytest.approx(0.5, abs=4 / np.sqrt(12 * 250))
    assert auc(np.ones(3), np.ones(9)) == 0.5


@given(tied, tied, st.sampled_from([0.0, 0.01, 0.1, 0.29, 0.5, 1.0]))
def test_tpr_at_fpr_is_the_best_point_of_the_curve(positives, negatives, limit):
    truth = np.repeat([1, 0], [len(positives), len(negatives)])
    scores = np.concatenate([positives, negatives])
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert tpr_at_fpr(positives, negatives, limit) == tpr[fpr <= limit + 1e-12].max()


@given(tied, tied)
def test_the_curve_is_that_of_scikit_learn_and_its_area_the_auc(positives, negatives):
    fpr, tpr = roc(positives, negatives)
    assert np.trapezoid(tpr, fpr) == pytest.approx(auc(positives, negatives))
    label = np.repeat([1, 0], [len(positives), len(negatives)])
    values = np.concatenate([positives, negatives])
    known = roc_curve(label, values, drop_intermediate=False)
    np.testing.assert_allclose((fpr, tpr), known[:2], atol=1e-12)


def test_the_curve_of_nothing_is_empty():
    assert all(part.size == 0 for part in roc([1.0], []))


@given(tied, st.sampled_from([0.0, 0.05, 0.1, 0.29, 0.9]))
def test_the_threshold_keeps_its_rate_and_is_the_largest(clean, rate):
    scores, allowed = np.array(clean), int(np.floor(rate * len(clean) + 1e-9))
    threshold = threshold_at(scores, rate)
    assert (scores < threshold).sum() <= allowed
    assert (scores < np.nextafter(threshold, np.inf)).sum() > allowed


def test_the_threshold_of_29_in_100_rejects_29():
    assert threshold_at(np.arange(100.0), 0.29) == 29
    assert threshold_at(np.arange(100.0), 1.0) == np.inf


def test_rejected_images_are_not_sure():
    np.testing.assert_array_equal(decide([4, 5, 6], [0.1, 0.2, 0.3], 0.2), [NOT_SURE, 5, 6])


LABEL = np.array([0, 1, 2, 0, 1, 2])
CLEAN = np.array([0, 1, 2, 0, 1, 0])  # the last is wrong
ADV = np.array([1, 1, 0, 2, 0, 1])  # the second resists
CLEAN_SCORE = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 9.0])
ADV_SCORE = np.array([4.0, 9.0, 1.0, 0.0, 2.0, 9.0])


def test_the_report_counts_pairs_of_right_and_fooled():
    found = rates(LABEL, CLEAN, CLEAN_SCORE, ADV, ADV_SCORE, threshold=2.0, fpr_limit=0.25)
    assert found.pairs == 4 and found.n == 6 and found.reasons == {}
    assert found.auc == auc([5, 3, 2, 1], [4, 1, 0, 2])
    assert (found.tpr, found.fpr, found.tpr_at_fpr) == (3 / 4, 2 / 4, 2 / 4)
    assert found.accepted_clean == 5 / 6 and found.clean_accuracy == 4 / 5
    assert found.accepted_wrong == 3 / 6


def test_robust_accuracy_counts_what_is_accepted_and_right_and_stays_so():
    found = rates(LABEL, CLEAN, CLEAN_SCORE, ADV, ADV_SCORE, threshold=2.0)
    assert found.robust_accuracy == 3 / 6  # the second resists, two adversarial ones are rejected
    assert rates(LABEL, CLEAN, CLEAN_SCORE, ADV, ADV_SCORE, threshold=99.0).robust_accuracy == 0


def test_detected_is_what_a_threshold_on_the_clean_images_rejects():
    label, clean = np.zeros(100, int), np.arange(100.0)
    found = rates(label, label, clean, label + 1, clean - 4.0, threshold=0.0)
    assert (found.detected_5, found.detected_1) == (9 / 100, 5 / 100)  # below 5 and below 1


def test_the_whole_population_on_request():
    found = rates(LABEL, CLEAN, CLEAN_SCORE, ADV, ADV_SCORE, threshold=2.0, population="all")
    assert found.pairs == 6 and found.auc == auc(CLEAN_SCORE, ADV_SCORE)


@pytest.mark.parametrize(
    ("clean", "adv", "reason"),
    [
        (CLEAN, LABEL, "no attack succeeded"),
        ((LABEL + 1) % 3, ADV, "no clean image is classified correctly"),
        (np.where(ADV == LABEL, LABEL, 3), ADV, "every adversarial image that fools"),
    ],
)
def test_an_empty_population_is_nan_with_its_reason(clean, adv, reason):
    found = rates(LABEL, clean, CLEAN_SCORE, adv, ADV_SCORE, threshold=0.0)
    assert found.pairs == 0
    for name in ("auc", "tpr", "fpr", "tpr_at_fpr"):
        assert np.isnan(getattr(found, name)) and reason in found.reasons[name]
    assert "accepted_wrong" not in found.reasons


def test_no_images_and_no_accepted_images_are_nan_too():
    nothing = rates([], [], [], [], [], threshold=0.0)
    assert set(nothing.reasons) == {
        "auc", "tpr", "fpr", "tpr_at_fpr", "accepted_clean", "clean_accuracy", "accepted_wrong",
        "detected_5", "detected_1", "robust_accuracy",
    }  # fmt: skip
    rejected = rates(LABEL, CLEAN, CLEAN_SCORE, ADV, ADV_SCORE, threshold=99.0)
    assert set(rejected.reasons) == {"clean_accuracy"} and rejected.accepted_wrong == 0
    assert np.isnan(auc([], [1.0])) and np.isnan(tpr_at_fpr([1.0], [], 0.1))


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match="without NaN"):
        auc([np.nan], [1.0])
    with pytest.raises(ValueError, match="empty"):
        threshold_at([], 0.1)
    with pytest.raises(ValueError, match="false_rejection"):
        threshold_at([1.0], 1.5)
    with pytest.raises(ValueError, match="clean_predictions must have the shape"):
        rates(LABEL, CLEAN[:5], CLEAN_SCORE, ADV, ADV_SCORE, threshold=0.0)
    with pytest.raises(ValueError, match="population"):
        rates(LABEL, CLEAN, CLEAN_SCORE, ADV, ADV_SCORE, threshold=0.0, population="some")
    with pytest.raises(ValueError, match="threshold must be a number"):
        rates(LABEL, CLEAN, CLEAN_SCORE, ADV, ADV_SCORE, threshold=np.nan)
    with pytest.raises(ValueError, match="threshold must be a number"):
        decide([1], [1.0], np.nan)
