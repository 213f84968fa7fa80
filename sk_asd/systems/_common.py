"""What builders share."""

from sklearn.pipeline import Pipeline

from sk_asd import detectors
from sk_asd.ensemble import GroupedDetector
from sk_asd.systems import _registry
from sk_asd.systems._tables import MACHINES

BUDGETS = ("laptop", "report")
DETECTORS = {name: getattr(detectors, cls) for name, cls in _registry.DETECTORS.items()}
FEATURES = ("logmel", "stft")
THRESHOLD = "gamma"  # 0.9 of a gamma distribution, as the challenge has it


def check_choice(machine, budget):
    """Refuse a machine that is in no table, and an unknown budget."""
    if machine not in (None, *MACHINES):
        raise ValueError(
            f"machine must be one of {list(MACHINES)}, or None for any other, got {machine!r}."
        )
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {list(BUDGETS)}, got {budget!r}.")


def check_feature(feature):
    """Refuse an unknown name of a feature extractor."""
    if isinstance(feature, str) and feature not in FEATURES:
        raise ValueError(f"feature must be one of {list(FEATURES)}, got {feature!r}.")


def grouped(detector, by, over, random_state=None):
    """An outlier detector, given itself or by its name, for every group.

    One that is given by its name has the decision threshold of the challenge.
    """
    if isinstance(detector, str):
        if detector not in DETECTORS:
            raise ValueError(f"detector must be one of {list(DETECTORS)}, got {detector!r}.")
        detector = DETECTORS[detector](threshold=THRESHOLD)
        if "random_state" in detector.get_params():
            detector.set_params(random_state=random_state)
    return GroupedDetector(detector, by=by, over=over)


def neural_pipeline(feature, detector, max_epochs, by):
    """Feature extractor, and a network for every machine; one for all without `by`."""
    detector.set_params(threshold=THRESHOLD)
    if max_epochs is not None:
        detector.set_params(max_epochs=max_epochs)
    if by is not None:
        detector = GroupedDetector(detector, by=by)
    return Pipeline([("feature", feature), ("detector", detector)])
