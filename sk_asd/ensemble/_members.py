"""Outlier detectors of every kind as members of something: their scores, named lists of them."""

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch, get_tags

from sk_asd.ensemble._memory import call_once
from sk_asd.utils._base import BaseEstimator
from sk_asd.utils._containers import take_clips
from sk_asd.utils._sklearn import _BaseComposition, _num_samples, _VisualBlock
from sk_asd.utils._system import is_frozen, scores_of, training_scores_of


def fit_member(member, X, folds):
    """Fit a clone and score its training clips.

    Parameters
    ----------
    member : outlier detector
        A frozen one stays as it is.
    X : container
        Training clips.
    folds : list of tuple, or None
        Positions to train on and to score, for cross-fitted scores; a frozen member needs none.

    Returns
    -------
    fitted : outlier detector
        Fitted to all clips.
    scores : ndarray of shape (n_clips,)
        Scores of the training clips.
    """
    # FrozenEstimator has no default for y.
    fitted = clone(member).fit(X, None)
    if folds is None or is_frozen(member):
        return fitted, training_scores_of(fitted, X)
    scores = np.empty(_num_samples(X))
    for train, held_out in folds:
        other = clone(member).fit(take_clips(X, train), None)
        scores[held_out] = scores_of(other, take_clips(X, held_out))
    return fitted, scores


def fit_behind(member, extractor, features, folds):
    """As :func:`fit_member`, of a Pipeline whose first step has been fitted and applied already."""
    behind, scores = fit_member(member[1:], features, folds)
    head = member.steps[0][0], extractor
    return Pipeline([head, *behind.steps], verbose=member.verbose), scores


def call_named(name, memory, key, function, *args):
    """What a function does with a member, from memory where it is known under `key`.

    Raises
    ------
    ValueError
        As the member raises it, or if a score is NaN or +inf; the message has its name.
    """
    try:
        return call_once(memory, key, function, *args)
    except ValueError as error:
        raise ValueError(f"Member {name!r}: {error}") from error


class NamedMembers(BaseEstimator, _BaseComposition):
    """Base of estimators with the parameter `estimators`: pairs of a name and an outlier detector.

    Names work as in scikit-learn's ``VotingClassifier``: ``set_params(name=detector)``,
    ``set_params(name="drop")``, ``set_params(name__parameter=value)``.
    """

    def get_params(self, deep=True):
        """Get the parameters, those of the members included.

        Parameters
        ----------
        deep : bool, default=True
            Also return the members by name, and their parameters.

        Returns
        -------
        dict
            Names and values.
        """
        return self._get_params("estimators", deep=deep)

    def set_params(self, **params):
        """Set parameters, of members as ``name__parameter``.

        Parameters
        ----------
        **params : dict
            Names and values; the name of a member replaces it, by ``"drop"`` for instance.

        Returns
        -------
        self
            The estimator.
        """
        self._set_params("estimators", **params)
        return self

    @property
    def named_estimators(self):
        """Members by name, unfitted."""
        return Bunch(**dict(self.estimators))

    def _check_members(self):
        """Names and members that are not dropped, and a mask of them among all.

        Raises
        ------
        ValueError, TypeError
            If `estimators` is no list of named outlier detectors.
        """
        pairs = self.estimators
        if not pairs or not all(
            isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str)
            for pair in pairs
        ):
            raise ValueError(
                "The parameter 'estimators' must be a non-empty list of pairs (name, outlier "
                f"detector), got {pairs!r}."
            )
        names, members = zip(*pairs)
        self._validate_names(names)
        used = np.array([not (isinstance(m, str) and m == "drop") for m in members])
        if not used.any():
            raise ValueError(f"All members are dropped: {list(names)}.")
        for name, member in pairs:
            scores = hasattr(member, "score_samples") or hasattr(member, "decision_function")
            if member != "drop" and not (scores and hasattr(member, "fit")):
                raise TypeError(
                    f"Member {name!r} must be an outlier detector with fit and score_samples or "
                    f"decision_function, or 'drop'; got {member!r}."
                )
        kept = [pair for pair, u in zip(pairs, used) if u]
        return [name for name, _ in kept], [member for _, member in kept], used

    def _sk_visual_block_(self):
        names, members = zip(*self.estimators)
        return _VisualBlock("parallel", members, names=names)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        try:
            members = [member for _, member in self.estimators if member != "drop"]
            tags.input_tags.allow_nan = all(get_tags(m).input_tags.allow_nan for m in members)
        except (TypeError, ValueError, AttributeError):
            pass  # an invalid list, of which fit says what is wrong
        return tags
