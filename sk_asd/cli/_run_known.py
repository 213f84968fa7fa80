"""Stand-ins for members of an ensemble that have been asked already.

An ensemble of these has the means, weights and thresholds of one of the members themselves.
"""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, OutlierMixin


class KnownScores(OutlierMixin, BaseEstimator):
    """Outlier detector whose scores are a column of the clip table.

    Parameters
    ----------
    column : str, default=None
        The column; None: all scores are 0.
    """

    def __init__(self, column=None):
        self.column = column

    def fit(self, X, y=None):
        """Do nothing: the scores are known."""
        self.is_fitted_ = True
        return self

    def score_samples(self, X):
        """Scores of the clips."""
        return np.zeros(len(X)) if self.column is None else X[self.column].to_numpy(dtype=float)


class KnownDomains(ClassifierMixin, BaseEstimator):
    """Domain classifier whose probability of the target is a column of the clip table.

    Parameters
    ----------
    column : str
        The column.
    """

    def __init__(self, column):
        self.column = column

    def fit(self, X, y):
        """Note the domains: the probabilities are known."""
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        """Probabilities of the clips."""
        target = X[self.column].to_numpy(dtype=float)
        return np.column_stack([1 - target, target])


# What models of parts may hold beside what every model may.
STAND_INS = (KnownScores, KnownDomains)
