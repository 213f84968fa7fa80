"""What builders share."""

from sklearn.pipeline import Pipeline

from sk_asd.ensemble import GroupedDetector
from sk_asd.systems._tables import MACHINES

BUDGETS = ("laptop", "report")


def check_choice(machine, budget):
    """Refuse a machine that is in no table, and an unknown budget."""
    if machine not in (None, *MACHINES):
        raise ValueError(
            f"machine must be one of {list(MACHINES)}, or None for any other, got {machine!r}."
        )
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {list(BUDGETS)}, got {budget!r}.")


def neural_pipeline(feature, detector, max_epochs, by="machine"):
    """Feature extractor, and a network for every machine; one for all without `by`."""
    if max_epochs is not None:
        detector.set_params(max_epochs=max_epochs)
    if by is not None:
        detector = GroupedDetector(detector, by=by)
    return Pipeline([("feature", feature), ("detector", detector)])
