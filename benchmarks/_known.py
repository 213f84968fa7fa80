"""Stand-ins for members of an ensemble that have been asked already.

An ensemble of these has the means, weights and thresholds of one of the members themselves.
"""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, OutlierMixin


class KnownScores(OutlierMixin, BaseEstimator):
    """Outlier detector whose scores are a column of the clip table; without one all are 0."""

    def __init__(self, column=None):
        self.column = column

    def fit(self, X, y=None):
        self.is_fitted_ = True
        return self

    def score_samples(self, X):
        return np.zeros(len(X)) if self.column is None else X[self.column].to_numpy(dtype=float)


class KnownDomains(ClassifierMixin, BaseEstimator):
    """Domain classifier whose probability of the target is a column of the clip table."""

    def __init__(self, column):
        self.column = column

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        target = X[self.column].to_numpy(dtype=float)
        return np.column_stack([1 - target, target])


def target_probability(part, test):
    """Probability of the target domain: of training clips, held out, and then of test clips.

    Parameters
    ----------
    part : DomainNormalizedDetector
        Fitted to the training clips.
    test : DataFrame
        The test clips.

    Returns
    -------
    ndarray of shape (n_clips,)
        NaN where the domains cannot be told apart.
    """
    new = np.full(len(test), np.nan)
    if part.domain_classifier_ is not None:
        target = list(part.domain_classifier_.classes_).index(part.domains_[1])
        new = part.domain_classifier_.predict_proba(test)[:, target]
    return np.concatenate([part.training_probability_, new])
