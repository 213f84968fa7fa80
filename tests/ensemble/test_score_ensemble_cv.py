"""ScoreEnsembleCV: planted weights are found, ties and refits are as promised."""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
from planted import FromColumn, logged, members, table
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold

from sk_asd.detectors import KNNDetector, MahalanobisDetector
from sk_asd.ensemble import ScoreEnsemble, ScoreEnsembleCV, simplex_grid
from sk_asd.metrics import dcase_score, dcase_scorer, dcase_scores
from sk_asd.model_selection import NormalTrainSplit


@pytest.fixture
def clips():
    return table()


@pytest.fixture
def planted():
    """Three members whose noise cancels at weights of 3, 4 and 5 twelfths and nowhere else."""
    clips = table(sections=("00",), n_train=60, n_test=60, columns="")
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(len(clips), 2))
    train = (clips.split == "train").to_numpy()
    # Of the training clips uncorrelated and of deviation 1, so that standardising changes nothing.
    noise -= noise[train].mean(axis=0)
    noise = noise @ np.linalg.inv(np.linalg.cholesky(np.cov(noise[train].T, bias=True))).T
    shift = 0.01 * (clips.label == "anomaly")
    return clips.assign(
        a=noise[:, 0] - shift,
        b=noise[:, 1] - shift,
        c=-(0.6 * noise[:, 0] + 0.8 * noise[:, 1]) - shift,
    )


def test_planted_weights_are_found(planted):
    search = ScoreEnsembleCV(members(), step=1 / 12).fit(planted)
    np.testing.assert_allclose(search.best_weights_, np.array([3, 4, 5]) / 12)
    assert search.best_score_ == 1
    assert np.sort(search.cv_results_["mean_test_score"])[-2] < 0.9
    test = planted[planted.split == "test"]
    assert dcase_score(test, search.score_samples(test)) == 1


@pytest.mark.parametrize(
    "scoring",
    [
        "dcase",
        "auc_source",
        "auc_target",
        "pauc",
        pytest.param(dcase_scorer, id="scorer"),
        pytest.param(functools.partial(dcase_scorer, rules=2020), id="scorer of 2020"),
        "roc_auc",
        pytest.param(
            lambda estimator, X, y: estimator.score_samples(X[1:5])[y[1:5] == 1].mean(), id="own"
        ),
    ],
)
def test_the_same_as_grid_search(clips, scoring):
    """Computed at once or one by one, the scores are those of GridSearchCV."""
    y = np.where(clips.label == "anomaly", -1, 1)
    columns = {"dcase": "hmean", "auc_source": "auc_source", "auc_target": "auc_target"}
    column = {**columns, "pauc": "pauc"}.get(scoring) if isinstance(scoring, str) else None
    slow = scoring
    if column is not None:

        def slow(estimator, X, y):
            return dcase_scores(X, estimator.score_samples(X))[column].iloc[-1]

    expected = GridSearchCV(
        ScoreEnsemble(members()),
        {"weights": simplex_grid(3, 0.25)},
        scoring=slow,
        cv=NormalTrainSplit(),
        refit=False,
    ).fit(clips, y)
    search = ScoreEnsembleCV(members(), step=0.25, scoring=scoring).fit(clips, y)
    for key in ("split0_test_score", "mean_test_score", "std_test_score"):
        np.testing.assert_allclose(
            search.cv_results_[key], expected.cv_results_[key], rtol=0, atol=1e-14
        )
    assert search.best_params_ == expected.best_params_
    assert search.cv_results_["params"] == expected.cv_results_["params"]


def test_several_splits(clips):
    """The mean over the splits, and a refit to the training clips of all."""
    train = (clips.split == "train").to_numpy()
    test = np.flatnonzero(~train)
    splits = [(np.flatnonzero(train)[i::2], test) for i in range(2)]
    search = ScoreEnsembleCV(members(), step=0.5, cv=splits).fit(clips)
    expected = GridSearchCV(
        ScoreEnsemble(members()),
        {"weights": simplex_grid(3, 0.5)},
        scoring=dcase_scorer,
        cv=splits,
        refit=False,
    ).fit(clips)
    assert search.n_splits_ == 2
    for key in ("split0_test_score", "split1_test_score", "mean_test_score"):
        np.testing.assert_allclose(search.cv_results_[key], expected.cv_results_[key])
    alone = ScoreEnsemble(members(), weights=search.best_weights_).fit(clips[train])
    np.testing.assert_array_equal(search.score_samples(clips), alone.score_samples(clips))


def test_the_best_estimator_is_a_plain_ensemble(clips, tmp_path):
    log = tmp_path / "log"
    search = ScoreEnsembleCV(members(str(log)), step=0.25, contamination=0.2).fit(clips)
    # Fitted once, for the search and for good; asked about training and test clips.
    assert logged(log) == [
        *(f"fit {member}" for member in "abc"),
        *(f"score {member}" for member in "aabbcc"),
    ]
    train = clips[clips.split == "train"]
    weights = search.best_params_["weights"]
    alone = ScoreEnsemble(members(str(log)), weights=weights, contamination=0.2).fit(train)
    best = search.best_estimator_
    assert best.get_params(deep=False).keys() == alone.get_params(deep=False).keys()
    assert best.weights == weights
    assert best.offset_ == alone.offset_ == search.offset_
    np.testing.assert_array_equal(search.training_scores_, alone.training_scores_)
    for method in ("score_samples", "decision_function", "predict", "contributions"):
        np.testing.assert_array_equal(getattr(search, method)(clips), getattr(alone, method)(clips))


def test_results_are_a_table(clips):
    search = ScoreEnsembleCV(members(), step=0.25).fit(clips)
    results = pd.DataFrame(search.cv_results_)
    assert len(results) == 15
    best = results.loc[search.best_index_]
    assert best["rank_test_score"] == 1
    assert best["mean_test_score"] == search.best_score_ == results["mean_test_score"].max()
    assert best[["weight_a", "weight_b", "weight_c"]].tolist() == search.best_weights_.tolist()
    assert best["params"] == search.best_params_


def test_ties_go_to_the_most_uniform_weights():
    clips = table(columns="")
    level = np.where(clips.label == "anomaly", -5.0, 0.0) + np.random.default_rng(0).random(
        len(clips)
    )
    search = ScoreEnsembleCV(members(), step=0.25).fit(clips.assign(a=level, b=level, c=level))
    assert search.best_weights_.tolist() == [0.5, 0.25, 0.25]
    assert set(search.cv_results_["rank_test_score"]) == {1}
    # Half the weight on a member that is wrong undoes the others, a quarter does not.
    search.fit(clips.assign(a=-level, b=level, c=level))
    assert search.best_weights_.tolist() == [0.25, 0.5, 0.25]
    assert search.best_score_ == 1


def test_dropped_member(clips):
    search = ScoreEnsembleCV([*members(columns="ab"), ("old", "drop")], step=0.5).fit(clips)
    assert len(search.cv_results_["params"]) == 3
    assert search.best_weights_[2] == 0
    two = ScoreEnsembleCV(members(columns="ab"), step=0.5).fit(clips)
    np.testing.assert_array_equal(search.best_weights_[:2], two.best_weights_)
    np.testing.assert_array_equal(search.score_samples(clips), two.score_samples(clips))


def test_without_refit(clips):
    search = ScoreEnsembleCV(members(), step=0.5, refit=False).fit(clips)
    assert not hasattr(search, "best_estimator_")
    assert not hasattr(search, "score_samples")
    with pytest.raises(AttributeError, match="has no attribute 'predict'"):
        search.predict(clips)


def test_frozen_members_and_cross_fitting(clips):
    train = clips[clips.split == "train"]
    pair = [("a", FrozenEstimator(FromColumn("a").fit(train))), ("b", FromColumn("b"))]
    search = ScoreEnsembleCV(pair, step=0.5, crossfit=2, by=["machine", "section"]).fit(clips)
    best = search.best_estimator_
    assert best.estimators_[0] is pair[0][1]
    assert best.crossfit == 2
    assert set(best.means_) == {("fan", "00"), ("fan", "01")}


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"scoring": "h_mean"}, ValueError, r"'scoring' must be one of \['dcase', .*'h_mean'"),
        ({"step": 0.3}, ValueError, "step=0.3 does not divide 1"),
        ({"labels": "none"}, ValueError, "'labels' parameter"),
        ({"estimators": []}, ValueError, "non-empty list"),
        ({"scoring": lambda e, X, y: float("nan")}, ValueError, "gave NaN"),
    ],
)
def test_wrong_parameters(clips, params, error, message):
    with pytest.raises(error, match=message):
        ScoreEnsembleCV(members(), step=0.5).set_params(**params).fit(clips)


def test_metrics_say_what_they_miss(clips):
    with pytest.raises(ValueError, match="lack the column 'machine'"):
        ScoreEnsembleCV(members(), step=0.5, by=None).fit(clips.drop(columns="machine"))
    with pytest.raises(ValueError, match="No test clips"):
        ScoreEnsembleCV(members(), step=0.5).fit(clips[clips.split == "train"])
    with pytest.raises(TypeError, match="needs a clip table"):
        ScoreEnsembleCV(members(), by=None).fit(np.zeros((4, 2)))


def test_plain_arrays_with_a_scorer_of_scikit_learn():
    rng = np.random.default_rng(0)
    y = np.where(np.arange(60) % 3 == 0, -1, 1)
    X = rng.normal(size=(60, 4)) + 2 * (y == -1)[:, None]
    pair = [("knn", KNNDetector()), ("spread", MahalanobisDetector())]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search = ScoreEnsembleCV(pair, step=0.5, scoring="roc_auc", cv=KFold(3), by=None).fit(X, y)
    expected = GridSearchCV(
        ScoreEnsemble(pair, by=None),
        {"weights": simplex_grid(2, 0.5)},
        scoring="roc_auc",
        cv=KFold(3),
    ).fit(X, y)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )
    np.testing.assert_allclose(search.score_samples(X), expected.score_samples(X))
    assert search.n_features_in_ == 4
