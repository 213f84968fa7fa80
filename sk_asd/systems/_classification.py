"""Subsystem SC: embeddings of a section classifier and a detector on them."""

from sklearn.pipeline import Pipeline

from sk_asd.detectors import KNNDetector
from sk_asd.embedders import SectionEmbedder
from sk_asd.ensemble import GroupedDetector
from sk_asd.features import STFT, LogMel

# `report`: FFT, window and epochs of the AITHU report's Table 3, and its network for three of seven
# machines. `laptop`: fewer bins, frames and channels, for minutes of training on 2 cores.
_BUDGETS = {
    "report": {
        "stft": {"n_fft": 2048, "hop_length": 512},
        "logmel": {"n_fft": 2048, "hop_length": 512, "n_mels": 64},
        "embedder": {"backbone": "mfnse", "n_frames": 192, "max_epochs": 25},
    },
    "laptop": {
        "stft": {"n_fft": 512, "hop_length": 512},
        "logmel": {"n_fft": 1024, "hop_length": 512, "n_mels": 64},
        "embedder": {
            "backbone": "cnn6",
            "embedding_dim": 512,
            "n_frames": 128,
            "max_epochs": 50,
            "batch_size": 16,
            "module__width": 0.25,
        },
    },
}


def make_sc(
    *,
    budget="laptop",
    feature="logmel",
    target="joint",
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
    budget : {"laptop", "report"}, default="laptop"
        ``"report"``: FFT of 2048 samples, windows of 192 frames and 25 epochs as in the report's
        Table 3, MobileFaceNet with squeeze-excitation for all machines; ``"laptop"``: Cnn6 with
        fewer bins, frames and channels, for a few minutes of training on 2 cores.
    feature : {"logmel", "stft"} or transformer, default="logmel"
        Log-mel spectrogram, or magnitudes of the short-time Fourier transform; or an own
        transformer from clips to features ``(clip, bin, frame)``.
    target : str or sequence of str, default="joint"
        Columns that make the classes; see :class:`~sk_asd.embedders.SectionEmbedder`. The report
        takes ``"section"``; machine, section, domain and attributes jointly tell more clips apart.
    detector : outlier detector, default=None
        None is :class:`~sk_asd.detectors.KNNDetector`.
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
        If `budget` or `feature` is unknown.

    References
    ----------
    AITHU report for DCASE 2022 task 2, section 3.1 and Table 3.

    Examples
    --------
    >>> from sk_asd.systems import make_sc
    >>> make_sc(budget="report", feature="stft")["embedder"].n_frames
    192
    """
    if budget not in _BUDGETS:
        raise ValueError(f"budget must be one of {sorted(_BUDGETS)}, got {budget!r}.")
    settings = _BUDGETS[budget]
    if isinstance(feature, str):
        extractors = {"logmel": LogMel, "stft": STFT}
        if feature not in extractors:
            raise ValueError(f"feature must be one of {sorted(extractors)}, got {feature!r}.")
        feature = extractors[feature](**settings[feature])
    embedder = SectionEmbedder(
        target=target,
        device=device,
        random_state=random_state,
        verbose=verbose,
        **settings["embedder"],
    )
    if max_epochs is not None:
        embedder.set_params(max_epochs=max_epochs)
    detector = KNNDetector() if detector is None else detector
    return Pipeline(
        [
            ("feature", feature),
            ("embedder", embedder),
            ("detector", GroupedDetector(detector, by=by, over=over)),
        ]
    )
