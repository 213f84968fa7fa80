"""The base of all estimators of the package."""

import sklearn.base

from sk_asd._versions import VersionStamp


class BaseEstimator(VersionStamp, sklearn.base.BaseEstimator):
    """scikit-learn's base, with the version of the package in every pickle, and a declared state.

    Every class names its fitted attributes in `_state`, those of its bases aside: what
    :func:`sk_asd.save` writes, and all that :func:`sk_asd.load` sets.
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
