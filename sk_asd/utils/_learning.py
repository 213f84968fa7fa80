"""Who can learn further clips after its fit, and why others cannot."""


def why_not_learn(detector):
    """Why a detector cannot learn further clips exactly.

    Parameters
    ----------
    detector : outlier detector
        Fitted or not.

    Returns
    -------
    str or None
        The reason; None if it can.
    """
    if hasattr(detector, "_why_not_learn"):
        return detector._why_not_learn()
    name = type(detector).__name__
    if hasattr(detector, "steps"):
        return "a Pipeline has no partial_fit; sk_asd.decisions.adapt updates its last step"
    if {"device", "max_epochs"} <= set(getattr(detector, "get_params", dict)()):
        return f"{name} trains a network, which a few clips more would mean to train again"
    return f"{name} keeps no training clips, and cannot be fitted again without them"


def learns(detector):
    """Check for :func:`~sklearn.utils.metaestimators.available_if`.

    Parameters
    ----------
    detector : outlier detector
        Fitted or not.

    Returns
    -------
    bool
        True.

    Raises
    ------
    AttributeError
        If it cannot learn, with the reason.
    """
    reason = why_not_learn(detector)
    if reason is not None:
        raise AttributeError(f"{type(detector).__name__} cannot learn further clips: {reason}.")
    return True
