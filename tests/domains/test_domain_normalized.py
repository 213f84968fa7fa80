"""DomainNormalizedDetector: by hand, and on machines with and without a domain difference."""

import io

import joblib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.base import BaseEstimator, ClassifierMixin, OutlierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sk_asd.domains._domain_normalized as module
from sk_asd.datasets import make_machine_sounds
from sk_asd.detectors import KNNDetector, MahalanobisDetector
from sk_asd.domains import Cnn6Classifier, DomainClassifier, DomainNormalizedDetector
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
from sk_asd.features import LogMel, TimePooling
from sk_asd.metrics import dcase_scores


class First(OutlierMixin, BaseEstimator):
    """The first feature is the score."""

    def fit(self, X, y=None):
        self.offset_ = 0.0
        return self

    def score_samples(self, X):
        return np.asarray(X)[:, 0]


class Second(ClassifierMixin, BaseEstimator):
    """The second feature is the probability of the second class."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        p = np.asarray(X)[:, 1]
        return np.column_stack([1 - p, p])


def clips(scores, probability, domain, section="00"):
    n = len(scores)
    coords = {
        "section": ("clip", np.broadcast_to(np.array(section, dtype=object), n)),
        "domain": ("clip", np.broadcast_to(np.array(domain, dtype=object), n)),
    }
    values = np.column_stack([scores, np.broadcast_to(probability, n)]).astype(float)
    return xr.DataArray(values, dims=("clip", "feature"), coords=coords)


@pytest.fixture
def train():
    """Source clips score around 0, target clips around −6 and spread more."""
    rng = np.random.default_rng(0)
    return xr.concat(
        [
            clips(rng.normal(size=50), 0.0, "source"),
            clips(-6 + 2 * rng.normal(size=10), 1.0, "target"),
        ],
        "clip",
    )


def shrunk(source, target, kappa):
    """The formulas of the docstring."""
    n_s, m_s, v_s = len(source), source.mean(), source.var()
    n_t, m_t = len(target), target.mean()
    v = (n_t * target.var() + kappa * v_s) / (n_t + kappa)
    error = v / n_t + v_s / n_s
    m = m_s + max(0, 1 - error / (m_t - m_s) ** 2) * (m_t - m_s)
    return m, np.sqrt(v)


def test_by_hand(train):
    detector = DomainNormalizedDetector(First(), Second()).fit(train)
    source, target = train.values[:50, 0], train.values[50:, 0]
    m_s, d_s = source.mean(), source.std()
    m_t, d_t = shrunk(source, target, 10)
    assert m_t == pytest.approx(target.mean(), abs=0.1)
    every = train.values[:, 0]
    np.testing.assert_allclose(detector.means_["00"], [every.mean(), m_s, m_t])
    np.testing.assert_allclose(detector.scales_["00"], [every.std(), d_s, d_t])
    s = np.linspace(-8, 2, 5)
    for p in (0.0, 0.3, 1.0):
        expected = p * (s - m_t) / d_t + (1 - p) * (s - m_s) / d_s
        # The domain is not needed to score.
        new = clips(s, p, None).drop_vars("domain")
        np.testing.assert_allclose(detector.score_samples(new), expected)
    unknown = clips(s, np.nan, None)
    plain = (s - every.mean()) / every.std()
    np.testing.assert_array_equal(detector.score_samples(unknown), plain)
    own = np.r_[(source - m_s) / d_s, (target - m_t) / d_t]
    np.testing.assert_allclose(detector.training_scores_, own)
    assert detector.offset_ == pytest.approx(np.quantile(own, 0.1))
    assert (detector.fit_predict(train) == -1).sum() == 6
    np.testing.assert_array_equal(
        detector.predict(train), np.where(detector.score_samples(train) >= detector.offset_, 1, -1)
    )


def test_shrinkage(train):
    source, target = train.values[:50, 0], train.values[50:, 0]

    def statistics(shrinkage, X=train):
        detector = DomainNormalizedDetector(First(), Second(), shrinkage=shrinkage).fit(X)
        return detector.means_["00"][2], detector.scales_["00"][2]

    np.testing.assert_allclose(statistics(0), [target.mean(), target.std()])
    np.testing.assert_allclose(statistics(3), shrunk(source, target, 3))
    assert statistics(1e9)[1] == pytest.approx(source.std())
    # A difference below its own standard error is taken for none.
    near = train.copy()
    near.values[50:, 0] += source.mean() - target.mean() + 0.05
    assert statistics(10, near)[0] == source.mean()
    assert statistics(0, near)[0] == pytest.approx(source.mean() + 0.05)


def test_shrunk_statistics_are_closer_to_the_truth():
    """Ten target clips: squared error of mean and deviation over many draws."""
    rng = np.random.default_rng(0)
    shares = np.repeat([[1.0, 0.0], [0.0, 1.0]], [200, 10], axis=1)
    for gap in (0.0, 0.3, 3.0):
        errors = []
        for _ in range(300):
            source, target = rng.normal(size=200), gap + rng.normal(size=10)
            scores = np.r_[source, target]
            _, (mean, scale) = module._by_domain(scores, *shares, 10.0, ((0, 1), None))
            errors.append([mean - gap, target.mean() - gap, scale - 1, target.std() - 1])
        mean, own_mean, scale, own_scale = np.square(errors).mean(axis=0)
        assert scale < 0.5 * own_scale
        assert mean < (0.7 if gap == 0 else 1.2) * own_mean


def test_groups_have_statistics_of_their_own(train):
    other = train.assign_coords(section=("clip", np.full(60, "01", dtype=object))) * 3 + 1
    other.values[:, 1] = train.values[:, 1]
    both = xr.concat([train, other], "clip")
    detector = DomainNormalizedDetector(First(), Second()).fit(both)
    assert set(detector.means_) == {"00", "01"}
    first = DomainNormalizedDetector(First(), Second()).fit(train)
    np.testing.assert_allclose(detector.score_samples(both)[:60], first.score_samples(train))
    # In units of their own training scores both sections are the same.
    np.testing.assert_allclose(detector.score_samples(both)[60:], first.score_samples(train))


def test_transductive(train):
    detector = DomainNormalizedDetector(First(), Second(), statistics="transductive").fit(train)
    np.testing.assert_allclose(
        detector.training_scores_,
        DomainNormalizedDetector(First(), Second()).fit(train).training_scores_,
    )
    rng = np.random.default_rng(1)
    s, p = rng.normal(size=40) * 3 + 5, np.repeat([0.0, 1.0], 20)
    z = detector.score_samples(clips(s, p, None))
    m_t, d_t = shrunk(s[:20], s[20:], 10)
    np.testing.assert_allclose(z[:20], (s[:20] - s[:20].mean()) / s[:20].std())
    np.testing.assert_allclose(z[20:], (s[20:] - m_t) / d_t)
    # Clips whose domain is not known are standardised as ever, and do not count for the others.
    unknown = xr.concat([clips(s, p, None), clips(s, np.nan, None)], "clip")
    z2 = detector.score_samples(unknown)
    every = train.values[:, 0]
    np.testing.assert_array_equal(z2[40:], (s - every.mean()) / every.std())
    np.testing.assert_allclose(z2[:40], z)


def test_transductive_batch_that_says_nothing(train):
    """A single clip, or a domain with less than two clips, takes the statistics of training."""
    transductive = DomainNormalizedDetector(First(), Second(), statistics="transductive")
    transductive.fit(train)
    trained = DomainNormalizedDetector(First(), Second()).fit(train)
    for i in (0, 59):
        np.testing.assert_allclose(
            transductive.score_samples(train[[i]]), trained.score_samples(train[[i]])
        )
    rows = [*range(20), 59]
    np.testing.assert_allclose(
        transductive.score_samples(train[rows])[-1], trained.score_samples(train[[59]])[0]
    )


def test_off_changes_nothing(train):
    """Exactly the plain standardisation of the group, with either kind of statistics."""
    off = DomainClassifier(LogisticRegression(), min_auc=1.0, cv=2, random_state=0)
    noise = train.copy()
    noise.values[:, 0] = np.random.default_rng(2).normal(size=60)
    noise.values[:, 1] = np.random.default_rng(3).normal(size=60)
    scores = noise.values[:, 0]
    expected = (scores - scores.mean()) / scores.std()
    for statistics in ("training", "transductive"):
        detector = DomainNormalizedDetector(First(), off, statistics=statistics).fit(noise)
        assert detector.domain_classifier_.active_ == {"00": False}
        np.testing.assert_array_equal(detector.score_samples(noise), expected)
        np.testing.assert_array_equal(detector.training_scores_, expected)


@pytest.mark.parametrize("domain", ["source", None])
def test_one_domain(train, domain):
    X = train.assign_coords(domain=("clip", np.full(60, domain, dtype=object)))
    detector = DomainNormalizedDetector(First(), Second()).fit(X)
    assert detector.domain_classifier_ is None
    s = train.values[:, 0]
    np.testing.assert_array_equal(detector.score_samples(train), (s - s.mean()) / s.std())


def test_clips_of_no_domain_count_for_the_group_alone(train):
    domain = train.domain.values.copy()
    domain[:5] = None
    detector = DomainNormalizedDetector(First(), Second()).fit(
        train.assign_coords(domain=("clip", domain))
    )
    every = train.values[:, 0]
    np.testing.assert_allclose(
        detector.means_["00"][:2], [every.mean(), every[5:50].mean()], rtol=1e-12
    )
    assert detector.training_probability_.tolist() == [0.0] * 50 + [1.0] * 10


def test_held_out_probabilities_of_training_clips(train):
    classifier = DomainClassifier(LogisticRegression(), min_auc=0.0, random_state=0)
    detector = DomainNormalizedDetector(First(), classifier).fit(train)
    alone = DomainClassifier(LogisticRegression(), min_auc=0.0, random_state=0).fit(train)
    np.testing.assert_array_equal(detector.training_probability_, alone.training_proba_[:, 1])
    piped = make_pipeline(StandardScaler(), LogisticRegression())
    detector = DomainNormalizedDetector(First(), piped).fit(train)
    expected = piped.fit(train.values, train.domain.values).predict_proba(train.values)[:, 1]
    np.testing.assert_array_equal(detector.training_probability_, expected)
    # What a frozen classifier held out may have been other clips.
    frozen = FrozenEstimator(alone)
    detector = DomainNormalizedDetector(First(), frozen).fit(train)
    np.testing.assert_array_equal(detector.training_probability_, alone.predict_proba(train)[:, 1])


def test_unseen_group(train):
    new = train.assign_coords(section=("clip", np.full(60, "07", dtype=object)))
    with pytest.raises(ValueError, match=r"section='07' was not seen in training.*\['00'\]"):
        DomainNormalizedDetector(First(), Second()).fit(train).score_samples(new)
    classifier = DomainClassifier(LogisticRegression())
    detector = DomainNormalizedDetector(First(), classifier, unseen="pool").fit(train)
    s = train.values[:, 0]
    np.testing.assert_allclose(detector.score_samples(new), (s - s.mean()) / s.std())


def test_lost_labels_are_never_silent(train):
    with pytest.warns(UserWarning, match=r"No column 'domain' .* without regard to domains"):
        DomainNormalizedDetector(First(), Second()).fit(train.drop_vars("domain"))
    detector = DomainNormalizedDetector(First(), Second()).fit(train)
    with pytest.raises(ValueError, match=r"No column \['section'\] .* was fitted with it"):
        detector.score_samples(train.values)
    domain = np.array(["source", "target", "else"] * 20, dtype=object)
    with pytest.raises(ValueError, match="column 'domain' has the domains"):
        detector.fit(train.assign_coords(domain=("clip", domain)))


def test_constant_scores(train):
    train.values[:, 0] = 3.0
    detector = DomainNormalizedDetector(First(), Second()).fit(train)
    np.testing.assert_array_equal(detector.training_scores_, 0)


@pytest.mark.slow
def test_default_parts(train):
    detector = DomainNormalizedDetector(random_state=0).fit(train[46:52])
    assert isinstance(detector.detector_, GroupedDetector)
    assert isinstance(detector.domain_classifier_, DomainClassifier)
    assert detector.domain_classifier_.by == detector.by


@pytest.fixture
def n_trained(monkeypatch):
    """Names of what was computed: domain classifiers fitted and asked."""
    calls = []

    def counted(name):
        function = getattr(module, name)

        def count(*args):
            calls.append(name)
            return function(*args)

        return count

    for name in ("_fit_classifier", "_probability"):
        monkeypatch.setattr(module, name, counted(name))
    return calls


def members(memory):
    classifier = DomainClassifier(LogisticRegression(), random_state=0)
    detectors = {"a": MahalanobisDetector(), "b": KNNDetector(metric="euclidean")}
    return [
        (name, DomainNormalizedDetector(detector, classifier, memory=memory))
        for name, detector in detectors.items()
    ]


def test_memory_trains_the_domain_classifier_once(train, tmp_path, n_trained):
    """Two members with the same domain classifier in a ScoreEnsemble."""
    new = train + 0.1
    expected = ScoreEnsemble(members(None)).fit(train)
    assert n_trained.count("_fit_classifier") == 2
    scores = expected.score_samples(new)
    n_trained.clear()
    ensemble = ScoreEnsemble(members(str(tmp_path))).fit(train)
    assert n_trained == ["_fit_classifier"]
    np.testing.assert_array_equal(ensemble.score_samples(new), scores)
    assert n_trained == ["_fit_classifier", "_probability"]
    # Other clips are another matter.
    ensemble.score_samples(new[:7])
    ensemble.fit(train[1:])
    assert n_trained[2:] == ["_probability", "_fit_classifier"]
    # What is loaded elsewhere works without the folder.
    file = io.BytesIO()
    joblib.dump(ensemble.fit(train), file)
    file.seek(0)
    loaded = joblib.load(file)
    for member in loaded.estimators_:
        member.memory = str(tmp_path / "gone")
    np.testing.assert_array_equal(loaded.score_samples(new), scores)


def machine(difference, seed=0):
    """Source clips of a synthetic fan, of which some are called target, with or without reason."""
    sounds = make_machine_sounds(
        "fan",
        n_train=50,
        n_target_train=0,
        n_test=120,
        severity=3.0,
        duration=1.0,
        snr=6.0,
        random_state=seed,
    )
    sounds = sounds[sounds.domain == "source"].reset_index(drop=True)
    rank = sounds.groupby(["split", "label"]).cumcount()
    target = np.where(sounds.split == "train", rank < 10, rank % 2 == 0)
    sounds["domain"] = np.where(target, "target", "source")
    rng = np.random.default_rng(seed)
    if difference:
        # Another place: a hiss of another level in every clip.
        audio = sounds.audio.tolist()
        for i in np.flatnonzero(target):
            hiss = np.diff(rng.normal(size=len(audio[i]) + 1)) * audio[i].std()
            audio[i] = (audio[i] + rng.uniform(0.3, 1.2) * hiss).astype("float32")
        sounds["audio"] = audio
    return sounds[sounds.split == "train"], sounds[sounds.split == "test"]


def systems():
    """A detector, and the same with domain normalisation."""
    feature = LogMel(n_mels=16, n_fft=512, hop_length=512)
    plain = make_pipeline(
        feature, TimePooling(("mean",)), GroupedDetector(KNNDetector(metric="euclidean"))
    )
    network = Cnn6Classifier(epoch_size=128, batch_size=16, max_epochs=8, random_state=0)
    classifier = make_pipeline(feature, DomainClassifier(network, cv=2, random_state=0))
    return plain, DomainNormalizedDetector(plain, classifier)


def test_planted_domain_difference():
    """The classifier switches on, and the target domain gains."""
    train, test = machine(difference=True)
    plain, normalized = systems()
    before = dcase_scores(test, plain.fit(train).score_samples(test)).iloc[0]
    after = dcase_scores(test, normalized.fit(train).score_samples(test)).iloc[0]
    classifier = normalized.domain_classifier_[-1]
    assert classifier.active_ == {("fan", "00"): True}
    assert classifier.auc_["fan", "00"] > 0.9
    assert after.auc_target > before.auc_target + 0.1
    assert after.hmean > before.hmean


def test_no_domain_difference():
    """The classifier stays off, and the scores are those of the plain detector, standardised."""
    train, test = machine(difference=False)
    plain, normalized = systems()
    normalized.fit(train)
    assert normalized.domain_classifier_[-1].active_ == {("fan", "00"): False}
    own = plain.fit(train)[-1].training_scores_
    expected = (plain.score_samples(test) - own.mean()) / own.std()
    np.testing.assert_array_equal(normalized.score_samples(test), expected)
    before = dcase_scores(test, plain.score_samples(test))
    pd.testing.assert_frame_equal(before, dcase_scores(test, normalized.score_samples(test)))
