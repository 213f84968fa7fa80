"""From scores to decisions, the same for every detector with a threshold."""

import numpy as np
from sklearn.base import OutlierMixin


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
        itself where the detector memorises its training clips.

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
        return np.where(self.training_scores_ >= self.offset_, 1, -1)
