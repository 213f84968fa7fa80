"""KeepLabels around transformers of scikit-learn."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from sk_asd.features import KeepLabels


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(2.0, 3.0, size=(30, 6))


@pytest.fixture
def X(values):
    return xr.DataArray(
        values,
        dims=("clip", "mel"),
        coords={
            "section": ("clip", ["00", "01"] * 15),
            "vel": ("clip", np.arange(30.0)),
            "mel": np.linspace(100.0, 600.0, 6),
        },
    )


def test_one_to_one_keeps_everything(X, values):
    Z = KeepLabels(StandardScaler()).fit_transform(X)
    xr.testing.assert_allclose(Z, X.copy(data=StandardScaler().fit_transform(values)))
    assert Z.dims == ("clip", "mel")
    np.testing.assert_array_equal(Z.mel, X.mel)
    assert Z.section.values.tolist() == ["00", "01"] * 15


@pytest.mark.parametrize("n_components", [2, 6])
def test_new_features_have_a_dimension_of_their_own(X, values, n_components):
    # As many components as bins are still no bins.
    Z = KeepLabels(PCA(n_components, svd_solver="full")).fit_transform(X)
    assert Z.dims == ("clip", "feature")
    assert Z.feature.values.tolist() == [f"pca{i}" for i in range(n_components)]
    np.testing.assert_array_equal(Z.vel, X.vel)
    np.testing.assert_allclose(Z.values, PCA(n_components, svd_solver="full").fit_transform(values))


def test_transformers_without_names(X, values):
    halves = KeepLabels(FunctionTransformer(lambda a: a[:, :3])).fit_transform(X)
    assert halves.dims == ("clip", "feature")
    assert "feature" not in halves.coords
    squares = KeepLabels(FunctionTransformer(np.square)).fit_transform(X)
    assert squares.dims == ("clip", "mel")
    np.testing.assert_array_equal(squares.values, values**2)
    assert not hasattr(KeepLabels(FunctionTransformer(np.square)), "get_feature_names_out")


def test_plain_in_plain_out(values):
    labelled = KeepLabels(PCA(2)).fit(values)
    np.testing.assert_array_equal(labelled.transform(values), PCA(2).fit(values).transform(values))
    frame = pd.DataFrame(values, columns=list("abcdef"))
    assert type(labelled.fit_transform(frame)) is np.ndarray
    assert labelled.feature_names_in_.tolist() == list("abcdef")
    assert labelled.n_features_in_ == 6


def test_fit_does_not_touch_the_parameter(X):
    labelled = KeepLabels(StandardScaler()).fit(X)
    assert not hasattr(labelled.transformer, "mean_")
    np.testing.assert_allclose(labelled.transformer_.mean_, X.values.mean(axis=0))


def test_inverse(X):
    labelled = KeepLabels(PCA(6)).fit(X)
    back = labelled.inverse_transform(labelled.transform(X))
    assert back.dims == ("clip", "mel")
    xr.testing.assert_allclose(back, X)
    np.testing.assert_allclose(
        labelled.inverse_transform(labelled.transform(X.values)), X.values, atol=1e-12
    )
    assert not hasattr(KeepLabels(SelectNone()), "inverse_transform")


class SelectNone(FunctionTransformer):
    inverse_transform = property()


def test_targets_are_passed_on(X):
    y = np.arange(30) % 2
    assert KeepLabels(LinearDiscriminantAnalysis()).fit_transform(X, y).shape == (30, 1)
    chosen = KeepLabels(SelectKBest(k=2)).fit_transform(X, y)
    assert chosen.dims == ("clip", "feature")


def test_sparse_results_are_made_dense(X):
    Z = KeepLabels(OneHotEncoder()).fit_transform((X > 2).astype(float))
    assert isinstance(Z.values, np.ndarray)
    assert Z.shape == (30, 12)


def test_names_are_those_of_the_features(X):
    scaler = KeepLabels(StandardScaler()).fit(X)
    assert scaler.get_feature_names_out().tolist()[:2] == ["mel_100Hz", "mel_200Hz"]
    again = KeepLabels(StandardScaler()).fit(KeepLabels(PCA(2)).fit_transform(X))
    assert again.get_feature_names_out().tolist() == ["pca0", "pca1"]


def test_parameters_of_the_transformer(X):
    labelled = KeepLabels(PCA(2))
    assert labelled.get_params()["transformer__n_components"] == 2
    assert clone(labelled).set_params(transformer__n_components=3).fit_transform(X).shape == (30, 3)
    pipeline = make_pipeline(KeepLabels(PCA()), KernelDensity())
    search = GridSearchCV(pipeline, {"keeplabels__transformer__n_components": [1, 2]}, cv=3)
    assert search.fit(X.values).best_params_["keeplabels__transformer__n_components"] in (1, 2)


def test_wrong_input(X):
    with pytest.raises(ValueError, match=r"found shape \(30, 6, 1\); pool the frames first"):
        KeepLabels(StandardScaler()).fit(X.expand_dims(frame=1, axis=2))
    with pytest.raises(ValueError, match="put a feature extractor such as LogMel"):
        KeepLabels(StandardScaler()).fit(pd.DataFrame({"path": ["a.wav"]}))
    with pytest.raises(ValueError, match="'transformer' parameter"):
        KeepLabels(KernelDensity()).fit(X)
    with pytest.raises(ValueError, match="is expecting 6 features"):
        KeepLabels(StandardScaler()).fit(X).transform(X[:, :4])
