"""From the scores of the parts to those of the system: choice, weights, threshold, model."""

import functools
import warnings

import numpy as np
import pandas as pd
from sklearn.base import clone

from sk_asd.cli._common import relative_paths
from sk_asd.cli._models import load_model, save_model
from sk_asd.cli._run_known import STAND_INS, KnownDomains, KnownScores
from sk_asd.cli._run_parts import (
    DOMAINS,
    embeddings,
    threshold_of,
    what_is_chosen,
    with_detector,
)
from sk_asd.cli._run_protocols import choice_clips
from sk_asd.cli._train import sections_of
from sk_asd.datasets._csv import read_table
from sk_asd.decisions import set_threshold
from sk_asd.ensemble import ScoreEnsembleCV
from sk_asd.metrics import dcase_score, dcase_scorer
from sk_asd.metrics._dcase import NotMeasurable

_FEW = 4  # members whose weights are searched on the finer grid
_COLUMN = "known score of {}"  # no attribute of a recording is called so


def finish_machine(folder, machine, whole, names, clips, run):
    """Make the scores and the model of a machine whose parts are done.

    Parameters
    ----------
    folder : RunFolder
        Where they are.
    machine : str
        The machine.
    whole : outlier detector or None
        The unfitted ensemble; None for a single system.
    names : list of str
        Names of the parts.
    clips : DataFrame
        Training and test clips of the machine.
    run : Namespace
        ``system``, ``protocol``, ``rules``, ``root`` and ``options``.

    Returns
    -------
    scores : DataFrame
        ``score``, ``threshold`` and ``decision`` of the test clips, with their index.
    choices : list of tuple
        Machine, what was set or chosen, and its value.
    """
    train, test = clips[clips["split"] == "train"], clips[clips["split"] == "test"]
    clips = pd.concat([train, test])
    parts = {name: _read(folder.scores(machine, name), clips, run.root) for name in names}
    finish = _finish_single if whole is None else _finish_ensemble
    scores, threshold, choices, model = finish(folder, machine, whole, parts, clips, run)
    if model is not None:
        with folder.writing(folder.model(machine)) as temporary:
            header = {"system": run.system, "machine": machine, **run.options}
            save_model(temporary, model, options=header, sections=sections_of(train))
    scores = pd.DataFrame({"score": scores[len(train) :], "threshold": threshold}, index=test.index)
    scores["decision"] = np.where(scores["score"] >= threshold, 1, -1)
    return scores, [(machine, *choice) for choice in choices]


def _read(path, clips, root):
    """Scores of a part, with the index of the clips."""
    table = read_table(path, "scores", ["path"])
    if table.pop("path").tolist() != relative_paths(clips, root):
        raise ValueError(f"{path} is not about the recordings in {root}: delete it.")
    return table.map(lambda text: float(text or "nan")).set_index(clips.index)


def _finish_single(folder, machine, whole, parts, clips, run):
    """Scores, threshold, choices, and the model if it is not there yet."""
    ((name, table),) = parts.items()
    chosen, choices, model = table.columns[0], [], None
    may_see = choice_clips(run.protocol, clips)
    if _can_choose(machine, clips[may_see], run):
        found = [
            dcase_score(clips[may_see], table[column][may_see], rules=run.rules)
            for column in table.columns
        ]
        chosen = table.columns[int(np.argmax(found))]
        choices = [(what_is_chosen(run.system), chosen)]
    scores = table[chosen].to_numpy()
    train = clips[clips["split"] == "train"]
    threshold = threshold_of(scores[: len(train)])
    if not folder.model(machine).exists():
        model, _ = load_model(folder.model(machine, name), trusted=STAND_INS)
        choose = _choose_detector if what_is_chosen(run.system) == "detector" else _choose_metric
        choose(model, chosen, train)
        set_threshold(model, threshold=threshold)
    return scores, threshold, choices, model


def _can_choose(machine, clips, run):
    """Whether the labels of clips can choose something; else the settings are fixed."""
    if run.protocol == "B":
        return False
    try:
        dcase_score(clips, np.zeros(len(clips)), rules=run.rules)
    except NotMeasurable as error:
        warnings.warn(
            f"{machine}: nothing is chosen, the settings are fixed. {error}", stacklevel=2
        )
        return False
    return True


def _choose_detector(pipeline, name, train):
    grouped = with_detector(pipeline[-1], name).fit(embeddings(pipeline[:-1], train))
    pipeline.steps[-1] = (pipeline.steps[-1][0], grouped)


def _choose_metric(pipeline, name, train):
    grouped = pipeline[-1]
    grouped.set_params(detector__metric=name)
    (detector,) = grouped.detectors_.values()
    grouped.training_scores_ = detector.set_params(metric=name).training_scores_


def _finish_ensemble(folder, machine, whole, parts, clips, run):
    """Scores, threshold, choices, and the model if it is not there yet."""
    table = clips.assign(**{_COLUMN.format(name): part.iloc[:, 0] for name, part in parts.items()})
    stand_ins = []
    for name, member in whole.estimators:
        known = KnownScores(_COLUMN.format(name))
        if DOMAINS in parts:
            domains = KnownDomains(_COLUMN.format(DOMAINS))
            known = clone(member).set_params(detector=known, domain_classifier=domains)
        stand_ins.append((name, known))
    may_see = choice_clips(run.protocol, clips)
    is_train = (clips["split"] == "train").to_numpy()
    if not _can_choose(machine, clips[may_see], run):
        fitted = clone(whole).set_params(estimators=stand_ins).fit(table[is_train])
    else:
        search = ScoreEnsembleCV(
            stand_ins,
            step=0.1 if len(stand_ins) <= _FEW else 0.2,
            scoring=functools.partial(dcase_scorer, rules=run.rules),
            by=whole.by,
            threshold=whole.threshold,
        )
        fitted = search.fit(table[is_train | may_see]).best_estimator_
    scores = np.concatenate([fitted.training_scores_, fitted.score_samples(table[~is_train])])
    choices = [
        (f"weight of {name}", float(weight))
        for (name, _), weight in zip(whole.estimators, fitted.weights_)
    ]
    model = None
    if not folder.model(machine).exists():
        models = {
            name: load_model(folder.model(machine, name), trusted=STAND_INS)[0] for name in parts
        }
        model = _with_members(fitted, models)
    return scores, fitted.offset_, choices, model


def _with_members(ensemble, models):
    """Put fitted members in the place of their stand-ins.

    Parameters
    ----------
    ensemble : ScoreEnsemble
        Fitted with stand-ins.
    models : dict of str to estimator
        Fitted parts by name.

    Returns
    -------
    ScoreEnsemble
        `ensemble`, as it would be if it had been fitted to the recordings.
    """
    domains = models.get(DOMAINS)
    members, fitted = [], []
    for (name, _), stand_in in zip(ensemble.estimators, ensemble.estimators_):
        model = models[name]
        if domains is not None:
            stand_in.detector_, stand_in.domain_classifier_ = model, domains.domain_classifier_
            inner = {"detector": clone(model), "domain_classifier": domains.domain_classifier}
            model = stand_in.set_params(**inner)
        members.append((name, clone(model)))
        fitted.append(model)
    ensemble.set_params(estimators=members)
    ensemble.estimators_ = fitted
    return ensemble
