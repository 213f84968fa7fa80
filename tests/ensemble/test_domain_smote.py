"""GroupedDetector(smote=...): synthetic clips of a domain that has few."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.metrics import roc_auc_score

from sk_asd.detectors import KNNDetector
from sk_asd.ensemble import GroupedDetector
from sk_asd.ensemble._smote import smote


def make_clips(n_source=100, n_target=10, seed=0):
    """A dense source domain, and a target domain of few clips along a line elsewhere."""
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(n_source, 3))
    target = np.array([20.0, 0, 0]) + rng.uniform(0, 20, (n_target, 1)) * [0, 1, 1]
    coords = {
        "section": ("clip", np.full(n_source + n_target, "00", dtype=object)),
        "domain": (
            "clip",
            np.array(["source"] * n_source + ["target"] * n_target, dtype=object),
        ),
    }
    values = np.vstack([source, target + 0.1 * rng.normal(size=target.shape)])
    return xr.DataArray(values, dims=("clip", "embedding"), coords=coords)


@pytest.fixture
def X():
    return make_clips()


def grouped(smote=0.3, **params):
    return GroupedDetector(
        KNNDetector(metric="euclidean"), over="domain", smote=smote, random_state=0, **params
    )


def test_synthetic_clips_lie_between_neighbours():
    X = np.random.default_rng(0).normal(size=(7, 4))
    drawn = smote(X, 200, 0)
    assert drawn.shape == (200, 4)
    distances = np.linalg.norm(X[:, None] - X, axis=2)
    pairs = [(i, j) for i in range(7) for j in np.argsort(distances[i])[1:3]]
    ways = []
    for row in drawn:
        on_line = []
        for i, j in pairs:
            way = (row - X[i]) @ (X[j] - X[i]) / distances[i, j] ** 2
            if np.allclose(X[i] + way * (X[j] - X[i]), row):
                on_line.append(way)
        assert on_line
        ways.append(on_line[0])
    assert min(ways) > 0
    assert max(ways) < 1
    assert np.std(ways) == pytest.approx(1 / np.sqrt(12), abs=0.05)
    np.testing.assert_array_equal(smote(X, 200, 0), drawn)
    # Two clips have one neighbour each.
    assert np.ptp(smote(X[:2], 5, 0) @ np.linalg.svd(X[:2] - X[1])[2][1:].T, axis=0).max() < 1e-9


def test_fills_up_to_the_share(X):
    detector = grouped().fit(X)
    target = detector.detectors_["00"]["target"]
    assert target.neighbors_.n_samples_fit_ == 30
    assert detector.detectors_["00"]["source"].neighbors_.n_samples_fit_ == 100
    new = make_clips(seed=1)
    nearest = np.max([d.score_samples(new) for d in detector.detectors_["00"].values()], axis=0)
    np.testing.assert_array_equal(detector.score_samples(new.drop_vars("domain")), nearest)
    # A tenth is there already.
    np.testing.assert_array_equal(
        grouped(0.1).fit(X).score_samples(new), grouped(None).fit(X).score_samples(new)
    )


def test_training_scores_are_those_of_refits_without_each_clip(X):
    detector = grouped().fit(X)
    own = detector.training_scores_
    for i in range(100, 110):
        refitted = grouped().fit(X[np.delete(np.arange(110), i)])
        assert refitted.score_samples(X[[i]])[0] == pytest.approx(own[i], rel=1e-9)
    # A clip of the source has no synthetic relatives.
    np.testing.assert_allclose(own[:100], grouped(None).fit(X).training_scores_[:100])
    # Synthetic clips on either side would vouch for a clip.
    vouched = detector.detectors_["00"]["target"].training_scores_[:10]
    assert own[100:].mean() < vouched.mean()


def test_threshold_flags_the_share_of_contamination(X):
    detector = grouped().fit(X)
    assert 0.05 < (detector.fit_predict(X) == -1).mean() < 0.15


def test_target_domain_gains():
    """Clips along a line: what lies between known clips is known."""
    rng = np.random.default_rng(3)
    aucs = {None: [], 0.5: []}
    for seed in range(5):
        X, new = make_clips(seed=seed), make_clips(2, 60, seed=seed + 100)
        faulty = new.copy(data=new.values + rng.normal(size=new.shape))
        for share, values in aucs.items():
            detector = grouped(share).fit(X)
            scores = [detector.score_samples(clips[2:]) for clips in (new, faulty)]
            values.append(roc_auc_score([1] * 60 + [0] * 60, np.concatenate(scores)))
    assert (np.array(aucs[0.5]) > np.array(aucs[None])).all()
    assert np.mean(aucs[0.5]) > np.mean(aucs[None]) + 0.03


def test_seed(X):
    new = make_clips(seed=1)
    a, b = grouped().fit(X).score_samples(new), grouped().fit(X).score_samples(new)
    np.testing.assert_array_equal(a, b)
    other = grouped().set_params(random_state=1).fit(X).score_samples(new)
    assert (a != other).any()


def test_errors(X):
    with pytest.raises(ValueError, match="smote=0.3 fills up the values of a column: name it"):
        grouped().set_params(over=None).fit(X)
    table = pd.DataFrame({"path": ["a", "b"], "section": "00", "domain": "source"})
    with pytest.raises(ValueError, match="not between the clips of a table"):
        grouped().fit(table)
    with pytest.raises(ValueError, match=r"section='00' \(target\): smote needs at least 3 .* 2"):
        grouped().fit(X[:102])
    features = X.expand_dims("frame", axis=2)
    with pytest.raises(ValueError, match=r"\(target\): smote draws between embeddings .* \(10, 3"):
        GroupedDetector(Frames(), over="domain", smote=0.3).fit(features)
    with pytest.raises(ValueError, match="'smote' parameter"):
        grouped(1.5).fit(X)


class Frames(KNNDetector):
    """Takes features with a time axis."""

    def _validate(self, X, reset):
        return super()._validate(np.asarray(X)[:, :, 0], reset)
