"""The base of all estimators of the package."""

import warnings

import sklearn.base

from sk_asd._version import __version__
from sk_asd._versions import VersionWarning, mismatch

_STAMP = "_sk_asd_version"


class BaseEstimator(sklearn.base.BaseEstimator):
    """scikit-learn's base, with the version of the package in every pickle, and a declared state.

    Every class names its fitted attributes in `_state`, those of its bases aside: what
    :func:`sk_asd.save` writes, and all that :func:`sk_asd.load` sets. A pickle of another version
    is loaded with a warning.
    """

    _state: tuple = ("n_features_in_", "feature_names_in_", "_sklearn_output_config")

    @classmethod
    def _state_names(cls):
        """Names that a base declares and a subclass derives from others are none of its own."""
        declared = {name for base in cls.__mro__ for name in vars(base).get("_state", ())}
        return {name for name in declared if not hasattr(cls, name)}

    def _get_state(self):
        """Fitted attributes as a saved model holds them, by name."""
        return {name: vars(self)[name] for name in sorted(self._state_names() & vars(self).keys())}

    def _set_state(self, state):
        """Take the result of :meth:`_get_state`.

        Raises
        ------
        ValueError
            If it names anything but fitted attributes.
        """
        unknown = sorted(state.keys() - self._state_names())
        if unknown:
            raise ValueError(f"{type(self).__name__} has no fitted attributes {unknown}.")
        vars(self).update(state)

    def __getstate__(self):
        return {**super().__getstate__(), _STAMP: __version__}

    def __setstate__(self, state):
        state = dict(state)
        then = state.pop(_STAMP, "before 0.1.0")
        if then != __version__:
            found = f"sk_asd {then} (here {__version__})"
            warnings.warn(
                mismatch(f"This {type(self).__name__}", found), VersionWarning, stacklevel=2
            )
        super().__setstate__(state)
