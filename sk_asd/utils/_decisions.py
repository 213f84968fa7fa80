"""From scores to decisions, the same for every detector with a threshold."""

import numpy as np
from sklearn.base import OutlierMixin

from sk_asd.utils._containers import take_clips
from sk_asd.utils._labels import is_anomaly


class DecisionMixin(OutlierMixin):
    """Decisions of a detector with ``score_samples``, ``training_scores_`` and ``offset_``."""

    def decision_function(self, X):
        """Scores relative to the threshold.

        Parameters
        ----------
        X : container of clips
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_clips,)
            ``score_samples(X)`` minus the threshold; negative = abnormal.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Decide whether new clips are normal.

        Parameters
        ----------
        X : container of clips
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_clips,)
            +1 for normal, −1 for abnormal.
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def fit_predict(self, X, y=None):
        """Fit, and decide on the training clips themselves.

        Unlike ``fit(X).predict(X)`` this uses ``training_scores_``, in which no clip vouches for
        itself where the detector memorises its training clips. Clips that are labelled as anomalies
        are not learnt, and decided on as new ones.

        Parameters
        ----------
        X : container of clips
            As in ``fit``.
        y : None
            Ignored.

        Returns
        -------
        ndarray of shape (n_clips,)
            +1 for normal, −1 for abnormal.
        """
        self.fit(X)
        return self._with_anomalies(X, self.training_scores_ >= self.offset_)

    def _with_anomalies(self, X, normal):
        """Decisions on all clips of a fit, from those on the clips that were learnt."""
        decisions = np.where(normal, 1, -1)
        anomalous = is_anomaly(X)
        if not anomalous.any():
            return decisions
        every = np.empty(len(anomalous), dtype=decisions.dtype)
        every[~anomalous] = decisions
        every[anomalous] = self.predict(take_clips(X, np.flatnonzero(anomalous)))
        return every
