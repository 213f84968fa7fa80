"""Subsystems SC and MHCR: embeddings of a classifier on spectrograms, and a detector on them."""

import warnings

from sklearn.pipeline import Pipeline

from sk_asd.embedders import MultiHeadEmbedder, SectionEmbedder
from sk_asd.features import STFT, LogMel, Wav2Vec
from sk_asd.systems import _tables
from sk_asd.systems._common import check_choice, check_feature, grouped

# For machines that are not in Table 3, and for several at a time.
_ANY = {
    "feature": "stft",
    "n_mels": 64,
    "n_fft": 2048,
    "n_frames": 192,
    "backbone": "mobilefacenet",
}

# The report's schedule; batch size and hop are not given there.
_REPORT = {"max_epochs": 25, "lr": 1e-3, "batch_size": 64}
# What small machines can afford, and what carries a small model: see benchmarks/results.
_LAPTOP = {
    "n_frames": 128,
    "window_hop": 32,
    "subtract_mean": True,
    "mixup": 1.0,
    "max_epochs": 75,
    "batch_size": 16,
    "max_time": 2700,
}
# 100 frames a second.
_WAV2VEC_WINDOWS = {"n_frames": 400, "window_hop": 100, "subtract_mean": False}
_LAPTOP_WIDTH = {"mobilefacenet": 0.5, "mfnse": 0.5, "cnn6": 0.25, "ecapa": 0.25}


def make_sc(
    machine=None,
    *,
    budget="laptop",
    feature=None,
    backbone=None,
    target=None,
    detector=None,
    by=("machine", "section"),
    over=None,
    max_epochs=None,
    device="auto",
    random_state=None,
    verbose=0,
):
    """Section classifier (subsystem SC of the AITHU report) and a detector per section.

    Parameters
    ----------
    machine : str, default=None
        Machine whose row is taken: "bearing", "fan", "gearbox", "slider", "ToyCar", "ToyTrain" or
        "valve". None is for every other machine and for several at a time:
        STFT and MobileFaceNet.
    budget : {"laptop", "report"}, default="laptop"
        ``"report"``: the row of Table 3, 25 epochs;
        ``"laptop"``: fewer bins, frames and channels, each clip's mean subtracted and mixup,
        for at most 45 minutes of training on 2 cores.
    feature : {"logmel", "stft"} or transformer, default=None
        Log-mel spectrogram, or magnitudes of the short-time Fourier transform; or an own
        transformer from clips to features ``(clip, bin, frame)``. None is that of the row.
    backbone : {"mobilefacenet", "mfnse", "ecapa", "cnn6"} or nn.Module, default=None
        Embedding network; None is that of the row.
    target : str or sequence of str, default=None
        Columns that make the classes; see :class:`~sk_asd.embedders.SectionEmbedder`. None: machine
        and section, as in the report, or ``"joint"`` for the laptop, which tells more clips apart.
    detector : {"knn", "lof", "cosine", "mahalanobis", "gmm"} or outlier detector, default=None
        None is :class:`~sk_asd.detectors.MahalanobisDetector`, the
        best of the four on the recordings of ``benchmarks/results/classification.md``.
    by : str or sequence of str, default=("machine", "section")
        Columns whose values get a detector of their own.
    over : str, default=None
        Column known in training only; see :class:`~sk_asd.ensemble.GroupedDetector`.
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
        Steps ``feature``, ``embedder`` and ``detector``, unfitted.

    Raises
    ------
    ValueError
        If `machine`, `budget`, `feature` or `detector` is unknown.

    References
    ----------
    AITHU report for DCASE 2022 task 2, section 3.1 and Table 3.

    Examples
    --------
    >>> from sk_asd.systems import make_sc
    >>> make_sc("slider", budget="report")["embedder"].backbone
    'mfnse'
    """
    if target is None:
        target = "joint" if budget == "laptop" else ["machine", "section"]
    feature, settings = _settings(machine, budget, feature, backbone, max_epochs)
    embedder = SectionEmbedder(
        target=target, device=device, random_state=random_state, verbose=verbose, **settings
    )
    return _pipeline(feature, embedder, grouped(detector or "mahalanobis", by, over, random_state))


def make_mhcr(
    machine=None,
    *,
    budget="laptop",
    feature=None,
    backbone=None,
    targets=None,
    loss_weights=None,
    detector=None,
    by=("machine", "section"),
    over=None,
    max_epochs=None,
    device="auto",
    random_state=None,
    verbose=0,
):
    """Multi-head classifier and regressor (subsystem MHCR of the AITHU report), and a detector.

    The report gives no features and networks for this subsystem; they are those of SC.

    Parameters
    ----------
    machine : str, default=None
        Machine whose row is taken: "bearing", "fan", "gearbox", "slider", "ToyCar", "ToyTrain" or
        "valve". None is for every other machine and for several at a time:
        STFT and MobileFaceNet.
    budget : {"laptop", "report"}, default="laptop"
        ``"report"``: the row of Table 3, 25 epochs;
        ``"laptop"``: fewer bins, frames and channels, each clip's mean subtracted and mixup,
        for at most 45 minutes of training on 2 cores.
    feature : {"logmel", "stft"} or transformer, default=None
        Log-mel spectrogram, or magnitudes of the short-time Fourier transform; or an own
        transformer from clips to features ``(clip, bin, frame)``. None is that of the row.
    backbone : {"mobilefacenet", "mfnse", "ecapa", "cnn6"} or nn.Module, default=None
        Embedding network; None is that of the row.
    targets : sequence of str, default=None
        Columns that get a head each; see :class:`~sk_asd.embedders.MultiHeadEmbedder`. None: the
        section and every attribute that varies. Which attributes are classified and which are
        regressed is part of the machine's row.
    loss_weights : dict of str to float, default=None
        Factors of the heads' losses.
    detector : {"knn", "lof", "cosine", "mahalanobis", "gmm"} or outlier detector, default=None
        None is :class:`~sk_asd.detectors.MahalanobisDetector`, the
        best of the four on the recordings of ``benchmarks/results/classification.md``.
    by : str or sequence of str, default=("machine", "section")
        Columns whose values get a detector of their own.
    over : str, default=None
        Column known in training only; see :class:`~sk_asd.ensemble.GroupedDetector`.
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
        Steps ``feature``, ``embedder`` and ``detector``, unfitted.

    Raises
    ------
    ValueError
        If `machine`, `budget`, `feature` or `detector` is unknown.

    References
    ----------
    AITHU report for DCASE 2022 task 2, section 3.1, equation 1 and Table 4.

    Examples
    --------
    >>> from sk_asd.systems import make_mhcr
    >>> make_mhcr("bearing")["embedder"].kinds["vel"]
    'regression'
    """
    feature, settings = _settings(machine, budget, feature, backbone, max_epochs)
    embedder = MultiHeadEmbedder(
        targets=targets,
        kinds=_tables.MHCR[machine] if machine else _tables.ALL_ATTRIBUTES,
        loss_weights=loss_weights,
        device=device,
        random_state=random_state,
        verbose=verbose,
        **settings,
    )
    return _pipeline(feature, embedder, grouped(detector or "mahalanobis", by, over, random_state))


def make_sc_wav2vec(
    machine=None,
    *,
    budget="laptop",
    model="small",
    target=None,
    detector=None,
    by=("machine", "section"),
    over=None,
    max_epochs=None,
    device="auto",
    random_state=None,
    verbose=0,
):
    """Section classifier on wav2vec features (subsystem SC-wav2vec), and a detector per section.

    Parameters
    ----------
    machine : str, default=None
        Machine whose detector is taken: "bearing", "fan", "gearbox", "slider", "ToyCar",
        "ToyTrain" or "valve". None is for every other machine and for several at a time:
        k-NN.
    budget : {"laptop", "report"}, default="laptop"
        ``"report"``: ECAPA-TDNN at its full width, 25 epochs;
        ``"laptop"``: a quarter of the channels, mixup,
        for at most 45 minutes of training on 2 cores.
    model : str, path or nn.Module, default="small"
        Where the features come from; see :class:`~sk_asd.features.Wav2Vec`. The report takes the
        large model of wav2vec, trained on AudioSet; ``"small"`` is a stand-in, trained on synthetic
        machine sounds, that needs no download.
    target : str or sequence of str, default=None
        Columns that make the classes; see :func:`make_sc`.
    detector : {"knn", "lof", "cosine", "mahalanobis", "gmm"} or outlier detector, default=None
        None is that of the machine's column in Table 5.
    by : str or sequence of str, default=("machine", "section")
        Columns whose values get a detector of their own.
    over : str, default=None
        Column known in training only; see :class:`~sk_asd.ensemble.GroupedDetector`.
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
        Steps ``feature``, ``embedder`` and ``detector``, unfitted.

    Raises
    ------
    ValueError
        If `machine`, `budget` or `detector` is unknown.

    Warns
    -----
    UserWarning
        If the report's budget is spent on the stand-in ``"small"``.

    References
    ----------
    AITHU report for DCASE 2022 task 2, section 3.1 and Table 5.

    Examples
    --------
    >>> from sk_asd.systems import make_sc_wav2vec
    >>> make_sc_wav2vec("ToyCar")["detector"].detector
    LOFDetector(threshold='gamma')
    """
    check_choice(machine, budget)
    if target is None:
        target = "joint" if budget == "laptop" else ["machine", "section"]
    if budget == "report" and isinstance(model, str) and model == "small":
        warnings.warn(
            "budget='report' with the packaged wav2vec model, which is not the report's: a small "
            "stand-in, trained on synthetic machine sounds. Give the file of the large model of "
            "wav2vec, trained on AudioSet if you have that, by model= of make_sc_wav2vec, wav2vec= "
            "of make_submission or --wav2vec.",
            UserWarning,
            stacklevel=2,
        )
    settings = _REPORT if budget == "report" else _LAPTOP | {"module__width": 0.25}
    embedder = SectionEmbedder(
        "ecapa",
        target=target,
        device=device,
        random_state=random_state,
        verbose=verbose,
        **{**settings, **_WAV2VEC_WINDOWS, **_epochs(max_epochs)},
    )
    detector = detector or _tables.WAV2VEC_DETECTOR.get(machine, "knn")
    detector = grouped(detector, by, over, random_state)
    return _pipeline(Wav2Vec(model, device=device), embedder, detector)


def _epochs(max_epochs):
    return {} if max_epochs is None else {"max_epochs": max_epochs}


def _settings(machine, budget, feature, backbone, max_epochs):
    """Feature extractor, and parameters of the embedder, of a machine's row."""
    check_choice(machine, budget)
    check_feature(feature)
    row = _tables.SC.get(machine, _ANY)
    laptop = budget == "laptop"
    feature = row["feature"] if feature is None else feature
    backbone = row["backbone"] if backbone is None else backbone
    n_mels = row["n_mels"] or _ANY["n_mels"]
    if feature == "logmel":
        n_fft = 1024 if laptop else row["n_fft"]
        feature = LogMel(n_fft=n_fft, hop_length=512, n_mels=n_mels)
    elif feature == "stft":
        feature = STFT(n_fft=512 if laptop else row["n_fft"], hop_length=512)
    settings = {"backbone": backbone, "n_frames": row["n_frames"], **_REPORT}
    if laptop:
        settings |= _LAPTOP
        if isinstance(backbone, str) and backbone in _LAPTOP_WIDTH:
            settings["module__width"] = _LAPTOP_WIDTH[backbone]
    return feature, settings | _epochs(max_epochs)


def _pipeline(feature, embedder, detector):
    return Pipeline([("feature", feature), ("embedder", embedder), ("detector", detector)])
