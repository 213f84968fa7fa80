"""The base of all estimators of the package."""

import sklearn.base

from sk_asd._versions import VersionStamp


class BaseEstimator(VersionStamp, sklearn.base.BaseEstimator):
    """scikit-learn's base, with the version of the package in every pickle."""
