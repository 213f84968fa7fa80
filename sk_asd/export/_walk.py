"""The parts of a fitted system and where they stand in it."""

from sklearn.utils.validation import check_is_fitted

from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
from sk_asd.utils._wrapped import unwrapped


def parts(estimator, where=""):
    """Walk through a system, containers first.

    Parameters
    ----------
    estimator : estimator
        The fitted system.
    where : str
        Its own place.

    Yields
    ------
    where : str
        Place of a part.
    part : estimator
        The part.
    """
    estimator = unwrapped(estimator)
    yield where or type(estimator).__name__, estimator
    for name, inner in inside(estimator):
        yield from parts(inner, joined(where, name))


def inside(estimator):
    """Names, or groups, and fitted estimators that one is made of."""
    if hasattr(estimator, "steps"):
        return [(name, step) for name, step in estimator.steps if not is_passthrough(step)]
    if isinstance(estimator, GroupedDetector):
        check_is_fitted(estimator, "detectors_")
        return [
            (key, each) for key, found in estimator.detectors_.items() for each in as_list(found)
        ]
    if isinstance(estimator, ScoreEnsemble):
        check_is_fitted(estimator)
        return list(zip(estimator._names, estimator.estimators_))
    return []


def as_list(detectors):
    """Detectors of a group: one, or one for every value of the column `over`."""
    return list(detectors.values()) if isinstance(detectors, dict) else [detectors]


def is_passthrough(step):
    """Whether a step of a Pipeline does nothing."""
    return step is None or (isinstance(step, str) and step == "passthrough")


def joined(where, name):
    """Place of a part inside another; the only group, None, has no name."""
    return " / ".join(str(part) for part in (where, name) if part not in ("", None))
