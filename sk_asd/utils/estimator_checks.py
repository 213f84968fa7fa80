"""Checks that every estimator of the package passes, for users' own estimators as well.

scikit-learn's :func:`~sklearn.utils.estimator_checks.check_estimator` knows plain 2-D arrays alone.
The checks here cover what this package adds: clip tables, labelled arrays, 3-D features, seeds and
threads.
"""

import functools
import io
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import torch
import xarray as xr
from sklearn.base import clone, is_classifier, is_outlier_detector
from sklearn.exceptions import NotFittedError

from sk_asd.utils._containers import plain, take_clips

INPUTS = ("waveforms", "features", "embeddings")


def check_estimator(estimator, inputs):
    """Run all checks on an estimator; the first failure raises.

    Parameters
    ----------
    estimator : estimator
        Extractor, embedder, outlier detector or classifier; it is cloned, not fitted itself.
        Extractors should take clips of 0.25 s at 16 kHz, feature estimators 12 bins and 20 frames.
        Detectors should keep the scores of their training clips in ``training_scores_``;
        classifiers should find their classes among the labels of the clips.
    inputs : {"waveforms", "features", "embeddings"}
        What the estimator takes.

    Raises
    ------
    AssertionError
        If a check fails.

    See Also
    --------
    yield_checks : The checks one by one, for pytest.

    Examples
    --------
    >>> from sk_asd.detectors import KNNDetector
    >>> from sk_asd.utils.estimator_checks import check_estimator
    >>> check_estimator(KNNDetector(), "embeddings")
    """
    for _, check in yield_checks(estimator, inputs):
        check(clone(estimator))


def yield_checks(estimator, inputs):
    """Yield the checks that apply to an estimator.

    Parameters
    ----------
    estimator : estimator
        Extractor, embedder, outlier detector or classifier.
    inputs : {"waveforms", "features", "embeddings"}
        What the estimator takes.

    Yields
    ------
    name : str
        Name of the check.
    check : callable
        Takes an unfitted estimator and raises AssertionError where it fails.
    """
    if inputs not in INPUTS:
        raise ValueError(f"inputs must be one of {INPUTS}, got {inputs!r}.")
    checks = [
        check_clone,
        check_input_unchanged,
        check_refit,
        check_global_generators,
        check_threads,
        check_pickle,
        check_labels,
        check_anomalies,
        check_rows,
        check_width,
        check_nan,
        check_empty,
        check_not_fitted,
    ]
    if is_outlier_detector(estimator):
        checks.append(check_detector)
    for check in checks:
        yield check.__name__, _bind(check, inputs)


def _bind(check, inputs):
    def bound(estimator):
        with warnings.catch_warnings():
            # GroupedDetector says so where no label reaches it, which is what plain arrays are.
            warnings.filterwarnings("ignore", "No column", UserWarning)
            check(estimator, inputs)

    return bound


def make_inputs(inputs, n_clips=24, seed=0):
    """Small clips with labels, in every container an estimator may be given.

    Parameters
    ----------
    inputs : {"waveforms", "features", "embeddings"}
        What the estimator takes.
    n_clips : int, default=24
        Number of clips, of two sections and two domains.
    seed : int, default=0
        Seed of the values.

    Returns
    -------
    labelled : DataFrame or DataArray
        Clip table or labelled array.
    array : ndarray
        The same values plain.
    y : ndarray of shape (n_clips,)
        Section as a number, as class labels of the plain array.
    """
    rng = np.random.default_rng(seed)
    section = np.arange(n_clips) % 2
    table = {
        "machine": np.full(n_clips, "fan", dtype=object),
        "section": np.array([f"{s:02d}" for s in section], dtype=object),
        "domain": np.where(np.arange(n_clips) % 4 < 2, "source", "target").astype(object),
        "split": np.full(n_clips, "train", dtype=object),
        "label": np.full(n_clips, "normal", dtype=object),
        "vel": rng.integers(1, 5, n_clips).astype(float),
    }
    shape = {"waveforms": (4000,), "features": (12, 20), "embeddings": (6,)}[inputs]
    array = rng.normal(size=(n_clips, *shape)).astype(np.float32)
    array += section.reshape(-1, *[1] * len(shape))
    if inputs == "waveforms":
        array *= np.float32(0.1)
        return pd.DataFrame({"audio": list(array), "sr": 16000, **table}), array, section
    dims = ("clip", "mel", "frame") if inputs == "features" else ("clip", "embedding")
    coords = {name: ("clip", values) for name, values in table.items()}
    return xr.DataArray(array, dims=dims, coords=coords), array, section


def _output(estimator, X):
    """Scores of a detector, probabilities of a classifier, values of a transformer."""
    if is_outlier_detector(estimator):
        return estimator.score_samples(X)
    if is_classifier(estimator):
        return estimator.predict_proba(X)
    return np.asarray(plain(estimator.transform(X)))


def _fitted_output(estimator, X, y=None):
    estimator = clone(estimator)
    _seed(estimator)
    return _output(estimator.fit(X, y), X)


def _seed(estimator, seed=0):
    names = [n for n in estimator.get_params() if n.split("__")[-1] == "random_state"]
    estimator.set_params(**dict.fromkeys(names, seed))


def _raises(expected, call, what):
    try:
        call()
    except expected as error:
        return str(error)
    raise AssertionError(f"{what} raised no {expected}.")


def check_clone(estimator, inputs):
    """A clone has the same parameters, and fitting changes none of them."""
    X, _, _ = make_inputs(inputs)
    before = {k: joblib.hash(v) for k, v in estimator.get_params(deep=False).items()}
    copied = clone(estimator)
    after = {k: joblib.hash(v) for k, v in copied.get_params(deep=False).items()}
    assert before == after, "clone changed parameters"
    copied.fit(X)
    after = {k: joblib.hash(v) for k, v in copied.get_params(deep=False).items()}
    assert before == after, "fit changed parameters"


def check_input_unchanged(estimator, inputs):
    """Neither fit nor the output changes what it was given."""
    X, _, _ = make_inputs(inputs)
    before = joblib.hash(X)
    _fitted_output(estimator, X)
    assert joblib.hash(X) == before, "the input was changed"


def check_refit(estimator, inputs):
    """The same seed gives the same result bit for bit, also when an estimator is fitted again."""
    X, _, _ = make_inputs(inputs)
    other, _, _ = make_inputs(inputs, n_clips=20, seed=1)
    _seed(estimator)
    first = _output(estimator.fit(X), X)
    np.testing.assert_array_equal(first, _fitted_output(estimator, X))
    estimator.fit(other)
    np.testing.assert_array_equal(first, _output(estimator.fit(X), X))


def check_global_generators(estimator, inputs):
    """The global generators of NumPy and torch are left alone, and do not matter."""
    X, _, _ = make_inputs(inputs)
    _seed(estimator)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    first = _output(clone(estimator).fit(X), X)
    drawn = np.random.random(), torch.rand(1).item()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    assert drawn == (np.random.random(), torch.rand(1).item()), "a global generator was used"  # noqa: NPY002
    np.testing.assert_array_equal(first, _output(clone(estimator).fit(X), X))


def check_threads(estimator, inputs):
    """Fits in threads are those of one thread."""
    X, _, _ = make_inputs(inputs)
    expected = _fitted_output(estimator, X)
    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(lambda _: _fitted_output(estimator, X), range(2)):
            np.testing.assert_array_equal(result, expected)


def check_pickle(estimator, inputs):
    """A fitted estimator survives pickle and joblib with identical results."""
    X, _, _ = make_inputs(inputs)
    _seed(estimator)
    estimator.fit(X)
    expected = _output(estimator, X)
    np.testing.assert_array_equal(_output(pickle.loads(pickle.dumps(estimator)), X), expected)
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    np.testing.assert_array_equal(_output(joblib.load(file), X), expected)


def check_labels(estimator, inputs):
    """Container in, container out: the same values, and labels that stay with their clips."""
    X, array, y = make_inputs(inputs)
    if is_outlier_detector(estimator) or is_classifier(estimator):
        scores = _fitted_output(estimator, X)
        assert isinstance(scores, np.ndarray)
        assert scores.shape[:1] == (len(X),)
        assert scores.ndim == (1 if is_outlier_detector(estimator) else 2)
        return
    _seed(estimator)
    labelled = clone(estimator).fit(X).transform(X)
    assert isinstance(labelled, xr.DataArray), "a labelled input must give a DataArray"
    assert labelled.dims[0] == "clip"
    for name in ("machine", "section", "domain", "vel"):
        assert labelled.coords[name].dims == ("clip",), f"label {name!r} was lost"
        expected = X[name].to_numpy() if isinstance(X, pd.DataFrame) else X.coords[name].values
        assert list(labelled.coords[name].values) == list(expected)
    bare = clone(estimator).fit(array, y).transform(array)
    assert isinstance(bare, np.ndarray), "a plain input must give a plain array"
    np.testing.assert_array_equal(bare, labelled.values)


def check_anomalies(estimator, inputs):
    """Clips that are labelled as anomalies are not learnt, and detectors say how many these are."""
    X, _, _ = make_inputs(inputs)
    anomalous = np.isin(np.arange(len(X)), (2, 7, 13))
    normal = take_clips(X, np.flatnonzero(~anomalous))
    label = np.where(anomalous, "Abnormal ", "ok").astype(object)
    _seed(estimator)
    expected = _fitted_output(estimator, normal)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(_with_labels(X, label))
    np.testing.assert_array_equal(_output(estimator, normal), expected)
    if not is_outlier_detector(estimator):
        return
    said = [w for w in caught if "3 of 24 training clips are labelled" in str(w.message)]
    assert said, "nothing was said of the anomalies"
    assert estimator.training_scores_.shape == (len(normal),)
    assert estimator.fit_predict(_with_labels(X, label)).shape == (len(X),)
    label[5] = "who knows"
    _raises(ValueError, lambda: estimator.fit(_with_labels(X, label)), "an unknown label")


def _with_labels(X, label):
    if isinstance(X, pd.DataFrame):
        return X.assign(label=label)
    return X.assign_coords(label=("clip", label))


def check_rows(estimator, inputs):
    """The result of a clip does not depend on the clips that come with it, nor on their order."""
    X, _, _ = make_inputs(inputs)
    _seed(estimator)
    estimator.fit(X)
    expected = _output(estimator, X)
    order = np.random.default_rng(0).permutation(len(X))
    # Extractors and networks compute each clip alone. Where clips are rows of one matrix product,
    # its blocking decides on the last bits.
    if inputs == "embeddings":
        compare = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    else:
        compare = np.testing.assert_array_equal
    compare(_output(estimator, take_clips(X, order)), expected[order])
    compare(_output(estimator, take_clips(X, order[:5])), expected[order[:5]])
    compare(_output(estimator, take_clips(X, order[:1])), expected[order[:1]])


def check_width(estimator, inputs):
    """Another number of bins or features than in training is refused; the message gives both."""
    _, array, y = make_inputs(inputs)
    _seed(estimator)
    estimator.fit(array, y)
    if inputs == "waveforms":
        return  # a clip of another length is a matter of `on_length`
    message = _raises(ValueError, lambda: _output(estimator, array[:, :-1]), "another width")
    for width in (array.shape[1], array.shape[1] - 1):
        assert str(width) in message, f"the message does not give {width}: {message}"


def check_nan(estimator, inputs):
    """NaN and infinite values are refused in fit and after."""
    _, array, y = make_inputs(inputs)
    _seed(estimator)
    fitted = clone(estimator).fit(array, y)
    # Scalers and the like may let NaN pass and say so.
    allowed = estimator.__sklearn_tags__().input_tags.allow_nan
    for value in (np.inf,) if allowed else (np.nan, np.inf):
        bad = array.copy()
        bad[3].flat[2] = value
        message = _raises(
            ValueError, lambda bad=bad: _output(clone(estimator).fit(bad, y), bad), "a bad value"
        )
        assert "NaN" in message or "inf" in message, message
        _raises(ValueError, lambda bad=bad: _output(fitted, bad), f"an input with {value}")


def check_empty(estimator, inputs):
    """No clips at all are refused."""
    X, array, _ = make_inputs(inputs)
    _raises(ValueError, lambda: estimator.fit(array[:0], []), "an empty array")
    _raises(ValueError, lambda: estimator.fit(take_clips(X, slice(0, 0))), "an empty table")


def check_not_fitted(estimator, inputs):
    """An estimator that needs fitting says so."""
    X, _, _ = make_inputs(inputs)
    if estimator.__sklearn_tags__().requires_fit:
        _raises(NotFittedError, lambda: _output(estimator, X), "an unfitted estimator")


def check_detector(estimator, inputs):
    """High is normal, thresholds set decisions alone, and ``training_scores_`` are kept."""
    X, _, _ = make_inputs(inputs)
    _seed(estimator)
    estimator.fit(X)
    scores, decision = estimator.score_samples(X), estimator.decision_function(X)
    assert scores.dtype == decision.dtype == np.float64
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(estimator.predict(X), np.where(decision >= 0, 1, -1))
    if inputs != "waveforms":
        # Up in one half of the bins or features and down in the other: far off in any metric.
        signs = np.where(np.arange(X.shape[1]) % 2, 50, -50).astype(X.dtype)
        far = X.copy(data=X.values + signs.reshape(-1, *[1] * (X.ndim - 2)))
        assert estimator.score_samples(far).mean() < scores.mean(), "high must be normal"
    assert estimator.training_scores_.shape == (len(X),)
    assert np.isfinite(estimator.training_scores_).all()
    expected = estimator.fit_predict(X)
    assert set(expected) <= {-1, 1}
    if "contamination" in estimator.get_params():
        low, high = clone(estimator), clone(estimator)
        low.set_params(contamination=0.05).fit(X)
        high.set_params(contamination=0.4).fit(X)
        np.testing.assert_array_equal(low.score_samples(X), high.score_samples(X))
        assert (high.fit_predict(X) == -1).sum() > (low.fit_predict(X) == -1).sum()
