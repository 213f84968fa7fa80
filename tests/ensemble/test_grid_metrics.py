"""Metrics of many weights at once against the official ones, one by one."""

import functools

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from sk_asd.ensemble._grid_metrics import GridMetric, metric_of
from sk_asd.ensemble._simplex import combine, grid_weights, normalized
from sk_asd.metrics import dcase_scorer, dcase_scores

WEIGHTS = normalized(grid_weights(3, 0.5))


def draw(seed, ties):
    """A hundred labelled clips of two machines, and scores of three members."""
    rng = np.random.default_rng(seed)
    clips = pd.DataFrame(
        {
            "machine": np.repeat(["fan", "valve"], 50),
            "section": np.tile(np.repeat(["00", "01"], [20, 30]), 2),
            "domain": rng.permutation(np.tile(["source", "target"], 50)),
            "label": np.tile(["normal", "normal", "anomaly", "normal", "anomaly"], 20),
            "split": "test",
        }
    ).sample(frac=1, random_state=seed, ignore_index=True)
    matrix = rng.normal(size=(100, 3))
    if ties:
        matrix = np.round(matrix)
        matrix[rng.integers(0, 100, 40)] = matrix[rng.integers(0, 100, 40)]
    return clips, matrix


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("rules", "max_fpr", "columns"),
    [
        (2022, 0.1, ["hmean", "auc_source", "auc_target", "pauc"]),
        (2022, 0.37, ["pauc"]),
        (2022, 1, ["pauc"]),
        (2021, 0.1, ["hmean", "auc_target", "pauc_source"]),
        (2020, 0.1, ["mean", "auc", "pauc"]),
    ],
)
def test_equals_the_official_table(rules, max_fpr, columns, ties):
    clips, matrix = draw(rules, ties)
    tables = [
        dcase_scores(clips, combine(matrix, w), rules=rules, max_fpr=max_fpr) for w in WEIGHTS
    ]
    for column in columns:
        metric = GridMetric(clips, rules=rules, column=column, max_fpr=max_fpr)
        expected = [table[column].iloc[-1] for table in tables]
        np.testing.assert_allclose(metric(matrix, WEIGHTS), expected, rtol=0, atol=1e-14)


def test_some_settings_with_ties_and_some_without():
    clips, matrix = draw(0, ties=False)
    matrix[:, 0] = np.round(matrix[:, 0])
    metric = GridMetric(clips, **metric_of("dcase"))
    expected = [dcase_scores(clips, combine(matrix, w))["hmean"].iloc[-1] for w in WEIGHTS]
    np.testing.assert_allclose(metric(matrix, WEIGHTS), expected, rtol=0, atol=1e-14)


def test_all_scores_equal():
    clips, matrix = draw(0, ties=False)
    for column, chance in (("auc_source", 0.5), ("pauc", 0.5), ("hmean", 0.5)):
        metric = GridMetric(clips, rules=2022, column=column, max_fpr=0.1)
        np.testing.assert_allclose(metric(matrix * 0, WEIGHTS), chance)


def test_auc_of_one_section_is_that_of_scikit_learn():
    clips, matrix = draw(1, ties=True)
    clips["section"], clips["machine"] = "00", "fan"
    values = GridMetric(clips, **metric_of("auc"))(matrix, WEIGHTS)
    expected = [roc_auc_score(clips.label == "normal", combine(matrix, w)) for w in WEIGHTS]
    np.testing.assert_allclose(values, expected, atol=1e-14)


def test_worst_case_is_floored():
    """An AUC of 0 makes the harmonic mean almost 0, not undefined."""
    clips, matrix = draw(0, ties=False)
    matrix[:, :] = np.where(clips.label == "normal", -1.0, 1.0)[:, None]
    values = GridMetric(clips, **metric_of("dcase"))(matrix, WEIGHTS)
    expected = dcase_scores(clips, matrix[:, 0])["hmean"].iloc[-1]
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    assert 0 < expected < 1e-14


def test_section_without_target_clips():
    clips, matrix = draw(0, ties=False)
    clips.loc[clips.section == "00", "domain"] = "source"
    for column in ("hmean", "auc_target"):
        expected = [dcase_scores(clips, combine(matrix, w))[column].iloc[-1] for w in WEIGHTS]
        metric = GridMetric(clips, rules=2022, column=column, max_fpr=0.1)
        np.testing.assert_allclose(metric(matrix, WEIGHTS), expected, atol=1e-14)
    clips["domain"] = "source"
    with pytest.raises(ValueError, match="No section has test clips for the metric 'auc_target'"):
        GridMetric(clips, rules=2022, column="auc_target", max_fpr=0.1)


@pytest.mark.parametrize("rules", [2020, 2021, 2022, None])
@pytest.mark.filterwarnings("ignore:An AUC needs both classes", "ignore:No test clip has a domain")
def test_sections_without_figures(rules):
    """A machine of normal clips, a section of anomalies, and no domains where the rules say so."""
    clips, matrix = draw(0, ties=False)
    first, *_, last = dict.fromkeys(zip(clips["machine"], clips["section"]))
    place = pd.Series(list(zip(clips["machine"], clips["section"])), index=clips.index)
    normal = clips["machine"] == last[0]
    gone = (normal & (clips["label"] == "anomaly")) | (
        (place == first) & (clips["label"] == "normal")
    )
    clips, matrix = clips[~gone].reset_index(drop=True), matrix[~gone.to_numpy()]
    if rules is None:
        clips = clips.drop(columns="domain")
    expected = [dcase_scores(clips, combine(matrix, w), rules=rules).iloc[-1, -1] for w in WEIGHTS]
    metric = GridMetric(clips, rules=rules, column="total", max_fpr=0.1)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(metric(matrix, WEIGHTS), expected, atol=1e-14)


def test_training_clips_do_not_count():
    clips, matrix = draw(0, ties=False)
    expected = GridMetric(clips, **metric_of("dcase"))(matrix, WEIGHTS)
    more = pd.concat([clips.assign(split="train"), clips], ignore_index=True)
    matrix = np.vstack([matrix[::-1], matrix])
    np.testing.assert_array_equal(GridMetric(more, **metric_of("dcase"))(matrix, WEIGHTS), expected)


def test_threads_make_no_difference():
    clips, matrix = draw(0, ties=False)
    weights = normalized(grid_weights(3, 0.01))
    metric = GridMetric(clips, **metric_of("dcase"))
    np.testing.assert_array_equal(metric(matrix, weights), metric(matrix, weights, n_jobs=2))


def test_what_can_be_computed_at_once():
    assert metric_of("pauc") == {"rules": 2022, "column": "pauc", "max_fpr": 0.1}
    assert metric_of(dcase_scorer) == metric_of("dcase") == metric_of("hmean")
    partial = functools.partial(dcase_scorer, rules=2020, max_fpr=0.2)
    assert metric_of(partial) == {"rules": 2020, "column": "total", "max_fpr": 0.2}
    assert metric_of("roc_auc") is None
    assert metric_of(lambda estimator, X, y: 0) is None
    assert metric_of(functools.partial(dcase_scorer, y=None)) is None
