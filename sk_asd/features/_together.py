"""Several feature extractors at once: every clip is read once for all of them."""

import numpy as np

from sk_asd.features._base import BaseExtractor, fill
from sk_asd.utils._containers import wrap

_READING = ("sr", "duration", "on_length", "on_rate", "channel")
_NO_MATTER = ("n_jobs", "cache_dir", "device")


def is_extractor(step):
    """Whether a step reads clips itself, and its output is what it computes."""
    return isinstance(step, BaseExtractor) and not hasattr(step, "_sklearn_output_config")


def reads_alike(one, other):
    """Whether two extractors, both fitted or none, take the same samples of a clip."""
    return _values(one, _READING) == _values(other, _READING)


def computes_alike(one, other):
    """Whether two extractors, both fitted or none, give the same features."""
    names = [name for name in one.get_params(deep=False) if name not in _NO_MATTER]
    return type(one) is type(other) and _values(one, names) == _values(other, names)


def _values(extractor, names):
    found = [getattr(extractor, name) for name in names]
    # Arrays, such as a window, are the same only if they are one.
    values = [v if isinstance(v, (str, int, float, tuple, type(None))) else id(v) for v in found]
    return [*values, getattr(extractor, "n_samples_", None)]


def fit_together(extractors, X):
    """Fit extractors that read alike to clips, and compute their features.

    Parameters
    ----------
    extractors : list of BaseExtractor
        Unfitted; they are fitted in place.
    X : DataFrame
        Clip table.

    Returns
    -------
    list of DataArray
        Features by each of them, as ``fit_transform`` gives them.
    """
    source = extractors[0]._source(X, reset=True)
    source.keep = True
    heard = None
    for extractor in extractors:
        heard = extractor._fit_to(source, X, heard)
    return _features(extractors, source, X)


def transform_together(extractors, X):
    """Features by fitted extractors that read alike.

    Parameters
    ----------
    extractors : list of BaseExtractor
        Fitted.
    X : DataFrame
        Clip table.

    Returns
    -------
    list of DataArray
        Features by each of them, as ``transform`` gives them.
    """
    return _features(extractors, extractors[0]._source(X, reset=False), X)


def _features(extractors, source, X):
    found = {id(e): e.transform(X) for e in extractors if e.cache_dir is not None}
    others = [e for e in extractors if id(e) not in found]
    arrays = [np.empty((len(source), *e._shape()), dtype=np.float32) for e in others]
    for _ in fill(others, source, lambda rows: [array[rows] for array in arrays]) if others else ():
        pass
    for extractor, array in zip(others, arrays):
        dims, coords = extractor._labels()
        found[id(extractor)] = wrap(array, X, dims, coords)
    return [found[id(extractor)] for extractor in extractors]
