"""Subsystems WSP-NFCDEE and IMDN: densities of log-mel spectrograms."""

from sk_asd.detectors import IMDNDetector, WSPFlowDetector
from sk_asd.features import LogMel
from sk_asd.systems._common import check_choice, neural_pipeline
from sk_asd.systems._tables import IMDN

# For machines that are not in Table 8, and for several at a time.
_ANY = {"n_mels": 64, "n_fft": 2048, "n_frames": 100, "network": "lrcgnn"}
_MAX_TIME = 2700


def make_wsp_nfcdee(
    machine=None,
    *,
    budget="laptop",
    features=None,
    flow="maf",
    pooling="wsp",
    by="machine",
    max_epochs=None,
    device="auto",
    random_state=None,
    verbose=0,
):
    """Normalizing flows on a weighted statistic pooling (subsystem WSP-NFCDEE of the AITHU report).

    The report's Table 7 prints the features of Table 8, networks included, which a flow does not
    have; they are taken for a copy by mistake, and all machines get 128 mel bins, an FFT of 2048
    samples and whole clips, unless `features` says otherwise.

    Parameters
    ----------
    machine : str, default=None
        Machine whose settings are taken: "bearing", "fan", "gearbox", "slider", "ToyCar",
        "ToyTrain" or "valve". None is for every other machine and for several at a time.
    budget : {"laptop", "report"}, default="laptop"
        ``"report"``: 128 mel bins and five transforms; ``"laptop"``: 64 bins, three narrower
        transforms, and 45 minutes of training at most.
    features : {"table7"}, default=None
        ``"table7"``: mel bins, FFT size and frames of a window as the report prints them for the
        machine, whatever the budget; the network that is printed beside them has no place in a
        flow. None: those above.
    flow : {"maf", "nsf", "realnvp", "gaussian"}, default="maf"
        Conditional density; see :class:`~sk_asd.detectors.WSPFlowDetector`.
    pooling : {"wsp", "mean", "std", "gwrp", "none"}, default="wsp"
        What is taken over time; ``"none"`` is NFCDEE, without pooling.
    by : str or sequence of str, default="machine"
        Columns whose values get a network of their own; None is one network for all clips.
    max_epochs : int, default=None
        Number of epochs; None is that of the budget.
    device : str, default="auto"
        Where to train.
    random_state : int, RandomState instance or None, default=None
        Seed of the training.
    verbose : int, default=0
        1 prints the loss of every epoch.

    Returns
    -------
    Pipeline
        Steps ``feature`` and ``detector``, unfitted.

    Raises
    ------
    ValueError
        If `machine`, `budget` or `features` is unknown, or the table has no row because `machine`
        is None.

    References
    ----------
    AITHU report for DCASE 2022 task 2, section 3.2, equation 2 and Table 7.

    Examples
    --------
    >>> from sk_asd.systems import make_wsp_nfcdee
    >>> make_wsp_nfcdee("fan", budget="report")["feature"].n_mels
    128
    """
    check_choice(machine, budget)
    if budget == "report":
        feature = LogMel(n_fft=2048, hop_length=512, n_mels=128)
        settings = {}
    else:
        feature = LogMel(n_fft=1024, hop_length=512, n_mels=64)
        settings = {
            "module__transforms": 3,
            "module__hidden_features": (64, 64),
            "max_time": _MAX_TIME,
        }
    if features is not None:
        if features != "table7":
            raise ValueError(f"features must be 'table7' or None, got {features!r}.")
        if machine is None:
            raise ValueError("features='table7' needs a machine: the table has a row for each.")
        row = IMDN[machine]
        feature.set_params(n_fft=row["n_fft"], n_mels=row["n_mels"])
        settings["n_frames"] = row["n_frames"]
    detector = WSPFlowDetector(
        flow,
        pooling=pooling,
        by="section",
        device=device,
        random_state=random_state,
        verbose=verbose,
        **settings,
    )
    return neural_pipeline(feature, detector, max_epochs, by)


def make_imdn(
    machine=None,
    *,
    budget="laptop",
    mixture="frame",
    by="machine",
    max_epochs=None,
    device="auto",
    random_state=None,
    verbose=0,
):
    """Interpolation by mixture densities (subsystem IMDN of the AITHU report).

    Parameters
    ----------
    machine : str, default=None
        Machine whose settings are taken: "bearing", "fan", "gearbox", "slider", "ToyCar",
        "ToyTrain" or "valve". None is for every other machine and for several at a time.
    budget : {"laptop", "report"}, default="laptop"
        ``"report"``: the row of Table 8; ``"laptop"``: 64 mel bins, half the frames but at least
        30, a narrower network, and 45 minutes of training at most.
    mixture : {"frame", "bin", "literal"}, default="frame"
        Likelihood; see :class:`~sk_asd.detectors.IMDNDetector`.
    by : str or sequence of str, default="machine"
        Columns whose values get a network of their own; None is one network for all clips.
    max_epochs : int, default=None
        Number of epochs; None is that of the budget.
    device : str, default="auto"
        Where to train.
    random_state : int, RandomState instance or None, default=None
        Seed of the training.
    verbose : int, default=0
        1 prints the loss of every epoch.

    Returns
    -------
    Pipeline
        Steps ``feature`` and ``detector``, unfitted.

    Raises
    ------
    ValueError
        If `machine` or `budget` is unknown.

    References
    ----------
    AITHU report for DCASE 2022 task 2, section 3.2, equations 3 and 4, Tables 6 and 8.

    Examples
    --------
    >>> from sk_asd.systems import make_imdn
    >>> make_imdn("valve", budget="report")["detector"].detector.n_frames
    30
    """
    check_choice(machine, budget)
    row = IMDN.get(machine, _ANY)
    settings = {"network": row["network"], "n_frames": row["n_frames"]}
    if budget == "report":
        feature = LogMel(n_fft=row["n_fft"], hop_length=512, n_mels=row["n_mels"])
    else:
        feature = LogMel(n_fft=1024, hop_length=512, n_mels=64)
        settings |= {
            "n_frames": max(30, row["n_frames"] // 2),
            "module__hidden": 128 if row["network"] == "dfnet" else 64,
            # One window of a clip an epoch: small sets need many.
            "max_epochs": 200,
            "batch_size": 32,
            "max_time": _MAX_TIME,
        }
    detector = IMDNDetector(
        mixture=mixture, device=device, random_state=random_state, verbose=verbose, **settings
    )
    return neural_pipeline(feature, detector, max_epochs, by)
