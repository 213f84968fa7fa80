import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline

from sk_asd.metrics import anomaly_score, dcase_score, dcase_scorer
from sk_asd.model_selection import NormalTrainSplit


class ToyDetector(OutlierMixin, BaseEstimator):
    """Nearest-neighbour detector on two numbers a clip; `axis` 1 holds nothing but noise."""

    def __init__(self, axis=0):
        self.axis = axis

    def _features(self, X):
        return np.stack(list(X["audio"]))[:, [self.axis]] if hasattr(X, "columns") else X

    def fit(self, X, y=None):
        assert y is None
        self.n_clips_ = len(X)
        self.index_ = NearestNeighbors(n_neighbors=1).fit(self._features(X))
        return self

    def score_samples(self, X):
        self.n_scored_ = len(X)
        return -self.index_.kneighbors(self._features(X))[0][:, 0]


@pytest.fixture
def clips():
    rng = np.random.default_rng(0)
    rows = []
    for split, label, n in (
        ("train", "normal", 20),
        ("test", "normal", 10),
        ("test", "anomaly", 10),
        ("train", "anomaly", 5),
    ):
        for domain in ("source", "target"):
            for _ in range(n):
                shift = 4.0 if label == "anomaly" else 0.0
                rows.append(
                    {
                        "audio": rng.normal(size=2) + [shift, 0.0],
                        "machine": "fan",
                        "section": "00",
                        "domain": domain,
                        "split": split,
                        "label": label,
                    }
                )
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_anomaly_score_turns_the_sign(clips):
    train = clips[clips["split"] == "train"]
    detector = ToyDetector().fit(train)
    scores = anomaly_score(detector, clips)
    np.testing.assert_array_equal(scores, -detector.score_samples(clips))
    assert scores.dtype == np.float64

    class Float32:
        def score_samples(self, X):
            return np.array([0.5, -1.0], dtype=np.float32)

    assert anomaly_score(Float32(), None).tolist() == [-0.5, 1.0]
    assert anomaly_score(Float32(), None).dtype == np.float64


def test_scorer_is_the_score_of_the_test_clips(clips):
    detector = ToyDetector().fit(clips[clips.eval("split == 'train' and label == 'normal'")])
    expected = dcase_score(clips, detector.score_samples(clips))
    assert dcase_scorer(detector, clips) == expected
    assert detector.n_scored_ == 40
    assert dcase_scorer(detector, clips[clips["split"] == "test"]) == expected
    assert dcase_scorer(detector, clips.drop(columns="split"), None) != expected


@pytest.mark.parametrize("n_jobs", [None, 1])
def test_grid_search_on_a_clip_table(clips, n_jobs):
    search = GridSearchCV(
        ToyDetector(),
        {"axis": [1, 0]},
        scoring=dcase_scorer,
        cv=NormalTrainSplit(),
        n_jobs=n_jobs,
        error_score="raise",
    ).fit(clips)
    assert search.best_params_ == {"axis": 0}
    assert search.best_score_ > 0.9
    normal = clips[clips.eval("split == 'train' and label == 'normal'")]
    for params, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"]):
        assert score == dcase_scorer(ToyDetector(**params).fit(normal), clips)


def test_other_rules(clips):
    scorer = pickle.loads(pickle.dumps(partial(dcase_scorer, rules=2020)))
    (score,) = cross_val_score(ToyDetector(), clips, scoring=scorer, cv=NormalTrainSplit())
    detector = ToyDetector().fit(clips[clips.eval("split == 'train' and label == 'normal'")])
    assert score == dcase_score(clips, detector.score_samples(clips), rules=2020)


def test_grid_search_on_labelled_features(clips):
    class Plain(ToyDetector):
        def _features(self, X):
            return np.asarray(X)

    array = xr.DataArray(
        np.stack(list(clips["audio"])),
        dims=("clip", "feature"),
        coords={
            c: ("clip", clips[c].to_numpy(dtype=object)) for c in clips.columns if c != "audio"
        },
    )

    class Keep(PCA):
        """PCA on plain values."""

    search = GridSearchCV(
        make_pipeline(Keep(), Plain()),
        {"keep__n_components": [1, 2]},
        scoring=dcase_scorer,
        cv=NormalTrainSplit(),
        error_score="raise",
    ).fit(array)
    assert search.best_score_ > 0.8
    assert search.best_estimator_[-1].n_clips_ == len(clips)
