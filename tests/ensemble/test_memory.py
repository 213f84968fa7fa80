"""What is kept on disk: computed once, found again, and never for other contents."""

import copy
import io
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
import xarray as xr
from planted import logged, members, table
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV

from sk_asd.detectors import KNNDetector
from sk_asd.embedders import SectionEmbedder
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble, ScoreEnsembleCV, simplex_grid
from sk_asd.ensemble._memory import call_once, content_key
from sk_asd.metrics import dcase_scorer
from sk_asd.model_selection import NormalTrainSplit


@pytest.fixture
def clips():
    return table()


@pytest.fixture
def train(clips):
    return clips[clips.split == "train"]


def test_members_are_fitted_and_asked_once_for_all_weights(clips, train, tmp_path):
    log, memory = tmp_path / "log", str(tmp_path / "memory")
    for weights in simplex_grid(2, 0.25):
        plain = ScoreEnsemble(members(columns="ab"), weights=weights).fit(train)
        ensemble = ScoreEnsemble(members(str(log), "ab"), weights=weights, memory=memory)
        scores = ensemble.fit(train).score_samples(clips)
        np.testing.assert_array_equal(scores, plain.score_samples(clips))
        np.testing.assert_array_equal(ensemble.training_scores_, plain.training_scores_)
    # Fitted to and asked about the training clips, and asked about all.
    assert logged(log) == ["fit a", "fit b", "score a", "score a", "score b", "score b"]


def test_other_parameters_and_clips_are_other_results(clips, train, tmp_path):
    log = str(tmp_path / "log")
    ensemble = ScoreEnsemble(members(log, "a"), memory=joblib.Memory(tmp_path, verbose=0))
    ensemble.fit(train)
    ensemble.set_params(a__column="b").fit(train)
    assert ensemble.means_["fan", "00"] == pytest.approx(train["b"][train.section == "00"].mean())
    ensemble.fit(train.assign(b=0.5 * train["b"]))
    assert ensemble.scales_["fan", "00"] == pytest.approx(train["b"][:12].std(ddof=0) / 2)
    ensemble.set_params(crossfit=2).fit(train)
    assert [line for line in logged(log) if line.startswith("fit")] == ["fit a"] + 5 * ["fit b"]
    # The index is no content.
    clone(ensemble).fit(train.reset_index(drop=True))
    assert [line for line in logged(log) if line.startswith("fit")] == ["fit a"] + 5 * ["fit b"]


def test_a_file_that_has_changed_is_other_contents(train, tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"one")
    clips = train.assign(path=str(path))
    before = content_key(clips)
    assert content_key(clips.copy()) == before
    path.write_bytes(b"other")
    assert content_key(clips) != before


def test_what_counts_of_containers(train):
    array = np.random.default_rng(0).normal(size=(4, 3))
    labelled = xr.DataArray(array, dims=("clip", "mel"), coords={"section": ("clip", list("abcd"))})
    audio = train[:4].assign(audio=list(array))
    same = {
        "array": (array, np.asfortranarray(array), array[::-1][::-1]),
        "labelled": (labelled, labelled.copy(deep=True), pickle.loads(pickle.dumps(labelled))),
        "table": (train, train.set_index("path", drop=False), pickle.loads(pickle.dumps(train))),
        "audio": (audio, audio.assign(audio=[row.copy() for row in array])),
    }
    other = {
        "array": array + 1,
        "labelled": labelled.assign_coords(section=("clip", list("abce"))),
        "table": train.assign(domain="source"),
        "audio": audio.assign(audio=list(array[::-1])),
    }
    digests = {name: {content_key(thing) for thing in things} for name, things in same.items()}
    assert all(len(found) == 1 for found in digests.values()), digests
    assert all(content_key(other[name]) not in found for name, found in digests.items())


def test_a_frozen_network_is_known_after_a_journey():
    X = np.random.default_rng(0).normal(size=(16, 8, 20)).astype(np.float32)
    y = np.arange(16) % 2
    embedder = SectionEmbedder(
        "cnn6", n_frames=None, max_epochs=1, module__embedding_dim=4, random_state=0
    ).fit(X, y)
    file = io.BytesIO()
    joblib.dump(embedder, file)
    file.seek(0)
    expected = content_key(FrozenEstimator(embedder))
    assert content_key(FrozenEstimator(joblib.load(file))) == expected
    other = copy.deepcopy(embedder)
    next(other.net_.module_.parameters()).data[0] += 1
    assert content_key(FrozenEstimator(other)) != expected


def test_whoever_comes_second_waits(tmp_path):
    calls = []

    def slow(value):
        calls.append(threading.get_ident())
        time.sleep(0.3)
        return value + 1

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: call_once(str(tmp_path), "key", slow, 1), range(3)))
    assert found == [2, 2, 2]
    assert len(calls) == 1


def test_a_fitted_ensemble_does_without_its_memory(clips, train, tmp_path):
    memory = tmp_path / "memory"
    ensemble = ScoreEnsemble(members(), memory=str(memory)).fit(train)
    expected = ensemble.score_samples(clips)
    memory.rename(tmp_path / "elsewhere")
    np.testing.assert_array_equal(ensemble.score_samples(clips), expected)
    assert not memory.exists()
    # Nor is one that was fitted without found out to have had none.
    ensemble = ScoreEnsemble(members()).fit(train).set_params(memory=str(memory))
    np.testing.assert_array_equal(ensemble.score_samples(clips), expected)


@pytest.mark.slow
def test_grid_search_end_to_end(tmp_path):
    """Two processes search 15 weights on a clip table; every member is fitted once."""
    clips = table(n_train=16)
    log = tmp_path / "log"
    grid = {"weights": simplex_grid(3, 0.25)}
    search = GridSearchCV(
        ScoreEnsemble(members(str(log)), memory=str(tmp_path / "memory")),
        grid,
        scoring=dcase_scorer,
        cv=NormalTrainSplit(),
        n_jobs=2,
        refit=False,
    )
    y = np.where(clips.label == "anomaly", -1, 1)
    search.fit(clips, y)
    assert [line for line in logged(log) if "fit" in line] == ["fit a", "fit b", "fit c"]
    # Once about its training clips, once about the test clips.
    assert [line for line in logged(log) if "score" in line] == [
        f"score {member}" for member in "aabbcc"
    ]
    assert np.ptp(search.cv_results_["mean_test_score"]) > 0.01

    # With a refit: that fits all clips, says so, and can score.
    search.set_params(refit=True)
    with pytest.warns(UserWarning, match="are labelled as anomalies"):
        search.fit(clips, y)
    assert len([line for line in logged(log) if "fit" in line]) == 6
    at_once = ScoreEnsembleCV(members(), step=0.25).fit(clips)
    assert at_once.best_params_ == search.best_params_
    np.testing.assert_allclose(
        at_once.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"], atol=1e-12
    )

    # In a new process, where the folder of the memory is gone.
    (tmp_path / "memory").rename(tmp_path / "gone")
    expected = [each.score_samples(clips) for each in (search, at_once)]
    joblib.dump((search, at_once, clips), tmp_path / "searches.joblib")
    code = (
        "import sys, joblib, numpy as np\n"
        "*searches, clips = joblib.load(sys.argv[1])\n"
        "np.save(sys.argv[2], [each.score_samples(clips) for each in searches])"
    )
    files = [str(tmp_path / name) for name in ("searches.joblib", "scores.npy")]
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", code, *files], check=True, env=environment)
    np.testing.assert_array_equal(np.load(files[1]), expected)


def test_grouped_members_on_labelled_arrays(tmp_path):
    """What a search over precomputed embeddings does."""
    clips = table(n_train=12, n_test=16)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(len(clips), 4)) + 2 * (clips.label == "anomaly").to_numpy()[:, None]
    coords = {name: ("clip", clips[name].to_numpy(dtype=object)) for name in clips if len(name) > 1}
    X = xr.DataArray(values, dims=("clip", "embedding"), coords=coords)
    pair = [
        ("near", GroupedDetector(KNNDetector(metric="euclidean"))),
        ("third", GroupedDetector(KNNDetector(3, metric="euclidean"))),
    ]
    options = {"scoring": dcase_scorer, "cv": NormalTrainSplit(), "refit": False}
    search = GridSearchCV(
        ScoreEnsemble(pair, memory=str(tmp_path)), {"weights": simplex_grid(2, 0.5)}, **options
    ).fit(X)
    at_once = ScoreEnsembleCV(pair, step=0.5).fit(X)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], at_once.cv_results_["mean_test_score"]
    )
