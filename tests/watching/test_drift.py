"""Drift: the promised rate of mistakes, planted drifts found, bounded memory."""

import pickle

import numpy as np
import pytest
from scipy.stats import binom, false_discovery_control, ks_2samp

from sk_asd.watching import DriftMonitor


def test_rate_of_mistakes_without_drift():
    rng = np.random.default_rng(0)
    drifted = []
    for _ in range(150):
        monitor = DriftMonitor(
            rng.normal(size=100), rng.normal(size=(100, 3)), n_recent=30, significance=0.1
        )
        (report,) = monitor.update(rng.normal(size=30), rng.normal(size=(30, 3)))
        drifted.append(report.drifted)
    assert sum(drifted) <= binom.ppf(0.999, 150, 0.1)
    assert any(drifted)


def test_p_values_are_those_of_scipy():
    rng = np.random.default_rng(1)
    scores, embeddings = rng.normal(size=50), rng.normal(size=(60, 4))
    new, rows = rng.normal(size=20), rng.normal(size=(20, 4)) + [0, 0, 0.5, 0]
    (report,) = DriftMonitor(scores, embeddings, n_recent=20).update(new, rows)
    assert report.p_scores == ks_2samp(scores, new, method="asymp").pvalue
    each = [
        ks_2samp(embeddings[:, i].astype("f4"), rows[:, i].astype("f4"), method="asymp").pvalue
        for i in range(4)
    ]
    assert report.p_embeddings == pytest.approx(false_discovery_control(each).min())
    assert report.p_value == min(1, 2 * min(report.p_scores, report.p_embeddings))


def test_embeddings_drift_where_scores_stay():
    rng = np.random.default_rng(2)
    scores, embeddings = rng.normal(size=200), rng.normal(size=(200, 6))
    moved = rng.normal(size=(50, 6)) + [0, 0, 2, 0, 0, 0]
    with_embeddings = DriftMonitor(scores, embeddings, n_recent=50, patience=1)
    (report,) = with_embeddings.update(rng.normal(size=50), moved)
    assert report.due
    assert report.p_scores > 0.01
    (report,) = DriftMonitor(scores, n_recent=50).update(rng.normal(size=50))
    assert not report.drifted
    assert report.p_embeddings is None


def test_due_after_comparisons_in_a_row():
    rng = np.random.default_rng(3)
    monitor = DriftMonitor(rng.normal(size=300), n_recent=40, patience=3)
    shifts = [2, 2, 0, 2, 2, 2, 2, 0]
    reports = [r for shift in shifts for r in monitor.update(rng.normal(size=40) + shift)]
    assert [r.drifted for r in reports] == [shift == 2 for shift in shifts]
    assert [r.due for r in reports] == [False] * 5 + [True, True, False]
    assert monitor.streak == 0


def test_parts_do_not_matter_and_memory_is_bounded():
    rng = np.random.default_rng(4)
    reference, today = rng.normal(size=5000), rng.normal(size=1000) + 0.3
    at_once = DriftMonitor(reference, n_recent=70, max_reference=200, random_state=0)
    expected = at_once.update(today)
    assert len(expected) == 1000 // 70
    one_by_one = DriftMonitor(reference, n_recent=70, max_reference=200, random_state=0)
    found, sizes = [], []
    for score in today:
        found += one_by_one.update([score])
        sizes.append(len(pickle.dumps(one_by_one)))
    assert found == expected
    assert max(sizes[70:]) <= max(sizes[:70]) + 10


def test_state():
    rng = np.random.default_rng(5)
    reference, today = rng.normal(size=100), rng.normal(size=50) + 3
    whole = DriftMonitor(reference, n_recent=20)
    expected = whole.update(today)
    first, second = DriftMonitor(reference, n_recent=20), DriftMonitor(reference, n_recent=20)
    found = first.update(today[:33])
    second.set_state(first.get_state())
    assert found + second.update(today[33:]) == expected
    with pytest.raises(ValueError, match="pickle"):
        DriftMonitor(reference, np.ones((2, 2))).get_state()


def test_refusals():
    with pytest.raises(ValueError, match="NaN"):
        DriftMonitor([0.0, np.nan])
    with pytest.raises(ValueError, match="minimum of 2"):
        DriftMonitor([0.0])
    with pytest.raises(ValueError, match="'significance'"):
        DriftMonitor([0.0, 1.0], significance=1.0)
    monitor = DriftMonitor([0.0, 1.0], np.eye(2))
    with pytest.raises(ValueError, match="give some here"):
        monitor.update([0.0])
    with pytest.raises(ValueError, match=r"shape \(1, 3\), expected \(1, 2\)"):
        monitor.update([0.0], np.ones((1, 3)))
