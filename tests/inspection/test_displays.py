"""What is on the displays, against what it should be by hand."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.exceptions import NotFittedError

from sk_asd.detectors import KNNDetector
from sk_asd.ensemble import ScoreEnsemble
from sk_asd.features import STFT, Wav2Vec
from sk_asd.inspection import (
    AnomalyMapDisplay,
    ContributionDisplay,
    EmbeddingDisplay,
    RocDisplay,
    ScoreDistributionDisplay,
    SpectrogramDisplay,
    anomaly_map,
)
from sk_asd.networks import Wav2Vec1


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def all_displays(features):
    clips = pd.DataFrame({"label": ["normal", "normal", "anomaly"]})
    return {
        "spectrogram": SpectrogramDisplay.from_predictions(features),
        "map": AnomalyMapDisplay.from_predictions(features),
        "scores": ScoreDistributionDisplay.from_predictions(clips, [2.0, 1.0, 0.0]),
        "roc": RocDisplay.from_predictions(clips, [2.0, 1.0, 0.0]),
        "embedding": EmbeddingDisplay.from_predictions(features.mean("frame")),
        "contributions": ContributionDisplay.from_predictions([1.0, -2.0]),
    }


class TestAll:
    def test_manner_of_scikit_learn(self, features):
        for name, display in all_displays(features).items():
            own = display.figure_
            _, ax = plt.subplots()
            assert display.plot(ax=ax) is display, name
            assert display.ax_ is ax
            assert display.figure_ is ax.figure is not own
            assert all(axis.get_text() for axis in (ax.xaxis.label,)), name

    @pytest.mark.parametrize("name", ["spectrogram", "map", "scores", "roc", "contributions"])
    def test_matplotlib_is_an_extra(self, features, name, monkeypatch):
        display = all_displays(features)[name]
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ImportError, match=r'matplotlib.*pip install "sk_asd\[report\]"'):
            display.plot()


class TestSpectrogram:
    def test_a_tone_is_at_its_place(self):
        time = np.arange(16000) / 16000
        tone = np.sin(2 * np.pi * 3000 * time) * (time > 0.5)
        display = SpectrogramDisplay.from_predictions(tone)
        level = display.values
        assert level.idxmax("frequency").sel(frame=0.75, method="nearest") == 3000
        # Full scale is 20 log10(sum of the window / 2).
        assert_allclose(level.max(), 20 * np.log10(1024 / 4), atol=0.1)
        low, high = display.image_.get_clim()
        assert_allclose(high - low, 80, rtol=1e-5)
        assert display.colour_bar_.ax.get_ylabel() == "level (dB)"
        assert display.colour_bar_.extend == "min"
        # The picture is upright, and its axes are those of the features.
        left, right, bottom, top = display.image_.get_extent()
        assert (bottom, top) == (-0.5, 512.5)
        assert_allclose([left, right], [-128 / 16000, level.frame[-1] + 128 / 16000])
        assert display.ax_.get_xlabel() == "time (s)"
        assert display.ax_.get_ylabel() == "frequency (Hz)"
        places = dict(zip((t.get_text() for t in display.ax_.get_yticklabels()), _ticks(display)))
        assert_allclose(places["4000"], 4000 / (16000 / 1024))

    def test_power_and_magnitudes_give_the_same_decibels(self, test):
        extractors = [STFT(n_fft=512, power=power) for power in (1.0, 2.0)]
        levels = [
            SpectrogramDisplay.from_estimator(e.fit(test), test, clip=3).values for e in extractors
        ]
        loud = levels[0].values > levels[0].values.max() - 60
        assert_allclose(levels[0].values[loud], levels[1].values[loud], atol=1e-3)

    def test_mel_is_in_decibels_already(self, pooling, test):
        display = SpectrogramDisplay.from_estimator(pooling, test, clip=5)
        features = pooling[0].transform(test)[5]
        assert_allclose(display.values, features)
        np.testing.assert_array_equal(display.image_.get_array(), features)
        names = [t.get_text() for t in display.ax_.get_yticklabels()]
        assert "1000" in names
        place = _ticks(display)[names.index("1000")]
        assert_allclose(place, np.interp(1000, features.mel, np.arange(16)))

    def test_the_file_is_the_title(self, features):
        X = features.assign_coords(path=("clip", [f"/a/b/{i}.wav" for i in range(12)]))
        display = SpectrogramDisplay.from_predictions(X, clip=4)
        assert display.ax_.get_title() == "4.wav"
        assert_allclose(display.values, X[4])

    def test_clip_tables_and_arrays(self, test, features):
        display = SpectrogramDisplay.from_predictions(test, clip=2)
        wave = SpectrogramDisplay.from_predictions(test["audio"].iloc[2])
        assert_allclose(display.values, wave.values)
        bare = SpectrogramDisplay.from_predictions(features.values[0])
        assert (bare.ax_.get_xlabel(), bare.ax_.get_ylabel()) == ("frame", "bin")

    def test_features_without_frequencies_are_shown_in_hertz(self, test):
        wav2vec = Wav2Vec(Wav2Vec1(4, aggregator=(2,)), on_length="pad", duration=1.25).fit(test)
        display = SpectrogramDisplay.from_estimator(wav2vec, test, clip=2)
        stft = STFT(n_fft=1024, hop_length=256, on_length="pad", duration=1.25)
        magnitudes = stft.fit_transform(test)[2]
        assert display.values.dims == ("frequency", "frame")
        np.testing.assert_array_equal(display.values.frequency, magnitudes.frequency)
        loud = magnitudes.values > 1e-3
        assert_allclose(display.values.values[loud], 20 * np.log10(magnitudes.values[loud]), 1e-5)
        with pytest.raises(NotFittedError):
            SpectrogramDisplay.from_estimator(Wav2Vec(), test)

    def test_errors(self, test):
        with pytest.raises(ValueError, match=r"found an array of shape \(1, 1, 1, 1\)"):
            SpectrogramDisplay.from_predictions(np.zeros((1, 1, 1, 1)))
        with pytest.raises(ValueError, match="KNNDetector gives no features"):
            SpectrogramDisplay.from_estimator(KNNDetector(), test)


def _ticks(display):
    return display.ax_.get_yticks()


class TestAnomalyMap:
    def test_it_shows_the_map(self, pooling, test):
        display = AnomalyMapDisplay.from_estimator(pooling, test, clip=3)
        maps = anomaly_map(pooling, test.iloc[[3]])
        assert_allclose(display.values, maps[0])
        assert display.colour_bar_.ax.get_ylabel() == "share of squared distance"
        low, high = display.image_.get_clim()
        assert_allclose([low, high], np.quantile(maps, [0.5, 0.999]), rtol=1e-5)

    def test_member_and_missing_frames(self, features):
        maps = features.assign_attrs(member="imdn", unit="nats")
        maps[:, :, :3] = np.nan
        display = AnomalyMapDisplay.from_predictions(maps, clip=1)
        assert display.ax_.get_title() == "member: imdn"
        assert np.isfinite(display.image_.get_clim()).all()
        named = maps.assign_coords(path=("clip", [f"/a/b/{i}.wav" for i in range(len(maps))]))
        display = AnomalyMapDisplay.from_predictions(named, clip=1)
        assert display.ax_.get_title() == "1.wav, member: imdn"
        with pytest.raises(ValueError, match="no finite value"):
            AnomalyMapDisplay.from_predictions(maps[0] * np.nan)
        with pytest.raises(ValueError, match="A map has 2 dimensions"):
            AnomalyMapDisplay.from_predictions(np.zeros(3))


def scored_clips():
    clips = pd.DataFrame(
        {
            "machine": "fan",
            "section": ["00"] * 4 + ["01"] * 4,
            "domain": ["source", "target"] * 4,
            "label": ["normal", "normal", "anomaly", "anomaly"] * 2,
        }
    )
    return clips, np.array([4.0, 2.0, 1.0, 3.0, 8.0, 7.0, 6.0, 5.0])


class TestScoreDistribution:
    def test_data(self):
        clips, scores = scored_clips()
        limits = np.repeat([1.5, 6.5], 4)
        display = ScoreDistributionDisplay.from_predictions(clips, scores, thresholds=limits)
        data = display.data
        assert data["group"].tolist() == ["section 00"] * 4 + ["section 01"] * 4
        kinds = ["normal, source", "normal, target", "anomaly", "anomaly"]
        assert data["kind"].tolist() == kinds * 2
        assert_allclose(data["threshold"], limits)
        # A row a section, the first on top, and a threshold each.
        assert [t.get_text() for t in display.ax_.get_yticklabels()] == ["section 00", "section 01"]
        assert display.ax_.get_yticks().tolist() == [1, 0]
        lines = [c.get_segments()[0] for c in display.ax_.collections]
        assert_allclose([segment[0] for segment in lines], [[1.5, 1], [6.5, 0]])
        assert texts(display.ax_.get_legend()) == [
            "normal, source (2)",
            "normal, target (2)",
            "anomaly (4)",
            "threshold",
        ]

    def test_machines_are_named_where_there_are_several(self):
        clips, scores = scored_clips()
        clips["machine"] = ["fan"] * 4 + ["valve"] * 4
        display = ScoreDistributionDisplay.from_predictions(clips, scores)
        assert display.data["group"].unique().tolist() == ["fan 00", "valve 01"]

    def test_histogram_counts_every_clip_and_shows_the_threshold(self):
        scores = np.r_[np.linspace(0, 1, 20), -1000.0]
        clips = pd.DataFrame({"label": ["normal"] * 20 + ["anomaly"]})
        display = ScoreDistributionDisplay.from_predictions(clips, scores, thresholds=-9.5)
        ax = display.ax_
        filled = [patch for patch in ax.patches if patch.get_fill()]
        assert sum(patch.get_data().values.sum() for patch in filled) == 21
        low, high = ax.get_xlim()
        assert -20 < low <= -9.5  # the outlier does not squeeze the rest, the threshold is in view
        assert high == 1
        assert "1 beyond the edge" in ax.get_xlabel()
        assert [line.get_xdata()[0] for line in ax.lines] == [-9.5]

    def test_no_outline_along_empty_bins(self):
        clips = pd.DataFrame({"label": ["normal"] * 2})
        display = ScoreDistributionDisplay.from_predictions(clips, [0.0, 1.0])
        (outline,) = (patch for patch in display.ax_.patches if not patch.get_fill())
        assert np.flatnonzero(~np.isnan(outline.get_data().values)).tolist() == [0, 23]

    def test_equal_scores(self):
        clips = pd.DataFrame({"label": ["normal"] * 3})
        display = ScoreDistributionDisplay.from_predictions(clips, np.zeros(3))
        assert display.ax_.get_xlim() == (-0.5, 0.5)

    def test_from_estimator(self, pooling, test):
        display = ScoreDistributionDisplay.from_estimator(pooling, test)
        assert_allclose(display.data["score"], pooling.score_samples(test))
        offsets = [pooling[-1].offsets_[key] for key in zip(test["machine"], test["section"])]
        assert_allclose(display.data["threshold"], offsets)
        assert display.data["group"].nunique() == 4

    def test_errors(self):
        clips, scores = scored_clips()
        with pytest.raises(ValueError, match="The display was given NaN as the score of 1 of 8"):
            ScoreDistributionDisplay.from_predictions(clips, np.r_[np.nan, scores[1:]])
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            ScoreDistributionDisplay.from_predictions(clips, scores[1:])


class TestRoc:
    def test_curves_are_those_of_the_official_auc(self):
        # One normal clip of each domain among two anomalies: all of source, half of target.
        clips, scores = scored_clips()
        display = RocDisplay.from_predictions(clips[:4], scores[:4])
        assert display.aucs == {"source": 1.0, "target": 0.5, "all": 0.75}
        for line, (name, (fpr, tpr)) in zip(display.ax_.lines, display.curves.items()):
            assert line.get_label() == f"{name}: AUC {display.aucs[name]:.3f}"
            assert_allclose(np.trapezoid(tpr, fpr), display.aucs[name])
            assert_allclose(line.get_xdata(), fpr)

    def test_region_of_the_partial_auc(self):
        from sklearn.metrics import roc_auc_score

        rng = np.random.default_rng(0)
        clips = pd.DataFrame({"label": ["normal"] * 95 + ["anomaly"] * 95})
        scores = rng.normal(size=190) + np.repeat([1.0, 0.0], 95)
        display = RocDisplay.from_predictions(clips, scores, max_fpr=0.2)
        anomalous = clips["label"] == "anomaly"
        assert display.pauc == roc_auc_score(anomalous, -scores, max_fpr=0.2)
        vertices = display.region_.get_paths()[0].vertices
        x, y = vertices.T
        area = abs(np.sum(x[:-1] * np.diff(y) - y[:-1] * np.diff(x))) / 2
        assert x.max() == 0.2
        # McClish: chance is 0.5.
        least, most = 0.2**2 / 2, 0.2
        assert_allclose(0.5 * (1 + (area - least) / (most - least)), display.pauc)

    def test_from_estimator_and_errors(self, pooling, test):
        display = RocDisplay.from_estimator(pooling, test)
        known = RocDisplay.from_predictions(test, pooling.score_samples(test))
        assert display.aucs == known.aucs
        with pytest.raises(ValueError, match="found 0 and 2 in the column 'label'"):
            RocDisplay.from_predictions(pd.DataFrame({"label": ["anomaly"] * 2}), [0.0, 1.0])


class TestEmbedding:
    def test_components(self, features):
        X = features.mean("frame")
        X = X.assign_coords(domain=("clip", ["source", "target"] * 6))
        X = X.assign_coords(label=("clip", ["normal"] * 11 + ["anomaly"]))
        display = EmbeddingDisplay.from_predictions(X)
        centred = X.values - X.values.mean(axis=0)
        _, s, vt = np.linalg.svd(centred, full_matrices=False)
        assert_allclose(abs(display.data[["x", "y"]]), abs(centred @ vt[:2].T), atol=1e-5)
        share = 100 * s[0] ** 2 / (s**2).sum()
        assert display.ax_.get_xlabel() == f"first component ({share:.0f} % of variance)"
        assert display.data["anomaly"].tolist() == [False] * 11 + [True]
        labels = ["section 00", "section 01", "source", "target", "anomaly"]
        assert texts(display.ax_.get_legend()) == labels
        shown = np.concatenate([c.get_offsets() for c in display.ax_.collections])
        assert len(shown) == 12 + 1  # the anomaly is ringed

    def test_from_estimator(self, pooling, test):
        display = EmbeddingDisplay.from_estimator(pooling, test)
        own = EmbeddingDisplay.from_predictions(pooling[:-1].transform(test))
        assert_allclose(display.data[["x", "y"]], own.data[["x", "y"]], atol=1e-4)
        assert set(display.data["group"]) == {"fan 00", "fan 01", "valve 00", "valve 01"}

    def test_tsne_and_errors(self, features):
        X = features.mean("frame")
        one, two = (
            EmbeddingDisplay.from_predictions(X, method="tsne", random_state=0) for _ in "12"
        )
        assert_allclose(one.data[["x", "y"]], two.data[["x", "y"]])
        assert one.ax_.get_xlabel().startswith("t-SNE")
        with pytest.raises(ValueError, match="method must be one of"):
            EmbeddingDisplay.from_predictions(X, method="umap")
        with pytest.raises(ValueError, match=r"at least 3 clips, found shape \(2, 6\)"):
            EmbeddingDisplay.from_predictions(X[:2])
        with pytest.raises(ValueError, match="12 embeddings of 3 clips"):
            EmbeddingDisplay.from_predictions(X, X[:3])


class TestContribution:
    def test_bars_are_the_contributions(self, features):
        X = features.mean("frame")
        members = [("near", KNNDetector(metric="euclidean")), ("far", KNNDetector(3))]
        ensemble = ScoreEnsemble(members, weights=(0.25, 0.75), by="section").fit(X)
        display = ContributionDisplay.from_estimator(ensemble, X + 0.5, clip=4)
        found = ensemble.contributions(X + 0.5)
        assert display.contributions.index.tolist() == ["near", "far"]
        assert_allclose(display.contributions, found[4])
        assert_allclose([bar.get_width() for bar in display.bars_], found[4])
        assert_allclose(display.contributions.sum(), ensemble.score_samples(X + 0.5)[4])
        again = ContributionDisplay.from_predictions(found, clip=4)
        pd.testing.assert_series_equal(again.contributions, display.contributions)

    def test_what_speaks_against_has_another_colour(self):
        display = ContributionDisplay.from_predictions([[1.0, -2.0, -3.0]], names=["a", "b", "c"])
        colours = [bar.get_facecolor() for bar in display.bars_]
        assert colours[1] == colours[2] != colours[0]
        assert display.ax_.get_title() == "score −4"
        assert [t.get_text() for t in display.ax_.get_yticklabels()] == ["a", "b", "c"]

    def test_errors(self):
        with pytest.raises(TypeError, match="fitted ScoreEnsemble, got KNNDetector"):
            ContributionDisplay.from_estimator(KNNDetector(), np.zeros((2, 2)))
        with pytest.raises(ValueError, match="2 contributions but 1 names"):
            ContributionDisplay.from_predictions([1.0, 2.0], names=["a"])


def test_scores_as_abnormal_as_can_be():
    clips, scores = scored_clips()
    odd = int(np.argmin(scores))
    lowest = np.where(np.arange(len(scores)) == odd, -np.inf, scores)
    roc, expected = (RocDisplay.from_predictions(clips, s) for s in (lowest, scores))
    assert roc.aucs == expected.aucs
    assert roc.pauc == expected.pauc
    display = ScoreDistributionDisplay.from_predictions(clips, lowest)
    assert np.isfinite(display.edges_).all()
    assert "1 beyond the edge" in display.ax_.get_xlabel()
    display = ScoreDistributionDisplay.from_predictions(clips, np.full(len(clips), -np.inf))
    assert np.isfinite(display.edges_).all()
