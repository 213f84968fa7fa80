"""TimePooling against hand computation."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sk_asd.features import TimePooling


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(30, 5, 21))


def labelled(values, dims=("clip", "mel", "frame")):
    section = [f"{i % 2:02d}" for i in range(len(values))]
    return xr.DataArray(values, dims=dims, coords={"section": ("clip", section)})


def test_by_hand():
    X = np.array([[[1.0, 5.0, 3.0], [2.0, 2.0, 2.0]], [[0.0, 0.0, 6.0], [-1.0, -3.0, -2.0]]])
    pool = TimePooling(statistics=("max", "mean", "std", "gwrp"), r=0.5)
    # Weights 1, 1/2, 1/4 over their sum 7/4, from the largest to the smallest value.
    expected = [
        [5.0, 2.0, 3.0, 2.0, np.sqrt(8 / 3), 0.0, (5 + 1.5 + 0.25) / 1.75, 2.0],
        [6.0, -1.0, 2.0, -2.0, np.sqrt(8), np.sqrt(2 / 3), 6 / 1.75, (-1 - 1 - 0.75) / 1.75],
    ]
    np.testing.assert_allclose(pool.fit_transform(X), expected)
    assert pool.n_features_in_ == 2


def test_minimum_and_flux_by_hand():
    X = np.array([[[1.0, 5.0, 3.0], [2.0, 2.0, 2.0]]])
    pool = TimePooling(statistics=("min", "flux"))
    np.testing.assert_allclose(pool.fit_transform(X), [[1.0, 2.0, 3.0, 0.0]])
    assert pool.get_feature_names_out().tolist() == ["min_x0", "min_x1", "flux_x0", "flux_x1"]
    # One frame does not move.
    np.testing.assert_array_equal(pool.fit_transform(X[:, :, 1:2]), [[5.0, 2.0, 0.0, 0.0]])


def test_default_is_mean_and_standard_deviation(features):
    expected = np.concatenate([features.mean(axis=2), features.std(axis=2)], axis=1)
    np.testing.assert_allclose(TimePooling().fit_transform(features), expected)


def test_ranking_pooling_goes_from_maximum_to_mean(features):
    def pooled(r):
        return TimePooling(statistics=["gwrp"], r=r).fit_transform(features)

    np.testing.assert_array_equal(pooled(0.0), features.max(axis=2))
    np.testing.assert_allclose(pooled(1.0), features.mean(axis=2), rtol=1e-12)
    assert (pooled(0.3) > pooled(0.9)).all()
    frames = np.sort(features, axis=2)[:, :, ::-1]
    weights = 0.88 ** np.arange(21)
    np.testing.assert_allclose(pooled(0.88), frames @ weights / weights.sum())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clips_are_independent_of_each_other(dtype, monkeypatch):
    X = np.random.default_rng(0).normal(size=(40, 12, 50)).astype(dtype)
    monkeypatch.setattr("sk_asd.features._time_pooling._BLOCK_BYTES", 7 * 12 * 50 * X.itemsize)
    pool = TimePooling(statistics=("mean", "std", "max", "gwrp"), r=0.5).fit(X)
    expected = pool.transform(X)
    assert expected.dtype == dtype
    order = np.random.default_rng(1).permutation(40)
    np.testing.assert_array_equal(pool.transform(X[order]), expected[order])
    np.testing.assert_array_equal(pool.transform(X[3:4]), expected[3:4])
    transposed = np.ascontiguousarray(X.transpose(2, 1, 0)).transpose(2, 1, 0)
    np.testing.assert_array_equal(pool.transform(transposed), expected)


def test_memory_mapped_features(features, tmp_path):
    np.save(tmp_path / "X.npy", features)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    pool = TimePooling(statistics=("std", "gwrp"), r=0.5)
    np.testing.assert_array_equal(pool.fit_transform(mapped), pool.fit_transform(features))


def test_labels_and_names(features):
    pool = TimePooling(statistics=("mean", "gwrp"), r=0.5)
    pooled = pool.fit_transform(labelled(features))
    assert pooled.dims == ("clip", "feature")
    assert pooled.section.values.tolist() == ["00", "01"] * 15
    names = [f"{s}_mel{i}" for s in ("mean", "gwrp") for i in range(5)]
    assert pooled.feature.values.tolist() == names
    assert pool.get_feature_names_out().tolist() == names
    np.testing.assert_array_equal(pooled.values, pool.transform(features))
    np.testing.assert_array_equal(pooled.sel(feature="gwrp_mel3"), pooled.values[:, 8])
    assert pool.fit(features).get_feature_names_out()[-1] == "gwrp_x4"
    assert pool.get_feature_names_out(list("abcde"))[0] == "mean_a"


def test_two_dimensions_are_one_frame(features):
    X = features[:, :, 0]
    pool = TimePooling(statistics=("mean", "std", "max", "gwrp"), r=0.5)
    expected = np.concatenate([X, np.zeros_like(X), X, X], axis=1)
    np.testing.assert_array_equal(pool.fit_transform(X), expected)
    pooled = pool.fit_transform(labelled(X, ("clip", "embedding")))
    assert pooled.feature.values[0] == "mean_embedding0"
    np.testing.assert_array_equal(pooled.values, expected)


def test_names_have_the_frequencies(features):
    hertz = np.array([0.0, 99.6, 200.4, 1000.0, 8000.0])
    pool = TimePooling(statistics=("gwrp",)).fit(labelled(features).assign_coords(mel=hertz))
    names = ["gwrp_mel_0Hz", "gwrp_mel_100Hz", "gwrp_mel_200Hz", "gwrp_mel_1000Hz"]
    assert pool.get_feature_names_out().tolist() == [*names, "gwrp_mel_8000Hz"]
    close = TimePooling(statistics=("max",)).fit(labelled(features).assign_coords(mel=hertz / 1000))
    assert close.get_feature_names_out().tolist()[:3] == [
        "max_mel_0.0Hz",
        "max_mel_0.1Hz",
        "max_mel_0.2Hz",
    ]


@pytest.mark.parametrize("statistics", [(), ("mean", "median"), ("mean", "mean"), "mean"])
def test_wrong_statistics(features, statistics):
    with pytest.raises(ValueError, match="'statistics' parameter"):
        TimePooling(statistics=statistics).fit(features)


@pytest.mark.parametrize("r", [-0.1, 1.1, None])
def test_wrong_decay(features, r):
    with pytest.raises(ValueError, match="'r' parameter"):
        TimePooling(r=r).fit(features)


def test_wrong_input(features):
    pool = TimePooling().fit(features)
    with pytest.raises(ValueError, match="X has 4 features, but TimePooling is expecting 5"):
        pool.transform(features[:, :4])
    with pytest.raises(ValueError, match="at least one frame"):
        pool.transform(features[:, :, :0])
    with pytest.raises(ValueError, match="3 dimensions"):
        pool.transform(features[..., np.newaxis])
    with pytest.raises(ValueError, match="put a feature extractor such as LogMel before it"):
        pool.fit(pd.DataFrame({"path": ["a.wav"]}))
    swapped = labelled(features.transpose(0, 2, 1), ("clip", "frame", "mel"))
    with pytest.raises(ValueError, match="must have the dimensions"):
        pool.fit(swapped)
    bad = features.copy()
    bad[3, 2, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        pool.transform(bad)
