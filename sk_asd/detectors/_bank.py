"""Detectors that keep their training clips, and so can learn more of them."""

import numpy as np
from sklearn.utils.metaestimators import available_if

from sk_asd.detectors._base import BaseDetector
from sk_asd.utils._labels import normal_clips
from sk_asd.utils._learning import learns
from sk_asd.utils._sklearn import _fit_context


class BankDetector(BaseDetector):
    """Base of the detectors that keep their training clips.

    Leave-one-out scores compare each training clip with all others, so that no sums over the
    clips make up for the clips themselves once others join them.
    """

    _state = ("_clips",)

    @available_if(learns)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None):
        """Learn further normal clips.

        The result, ``training_scores_`` and ``offset_`` included, is that of ``fit`` on all clips
        together, those learnt before first; a `random_state` should be an int.

        Parameters
        ----------
        X : array-like or DataArray of shape (n_clips, n_features)
            Embeddings or pooled features of normal clips; a single one will do, but for the first
            call, which is ``fit``.
        y : None
            Ignored.

        Returns
        -------
        self
            The fitted detector.

        Raises
        ------
        ValueError
            As ``fit``, or if `X` has another number of features than the clips before.
        """
        if not hasattr(self, "training_scores_"):
            return self.fit(X)
        X, _ = normal_clips(X)
        X = self._validate(X, reset=False)
        return self._learn(np.concatenate([known_clips(self), X]))

    def _learn(self, X):
        # What belongs to the caller may change.
        X = X.copy()
        super()._learn(X)
        self._keep(X)
        return self

    def _keep(self, X):
        vars(self).pop("_clips", None)
        if np.array_equal(self._searched(), X):
            return
        # Networks and extractors give single precision, of which nothing is lost.
        with np.errstate(over="ignore"):
            single = X.astype(np.float32)
        self._clips = single if np.array_equal(single, X) else X

    def _kept(self):
        return getattr(self, "_clips", self._searched())

    def _searched(self):
        """Clips that a search for neighbours holds; it needs no others where they are the same."""
        return None

    def _known_scores(self):
        """Scores of the training clips as anybody's, not leave-one-out."""
        return self._score(np.asarray(known_clips(self), dtype=np.float64))

    def _why_not_learn(self):
        if getattr(self, "metric", None) == "precomputed":
            return "metric='precomputed' gives distances to the clips of one fit, and no others"
        return None


def known_clips(detector):
    """Training clips of a fitted :class:`BankDetector`.

    Parameters
    ----------
    detector : BankDetector
        Fitted.

    Returns
    -------
    ndarray of shape (n_clips, n_features)
        The clips, in the order of ``training_scores_``.

    Raises
    ------
    ValueError
        If it has not kept them, or only some.
    """
    clips = detector._kept()
    if clips is None:
        raise ValueError(
            f"This {type(detector).__name__} was fitted by a version that did not keep its "
            "training clips: fit anew."
        )
    if len(clips) != len(detector.training_scores_):
        raise scores_only_before(detector)
    return clips


def scores_only_before(detector):
    """Error for a detector that has scores of clips which it did not learn."""
    return ValueError(
        f"This {type(detector).__name__} has scores of clips that it did not learn: it was adapted "
        "by scores only before. Do so again, or fit anew."
    )
