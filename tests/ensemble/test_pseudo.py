"""Weights chosen without anomalies: what stands in for them, and that it is never the test."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from planted import FromColumn, members, table

from sk_asd.datasets._audio import write_audio
from sk_asd.detectors import KNNDetector, MahalanobisDetector
from sk_asd.ensemble import GroupedDetector, ScoreEnsembleCV
from sk_asd.ensemble._perturbations import (
    PERTURBATIONS,
    add_band,
    add_tone,
    change_speed,
    drop_segments,
    perturb,
    reverse,
    shift_segment,
)
from sk_asd.ensemble._pseudo import evaluation_table, from_other_places, perturbed

BY = ["machine", "section"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def rms(wave):
    return np.sqrt(np.mean(np.square(wave, dtype=float)))


def test_clips_of_other_sections_of_the_machine(rng):
    """Each section gets as many as it has clips; other machines only where there is one section."""
    fan = table(sections=("00", "01", "02"), n_train=4, n_test=0)
    valve = table(sections=("00",), n_train=4, n_test=0, machine="valve")
    clips = pd.concat([fan, valve]).assign(vel=np.arange(16))
    pseudo = from_other_places(clips, BY, rng)
    assert pseudo.groupby(BY).size().tolist() == [4, 4, 4, 4]
    for (machine, section), group in pseudo.groupby(BY):
        origin = group["path"].str.split("_", expand=True)
        assert (machine + section != origin[0] + origin[1]).all()
        assert (origin[0] == "fan").all()
        assert group["path"].is_unique
        # Only the place is another.
        np.testing.assert_array_equal(
            clips.set_index("path").loc[group["path"], "vel"], group["vel"]
        )
    with pytest.raises(ValueError, match=r"two places or more, found 1 by the columns \['machine'"):
        from_other_places(valve, BY, rng)
    with pytest.raises(ValueError, match=r"found 1 by the columns \[\]; use pseudo='perturbed'"):
        from_other_places(rng.normal(size=(8, 2)), [], rng)


def test_labelled_arrays_are_relabelled(rng):
    values = np.repeat([[0.0], [1.0]], 5, axis=0)
    X = xr.DataArray(
        values, dims=("clip", "embedding"), coords={"section": ("clip", list("0000011111"))}
    )
    pseudo = from_other_places(X, ["section"], rng)
    # The values of one section under the label of the other.
    np.testing.assert_array_equal(pseudo.values[:, 0], (pseudo.section == "0").astype(float))


def test_evaluation_table(rng):
    clips = table(n_train=3, n_test=0)
    found = evaluation_table(clips, clips[:2].assign(section="01"), BY)
    assert found["label"].tolist() == ["normal"] * 6 + ["anomaly"] * 2
    assert found["section"].tolist() == ["00"] * 3 + ["01"] * 5
    assert found["domain"].tolist() == [*clips["domain"], *clips["domain"][:2]]
    # A place of another name stands in for the section, source for no domain.
    bare = clips[["path"]].assign(place=list("aabbcc"))
    found = evaluation_table(bare, bare, ["place"])
    assert found["section"].tolist() == 2 * list("aabbcc")
    assert set(found["domain"]) == {"source"}


@pytest.mark.parametrize("how", PERTURBATIONS, ids=lambda how: how.__name__)
def test_perturbed_waves_are_as_long_and_as_loud(rng, how):
    wave = 0.1 * rng.normal(size=8000).astype(np.float32)
    kept = wave.copy()
    changed = perturb(wave, how, np.random.default_rng(1))
    assert changed.dtype == np.float32
    assert changed.shape == wave.shape
    np.testing.assert_array_equal(wave, kept)
    np.testing.assert_allclose(rms(changed), rms(wave), rtol=1e-5)
    assert rms(changed - wave) > 0.1 * rms(wave)
    np.testing.assert_array_equal(changed, perturb(wave, how, np.random.default_rng(1)))
    assert not perturb(np.zeros(100), how, rng).any()


def test_what_perturbations_do(rng):
    time = np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * 1000 * time)
    noise = rng.normal(size=16000)

    added = add_tone(noise, rng) - noise
    spectrum = np.abs(np.fft.rfft(added)) ** 2
    peak = spectrum.argmax()
    assert spectrum[max(peak - 5, 0) : peak + 6].sum() > 0.9 * spectrum.sum()
    assert -15 < 20 * np.log10(rms(added) / rms(noise)) < -5

    spectrum = np.abs(np.fft.rfft(add_band(tone, rng) - tone)) ** 2
    inside = np.flatnonzero(spectrum > 1e-6 * spectrum.max())
    assert 1.2 < inside.max() / inside.min() < 2.1

    np.testing.assert_array_equal(reverse(noise, rng), noise[::-1])
    quiet = np.abs(drop_segments(np.ones(16000), rng)) < 0.11
    assert 0.02 < quiet.mean() < 0.25
    ramp = np.arange(16000.0)
    shifted = shift_segment(ramp, rng)
    np.testing.assert_array_equal(np.sort(shifted), ramp)
    assert 1 < (np.diff(shifted) != 1).sum() <= 3
    found = np.abs(np.fft.rfft(change_speed(tone, rng))).argmax()
    assert 0.02 < abs(found / 1000 - 1) < 0.1


def test_perturbed_clip_tables(rng, tmp_path):
    """From files and from arrays; every way the same number of times."""
    waves = [0.1 * rng.normal(size=4000).astype(np.float32) for _ in range(12)]
    clips = table(sections=("00",), n_train=12, n_test=0).assign(audio=waves, sr=8000)
    changed = perturbed(clips, BY, np.random.default_rng(1))
    assert "path" not in changed
    assert all(len(a) == 4000 and not np.array_equal(a, b) for a, b in zip(changed["audio"], waves))

    reversed_ = sum(np.allclose(a, b[::-1], atol=1e-6) for a, b in zip(changed["audio"], waves))
    assert reversed_ == 2

    files = clips.drop(columns=["audio", "sr"]).assign(path=[str(tmp_path / p) for p in clips.path])
    for path, wave in zip(files["path"], waves):
        write_audio(path, wave, 8000)
    read = perturbed(files, BY, np.random.default_rng(1))
    assert set(read["sr"]) == {8000}
    for a, b in zip(read["audio"], changed["audio"]):
        np.testing.assert_allclose(a, b, atol=1e-4)  # 16 bits


def test_integers_are_perturbed_as_what_they_stand_for(rng):
    waves = rng.integers(-3000, 3000, size=(6, 4000)).astype(np.int16)
    clips = pd.DataFrame({"audio": list(waves), "sr": 8000, "machine": "fan", "section": "00"})
    same = clips.assign(audio=list(waves / 32768))
    found, expected = (perturbed(X, BY, np.random.default_rng(1)) for X in (clips, same))
    for one, other in zip(found["audio"], expected["audio"]):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(TypeError, match="Row 0, column 'audio': .* found int64"):
        perturbed(clips.assign(audio=list(waves.astype(np.int64))), BY, rng)


def test_perturbed_arrays_lose_what_features_have_to_do_with_one_another(rng):
    values = np.repeat(rng.normal(size=(50, 1)), 3, axis=1)
    values[25:] += 100
    X = xr.DataArray(
        values,
        dims=("clip", "embedding"),
        coords={"section": ("clip", np.repeat(["00", "01"], 25))},
    )
    changed = perturbed(X, ["section"], rng)
    # Values stay in their section and column.
    for rows in (slice(25), slice(25, 50)):
        np.testing.assert_array_equal(
            np.sort(changed.values[rows], axis=0), np.sort(values[rows], axis=0)
        )
    correlation = np.corrcoef(changed.values[:25].T)
    assert np.abs(correlation[0, 1:]).max() < 0.5
    frame = pd.DataFrame(values, columns=list("xyz")).assign(section="00", place=1)
    changed = perturbed(frame, ["section", "place"], rng)
    assert (changed["section"] == "00").all()
    assert not np.array_equal(changed["x"], frame["x"])
    frames = perturbed(rng.normal(size=(6, 2, 4)), [], rng)
    assert frames.shape == (6, 2, 4)


def test_weights_from_other_sections():
    """Of two members one tells sections apart: it gets the weight, and test clips do not matter."""
    clips = table(sections=("00", "01"), n_train=30, n_test=10, columns="ab")
    rng = np.random.default_rng(0)
    place = (clips["section"] == "01").to_numpy()
    coords = {
        name: ("clip", clips[name].to_numpy(dtype=object)) for name in ("section", "split", "label")
    }
    values = rng.normal(size=(len(clips), 2))
    values[place, 0] += 2.5
    X = xr.DataArray(values, dims=("clip", "embedding"), coords=coords)

    class One(KNNDetector):
        def __init__(self, feature=0):
            super().__init__(metric="euclidean")
            self.feature = feature

        def _validate(self, X, reset):
            return super()._validate(X, reset)[:, [self.feature]]

    pair = [("tells", GroupedDetector(One(0))), ("guesses", GroupedDetector(One(1)))]
    options = {"labels": "pseudo", "scoring": "auc", "random_state": 0}
    search = ScoreEnsembleCV(pair, step=0.25, **options).fit(X)
    assert search.best_weights_[0] >= 0.75
    assert search.best_score_ > 0.75
    assert search.cv_results_["mean_test_score"][-1] < 0.65  # guesses alone
    # The refit knows all training clips; the test clips, labels included, are never looked at.
    assert search.training_scores_.shape == (60,)
    train = X[(X.split == "train").values]
    alone = ScoreEnsembleCV(pair, step=0.25, **options).fit(train.drop_vars(["split", "label"]))
    np.testing.assert_array_equal(
        alone.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"]
    )
    again = ScoreEnsembleCV(pair, step=0.25, **options).fit(X)
    np.testing.assert_array_equal(again.score_samples(X), search.score_samples(X))


def test_weights_from_perturbed_arrays():
    """A member that sees how features go together finds perturbed clips, the other does not."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 1)) + 0.1 * rng.normal(size=(120, 4))
    search = ScoreEnsembleCV(
        [("spread", MahalanobisDetector()), ("noise", _Random())],
        step=0.5,
        labels="pseudo",
        pseudo="perturbed",
        scoring="auc",
        by=None,
        random_state=0,
    ).fit(X)
    assert search.best_weights_.tolist() == [1.0, 0.0]
    assert search.best_score_ > 0.95


class _Random(MahalanobisDetector):
    """Scores that have nothing to do with the clip but its last digits."""

    def _score(self, X):
        return np.modf(np.abs(X).sum(axis=1) * 1e6)[0]

    def _fit(self, X):
        return self._score(X)


@pytest.mark.filterwarnings("error")
def test_pseudo_labels_for_a_scorer_of_scikit_learn():
    clips = table(n_train=18, n_test=4).assign(domain="source")
    clips.loc[3, "domain"] = "target"  # in one fold alone
    common = {"step": 0.5, "labels": "pseudo", "random_state": 0, "by": ["section"]}
    search = ScoreEnsembleCV(members(), scoring="roc_auc", **common).fit(clips)
    # Scores in a column do not know under which label they are presented.
    assert np.abs(search.cv_results_["mean_test_score"] - 0.5).max() < 0.35
    search = ScoreEnsembleCV(members(), scoring="dcase", cv=2, **common).fit(clips)
    assert search.n_splits_ == 1
    with pytest.raises(ValueError, match="None of the 44 clips is a normal training clip"):
        search.fit(clips.assign(split="test"))


def test_perturbed_sounds_end_to_end():
    """A member that hears the course of events against one that does not."""
    rng = np.random.default_rng(0)
    waves = [0.1 * rng.normal(size=2000).astype(np.float32) for _ in range(24)]
    clips = table(sections=("00",), n_train=24, n_test=0).assign(audio=waves, sr=8000)
    clips = clips.drop(columns="path")
    search = ScoreEnsembleCV(
        [("peak", _Peak()), ("a", FromColumn("a"))],
        step=0.5,
        labels="pseudo",
        pseudo="perturbed",
        random_state=0,
    ).fit(clips)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.score_samples(clips).shape == (24,)


class _Peak(FromColumn):
    """Scores are the largest part of the spectrum."""

    def __init__(self):
        super().__init__("audio")

    def score_samples(self, X):
        return -np.array([np.abs(np.fft.rfft(wave)).max() / rms(wave) for wave in X["audio"]])
