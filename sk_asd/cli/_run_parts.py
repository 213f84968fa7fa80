"""What a run trains: the system of one machine, and of an ensemble its members one by one."""

import contextlib

from sk_asd.cli._common import plain_warnings, relative_paths
from sk_asd.cli._models import load_model, networks, save_model
from sk_asd.cli._train import (
    argument_of,
    arguments_of,
    build,
    check_options,
    fit,
    sections_of,
    set_feature,
)
from sk_asd.systems._registry import ENSEMBLES

# What can be chosen without training anew, as the report did.
_CHOSEN_DETECTORS = ("knn", "lof", "cosine", "mahalanobis")
_CONTAMINATION = 0.1
DOMAINS = "domains"  # the part that tells the domains apart


def check_run_options(system, protocol, options):
    """Refuse options that would have no effect, and protocols without a choice.

    Parameters
    ----------
    system : str
        System or ensemble.
    protocol : {"A", "B", "C"}
        The protocol.
    options : dict
        Options that were given.

    Raises
    ------
    ValueError
        Naming the option and what it applies to.
    """
    check_options(system, options)
    if protocol == "B" or system in ENSEMBLES:
        return
    chosen = what_is_chosen(system)
    if chosen is None:
        raise ValueError(
            f"--protocol {protocol} has nothing to choose for {system} that would not have to be "
            "trained anew: give --protocol B."
        )
    if chosen in options:
        raise ValueError(f"--{chosen} is what --protocol {protocol} chooses: leave one away.")


def what_is_chosen(system):
    """Name of what the protocols A and C choose, None if nothing."""
    if system in ENSEMBLES:
        return "weight"
    return next((name for name in ("detector", "metric") if argument_of(name, system)), None)


def make_parts(system, options, machine):
    """Make what is to be trained for a machine.

    Parameters
    ----------
    system : str
        System or ensemble.
    options : dict
        Options that were given.
    machine : str
        The machine; one that is in the tables of the report gets its settings.

    Returns
    -------
    whole : outlier detector or None
        The ensemble; None for a single system.
    parts : dict of str to outlier detector
        Its members, or the single system itself, by name; all unfitted. With `DOMAINS` what tells
        the domains apart.
    """
    from sklearn.base import clone

    from sk_asd.cli._run_known import KnownScores
    from sk_asd.systems import make_system

    if system not in ENSEMBLES:
        return None, {system: build(system, options, machine)}
    whole = make_system(system, machine, verbose=1, **arguments_of(options, system))
    parts = {}
    for name, member in whole.estimators:
        if hasattr(member, "domain_classifier"):
            parts[DOMAINS] = clone(member).set_params(detector=KnownScores())
            member = member.detector
        parts[name] = member
    for part in parts.values():
        set_feature(getattr(part, "domain_classifier", part), options)
    return whole, parts


def model_path(folder, machine, name, run):
    """Path of the model of a part."""
    # A single system with fixed settings is all there is to the machine's model.
    whole = run.system not in ENSEMBLES and run.protocol == "B"
    return folder.model(machine) if whole else folder.model(machine, name)


def is_done(folder, machine, name, run):
    """Whether a part has its model and its scores."""
    return folder.scores(machine, name).exists() and model_path(folder, machine, name, run).exists()


def train_part(folder, machine, name, part, clips, run, progress):
    """Train a part, unless that has been done, and write its model and its scores.

    Parameters
    ----------
    folder : RunFolder
        Where they are written.
    machine, name : str
        Of which machine, and what.
    part : outlier detector
        The part; it is fitted in place.
    clips : DataFrame
        Training and test clips of the machine.
    run : Namespace
        ``system``, ``protocol``, ``root``, ``options`` and ``verbose``.
    progress : Progress
        Where progress is shown.
    """
    from sk_asd.cli._run_known import STAND_INS
    from sk_asd.decisions import set_threshold

    if is_done(folder, machine, name, run):
        return
    single = run.system not in ENSEMBLES
    choose = what_is_chosen(run.system) if single and run.protocol != "B" else None
    whole = single and choose is None
    path = model_path(folder, machine, name, run)
    train, test = clips[clips["split"] == "train"], clips[clips["split"] == "test"]
    with plain_warnings(), _named(machine, name):
        if path.exists():
            part, _ = load_model(path, trusted=STAND_INS)
        else:
            progress(f"{machine}: training {name} on {len(train)} clips")
            for estimator in networks(part):
                estimator.set_params(verbose=int(run.verbose))
            if name == DOMAINS:
                fit_domains(part, train)
            else:
                fit(part, train, progress)
            if whole:
                set_threshold(part, threshold=threshold_of(part[-1].training_scores_))
            header = {"system": name, "machine": machine, **run.options}
            with folder.writing(path) as temporary:
                save_model(
                    temporary,
                    part,
                    options=header,
                    sections=sections_of(train),
                    trusted=STAND_INS,
                )
        progress(f"{machine}: scoring {len(test)} clips with {name}")
        if name == DOMAINS:
            table = measure_domains(part, test)
        else:
            table = measure(part, train, test, choose)
        table.insert(0, "path", relative_paths(clips.loc[[*train.index, *test.index]], run.root))
        folder.write_csv(table, folder.scores(machine, name))


@contextlib.contextmanager
def _named(machine, name):
    """Say in an error which part it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{machine}, {name}: {error}") from error


def measure(pipeline, train, test, choose=None):
    """Scores of training and test clips, by all that there is to choose from.

    Parameters
    ----------
    pipeline : Pipeline
        A fitted system.
    train, test : DataFrame
        The clips it was fitted to, and others.
    choose : {"detector", "metric"}, default=None
        What there is to choose; None: nothing.

    Returns
    -------
    DataFrame
        Training clips first, one column a choice; those of training clips leave-one-out where the
        detector memorises them.
    """
    import pandas as pd

    from sk_asd.utils._system import chunks

    front, last = pipeline[:-1], pipeline[-1]
    if choose is None:
        new = [pipeline.score_samples(part) for part in chunks(test)]
        found = [pd.Series(scores) for scores in (last.training_scores_, *new)]
        return pd.DataFrame({"score": pd.concat(found, ignore_index=True)})
    if choose == "metric":
        (detector,) = last.detectors_.values()
        new = [detector.score_metrics(front.transform(part)) for part in chunks(test)]
        return pd.concat([detector.training_metrics_, *new], ignore_index=True)
    embedded = embeddings(front, train), embeddings(front, test)
    columns = {}
    for name in _CHOSEN_DETECTORS:
        grouped = with_detector(last, name).fit(embedded[0])
        new = grouped.score_samples(embedded[1])
        columns[name] = [*grouped.training_scores_, *new]
    return pd.DataFrame(columns)


def fit_domains(part, train):
    """Fit what tells the domains apart, and let it forget where that was done."""
    part.fit(train)
    for classifier in (part.domain_classifier, part.domain_classifier_):
        if classifier is not None:
            classifier.set_params(feature__cache_dir=None)
            for network in networks(classifier):
                network.set_params(device="auto")


def measure_domains(part, test):
    """Probability of the target domain of training clips, held out, and of test clips.

    Parameters
    ----------
    part : DomainNormalizedDetector
        Fitted to the training clips.
    test : DataFrame
        The test clips.

    Returns
    -------
    DataFrame
        Training clips first; NaN where the domains cannot be told apart.
    """
    import numpy as np
    import pandas as pd

    from sk_asd.utils._system import chunks

    new = np.full(len(test), np.nan)
    if part.domain_classifier_ is not None:
        target = list(part.domain_classifier_.classes_).index(part.domains_[1])
        found = [part.domain_classifier_.predict_proba(clips) for clips in chunks(test)]
        new = np.concatenate(found)[:, target]
    return pd.DataFrame({"target": [*part.training_probability_, *new]})


def embeddings(front, clips):
    """Embeddings of clips, whose features may not fit into memory at once."""
    import xarray as xr

    from sk_asd.utils._system import chunks

    return xr.concat([front.transform(part) for part in chunks(clips)], dim="clip")


def with_detector(grouped, name):
    """Unfitted copy of a GroupedDetector with another detector."""
    from sklearn.base import clone

    from sk_asd.systems._common import DETECTORS

    return clone(grouped).set_params(detector=DETECTORS[name]())


def threshold_of(training_scores):
    """Threshold of the challenge: 0.9 of a gamma distribution, over all sections of a machine."""
    from sk_asd.utils._normal_threshold import normal_threshold

    return normal_threshold(training_scores, _CONTAMINATION, "gamma")
