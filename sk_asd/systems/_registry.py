"""All systems by name, for whoever asks for one by its name: the command line above all."""

import importlib
import inspect
from dataclasses import dataclass
from functools import partial

from sk_asd.systems._tables import MACHINES


@dataclass(frozen=True)
class Builder:
    """A function that makes a system, and what one is told of it.

    Parameters
    ----------
    function : str
        Name of the function, which is loaded when it is needed.
    summary : str
        What the system is, in a line.
    which : str or int, default=None
        First argument of a function that makes several systems.
    without : tuple of str, default=()
        Arguments that mean nothing to this system.
    scope : {"machine", "all"}, default="machine"
        Whether it is best trained for each machine, or once for all, as what learns to tell
        machines apart.
    """

    function: str
    summary: str
    which: str | int | None = None
    without: tuple = ()
    scope: str = "machine"

    @property
    def make(self):
        """The function, to be called with options alone."""
        function = getattr(importlib.import_module("sk_asd.systems"), self.function)
        return function if self.which is None else partial(function, self.which)

    @property
    def arguments(self):
        """Names of the options that the system can be made with."""
        return set(inspect.signature(self.make).parameters) - set(self.without)


SINGLE = {
    "pooling": Builder(
        "make_pooling",
        "log-mel spectrogram, pooled over time, and an outlier detector; takes seconds",
    ),
    "sc": Builder(
        "make_sc",
        "a network that learns to tell the recordings' machines, sections, domains and attributes "
        "apart, and an outlier detector on its embeddings",
        scope="all",
    ),
    "mhcr": Builder(
        "make_mhcr",
        "the same with a head of its own for every attribute, which numbers are regressed by",
        scope="all",
    ),
    "sc-wav2vec": Builder(
        "make_sc_wav2vec",
        "as sc, on features of a pre-trained wav2vec model instead of a spectrogram",
        scope="all",
    ),
    "wsp-nfcdee": Builder(
        "make_wsp_nfcdee",
        "normalizing flows: how likely is the spectrogram's mean and spread over time",
    ),
    "imdn": Builder("make_imdn", "how likely is a frame, given those around it"),
    "aegan-ad": Builder(
        "make_aegan_ad",
        "how well does an autoencoder, trained against a critic, reconstruct windows",
    ),
    "ae": Builder(
        "make_baseline",
        "baseline of the challenge: an autoencoder of five frames",
        "ae",
        without=("target",),
    ),
    "mobilenetv2": Builder(
        "make_baseline",
        "baseline of the challenge: how sure is a classifier of the section",
        "mobilenetv2",
        without=("metric",),
    ),
}
ENSEMBLES = {
    "instant": Builder(
        "make_instant",
        "three ways to pool a log-mel spectrogram, fused; the best without a network, in seconds",
    ),
    "submission-1": Builder(
        "make_submission",
        "all six subsystems, the scores of each normalised per predicted domain",
        1,
    ),
    "submission-2": Builder(
        "make_submission", "all six subsystems", 2, without=("domain_statistics",)
    ),
    "submission-3": Builder(
        "make_submission",
        "the two or three subsystems that are best for the machine",
        3,
        without=("domain_statistics",),
    ),
    "submission-4": Builder(
        "make_submission", "sc and wsp-nfcdee", 4, without=("wav2vec", "domain_statistics")
    ),
    "best": Builder(
        "make_submission",
        "mhcr, and Gaussian mixtures on the ranks and peaks of spectrograms",
        "best",
        without=("wav2vec", "domain_statistics"),
        scope="all",
    ),
}
BUILDERS = SINGLE | ENSEMBLES
# Outlier detectors by name: classes of sk_asd.detectors.
DETECTORS = {
    "knn": "KNNDetector",
    "lof": "LOFDetector",
    "cosine": "CosineDetector",
    "mahalanobis": "MahalanobisDetector",
    "gmm": "GaussianMixtureDetector",
}


def make_system(name, machine=None, **options):
    """Make a system by its name.

    Parameters
    ----------
    name : str
        "pooling", "sc", "mhcr", "sc-wav2vec", "wsp-nfcdee", "imdn" or "aegan-ad"; a baseline, "ae"
        or "mobilenetv2"; an ensemble, "instant", "submission-1" to "submission-4" or "best".
    machine : str, default=None
        Machine whose settings are taken, where it is in the tables of the AITHU report and the
        system has settings of its own for it.
    **options
        What its builder takes, such as ``budget`` or ``max_epochs``.

    Returns
    -------
    Pipeline or ScoreEnsemble
        Unfitted.

    Raises
    ------
    TypeError
        If the builder has no such option.
    ValueError
        If the name is unknown, or the builder refuses an option.

    See Also
    --------
    make_sc, make_submission : Two of the builders.

    Examples
    --------
    >>> from sk_asd.systems import make_system
    >>> make_system("sc", "slider", budget="report")["embedder"].backbone
    'mfnse'
    """
    if name not in BUILDERS:
        raise ValueError(f"name must be one of {list(BUILDERS)}, got {name!r}.")
    builder = BUILDERS[name]
    unknown = sorted(set(options) - builder.arguments)
    if unknown:
        known = sorted(builder.arguments - {"machine"})
        raise TypeError(f"{name} has no option {unknown[0]!r}; it has {', '.join(known)}.")
    if machine in MACHINES and "machine" in builder.arguments:
        options = {"machine": machine, **options}
    return builder.make(**options)
