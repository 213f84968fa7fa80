"""What all detectors share: the door, the threshold and scikit-learn's signs."""

from numbers import Real

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_asd.utils._base import BaseEstimator
from sk_asd.utils._checked_scores import checked_scores
from sk_asd.utils._containers import as_clips, is_clip_table, plain
from sk_asd.utils._decisions import DecisionMixin
from sk_asd.utils._labels import normal_clips
from sk_asd.utils._normal_threshold import normal_threshold
from sk_asd.utils._sklearn import Interval, StrOptions, _fit_context

# Of features, so that sums of their squares are finite.
_LARGEST = 1e150


class BaseDetector(DecisionMixin, BaseEstimator):
    """Base of the detectors.

    A subclass writes ``_fit(X)``, which learns and returns the scores of the training clips, and
    ``_score(X)``, which returns those of new ones; both high = normal. `X` is checked by then:
    float64, of shape (n_clips, n_features), finite, and in ``_fit`` not constant. ``_state`` names
    the attributes that ``_fit`` sets, which is what :func:`~sk_asd.save` writes. Parameters other
    than `contamination` and `threshold` are added to ``_parameter_constraints``. ``_min_clips`` is
    the fewest training clips it can work with, ``_takes`` what it is given in a Pipeline. A
    detector that keeps its training clips, and so learns further ones, derives from
    ``BankDetector``.

    A fitted detector also says what only it knows, where it can. Without one of these methods
    the export refuses it, and explanations fall back on what does for any detector.

    ``_exported()``
        For :func:`~sk_asd.export_onnx`: a ``torch.nn.Module`` that computes ``_score`` of a tensor
        of float64. ValueError with the reason where there is none. A detector whose ``_takes`` is
        "spectrograms" gets the number of frames, ``_exported(n_frames)``.
    ``_quadratic_form(X)``
        For :func:`~sk_asd.inspection.anomaly_map` of pooled features: the points ``expected`` that
        distances are measured from and a ``gradient``, both of the shape of `X`, with which
        ``(gradient * (X - expected)).sum(axis=1)`` is the squared distance. None where it is not.
    ``score_map(X)``
        For the same of features ``(n_clips, n_bins, n_frames)``: how abnormal every bin of every
        frame is, high = abnormal, in the unit ``_map_unit``. Should it have no frames,
        ``_map_over_frames(X)`` has them.
    ``_distances(a, b)``
        For :func:`~sk_asd.inspection.nearest_normal`: the distances of clips, as the detector
        compares them. Not needed where ``n_neighbors`` and ``metric``, or ``precision_``, tell.
    """

    _parameter_constraints: dict = {
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "threshold": [StrOptions({"quantile", "gamma"})],
    }
    _state = ("training_scores_", "offset_")
    _min_clips = 2
    _takes = "vectors"

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Fit the detector to normal clips.

        Parameters
        ----------
        X : array-like or DataArray of shape (n_clips, n_features)
            Embeddings or pooled features of normal clips.
        y : None
            Ignored.

        Returns
        -------
        self
            The fitted detector.

        Raises
        ------
        ValueError
            If there are too few clips, NaN or infinite values, or only constant features, or a
            label is neither that of a normal clip nor of an anomaly.

        Warns
        -----
        UserWarning
            If clips are labelled as anomalies. They are left out.
        """
        X, _ = normal_clips(X)
        X = self._validate(X, reset=True)
        if not np.ptp(X, axis=0).any():
            raise ValueError(
                f"All {X.shape[1]} features are constant over the {X.shape[0]} training clips: "
                "there is nothing to learn from. Are the recordings silent or copies of one clip?"
            )
        return self._learn(X)

    def _learn(self, X):
        """Fit to checked clips."""
        self.training_scores_ = checked_scores(self._fit(X), self)
        self.offset_ = normal_threshold(self.training_scores_, self.contamination, self.threshold)
        return self

    def score_samples(self, X):
        """Normality of clips.

        Parameters
        ----------
        X : array-like or DataArray of shape (n_clips, n_features)
            Embeddings or pooled features.

        Returns
        -------
        ndarray of shape (n_clips,)
            Scores, high = normal.
        """
        check_is_fitted(self)
        return checked_scores(self._score(self._validate(X, reset=False)), self)

    def _validate(self, X, reset):
        X = as_clips(X)
        if is_clip_table(X):
            raise ValueError(
                f"{type(self).__name__} takes embeddings or pooled features, not a clip table: put "
                "a feature extractor such as LogMel and TimePooling before it in a Pipeline."
            )
        X = plain(X)
        if len(getattr(X, "shape", ())) == 3:
            raise ValueError(
                f"{type(self).__name__} takes 2-D arrays (n_clips, n_features), found shape "
                f"{X.shape}: put TimePooling or an embedder before it."
            )
        # A minimum above 1 would make scikit-learn refuse to score a single clip.
        minimum = self._min_clips if reset else 1
        X = validate_data(self, X, reset=reset, dtype=np.float64, ensure_min_samples=minimum)
        largest = np.abs(X).max(axis=1)
        if largest.max() > _LARGEST:
            raise ValueError(
                f"The clip at position {int(largest.argmax())} has a feature of magnitude "
                f"{largest.max():.3g}, expected at most {_LARGEST:g}: {type(self).__name__} cannot "
                "square it."
            )
        return X
