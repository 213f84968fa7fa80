"""Units of an evaluation: one system, trained on the clips of one machine or of all."""

import contextlib
import json
import shutil
import tempfile
import warnings
from dataclasses import dataclass, replace

import pandas as pd
from sklearn.base import BaseEstimator, clone

from sk_asd.datasets._csv import read_table
from sk_asd.decisions import score_clips
from sk_asd.domains import DomainNormalizedDetector
from sk_asd.ensemble import ScoreEnsemble
from sk_asd.evaluation._choices import can_choose, choices_of, choose
from sk_asd.evaluation._protocols import choice_clips
from sk_asd.persistence import _file
from sk_asd.utils._clip_tables import sections_of
from sk_asd.utils._system import CHUNK_SIZE, every_estimator, networks, portable

COLUMNS = ("score", "threshold", "decision")


@dataclass(frozen=True)
class Unit:
    """What is trained at a time.

    Attributes
    ----------
    system : str
        Name of the system.
    name : str
        The machine, or "all".
    estimator : outlier detector
        Unfitted.
    grid : dict, list of dict or None
        What the protocols A and C choose from.
    protocol : {"A", "B", "C"}
        The protocol.
    rules : int or None
        Year of the rules.
    member : str, default=None
        A member of the ensemble that is fitted alone, for the memory of the unit.
    """

    system: str
    name: str
    estimator: BaseEstimator
    grid: dict | list | None
    protocol: str
    rules: int | None
    member: str | None = None

    def __str__(self):
        return f"{self.name}, {self.system}" + (f", {self.member}" if self.member else "")

    @property
    def members(self):
        """A unit for every member of an ensemble, which can be fitted at the same time."""
        if not isinstance(self.estimator, ScoreEnsemble):
            return []
        names = [name for name, member in self.estimator.estimators if member != "drop"]
        return [replace(self, member=name) for name in names]

    @property
    def classes(self):
        """Classes of the estimators that it is made of."""
        return tuple({type(part) for part in every_estimator(self.estimator)})


@dataclass
class Outcome:
    """What a unit gives.

    Attributes
    ----------
    scores : DataFrame
        ``score``, ``threshold`` and ``decision`` of the test clips, with their index.
    choices : list of tuple
        What was set or chosen, and its value.
    system : outlier detector or None
        The fitted system; None where it is in a file.
    """

    scores: pd.DataFrame
    choices: list
    system: BaseEstimator | None = None


def is_done(unit, folder):
    """Whether all of a unit is in the folder of the evaluation."""
    if not (folder.choices(unit).exists() and folder.scores(unit).exists()):
        return False
    return folder.model(unit).exists() or not _read_choices(unit, folder)["saved"]


def _read_choices(unit, folder):
    return json.loads(folder.choices(unit).read_text(encoding="utf-8"))


def discard_damaged(unit, folder):
    """Remove files of a unit that are not as this evaluation has written them."""
    for path in (folder.model(unit), folder.choices(unit), folder.scores(unit)):
        folder.discard_damaged(path)


def read_outcome(unit, clips, folder):
    """What a unit that is done has given.

    Raises
    ------
    ValueError
        If its files are about other clips.
    """
    table = read_table(folder.scores(unit), "scores", COLUMNS)
    test = clips[clips["split"] == "test"]
    if len(table) != len(test):
        raise ValueError(f"{folder.scores(unit)} is not about these recordings: delete it.")
    table = table[list(COLUMNS)].astype(float).set_axis(test.index)
    choices = list(map(tuple, _read_choices(unit, folder)["choices"]))
    return Outcome(table.astype({"decision": int}), choices)


def work(unit, clips, folder, progress):
    """Train, choose and score, but for what is done.

    Parameters
    ----------
    unit : Unit
        What to work on.
    clips : DataFrame
        Its training and test clips.
    folder : EvaluationFolder or None
        Where model, choices and scores are kept; None: nowhere.
    progress : Progress
        Where progress is shown.

    Returns
    -------
    Outcome or None
        None with a folder, from which :func:`read_outcome` reads it.
    """
    if folder is not None and is_done(unit, folder):
        return None
    # No network is to learn which folder a clip is from.
    train, test = (clips[clips["split"] == s].drop(columns="data") for s in ("train", "test"))
    with _named(unit):
        if unit.member is not None:
            _fit_member(unit, train, folder, progress)
            return None
        known = folder is not None and folder.model(unit).exists() and folder.choices(unit).exists()
        if known:
            system = load_system(unit, folder)
        else:
            system, choices = _train(unit, clips, train, test, folder, progress)
            if folder is not None:
                _save(unit, system, choices, train, folder)
        progress(f"{unit}: scoring {len(test)} clips")
        with progress.reading(f"{unit}: scoring"):
            scores = score_clips(system, test, chunk_size=_chunk_size(system, test))[list(COLUMNS)]
    if folder is None:
        return Outcome(scores, choices, system)
    folder.write_csv(scores, folder.scores(unit))
    shutil.rmtree(folder.memory(unit), ignore_errors=True)
    return None


def _fit_member(unit, train, folder, progress):
    """Fit a member of an ensemble, which the fit of the whole then finds in memory."""
    alone = clone(unit.estimator)
    member = dict(alone.estimators)[unit.member]
    _fit(
        unit,
        alone.set_params(estimators=[(unit.member, member)], weights=None),
        train,
        folder,
        progress,
    )


def _fit(unit, system, train, folder, progress):
    for network in networks(system):
        network.set_params(verbose=int(not progress.quiet))
    progress(f"{unit}: training on {len(train)} clips")
    # Training prints its epochs to stdout, which is for results.
    talk = contextlib.redirect_stdout(progress.stream)
    with _remembering(unit, system, folder), progress.reading(f"{unit}: training"), talk:
        system.fit(train)


def _chunk_size(system, test):
    """All clips at a time where the score of one depends on the others, else what memory holds."""
    parts = every_estimator(system)
    together = any(getattr(part, "statistics", None) == "transductive" for part in parts)
    return max(CHUNK_SIZE, len(test)) if together else CHUNK_SIZE


def _train(unit, clips, train, test, folder, progress):
    """Fit the system and choose what the protocol leaves to choose."""
    system = clone(unit.estimator)
    _fit(unit, system, train, folder, progress)
    seen = clips[choice_clips(unit.protocol, clips)]
    if unit.protocol == "B" or not can_choose(seen, unit.rules, unit):
        return system, choices_of(system)
    progress(f"{unit}: choosing by the labels of {len(seen)} clips")
    return choose(system, unit.grid, train, seen.drop(columns="data"), unit.rules)


@contextlib.contextmanager
def _remembering(unit, system, folder):
    """Give a memory to the estimators that can use one, for the time of a fit.

    What members of an ensemble have learnt outlives an evaluation that is interrupted; a domain
    classifier that several members share is trained once.
    """
    with contextlib.ExitStack() as stack:
        memory = None
        for part in _with_memory(system, None):
            if memory is None and folder is None:
                memory = stack.enter_context(tempfile.TemporaryDirectory())
            elif memory is None:
                memory = str(folder.memory(unit))
            part.memory = memory
        yield
    if memory is not None:
        for part in _with_memory(system, memory):
            part.memory = None


def _with_memory(system, memory):
    """Ensembles, and detectors that tell domains apart, within a system, that have this memory."""
    kinds = ScoreEnsemble, DomainNormalizedDetector
    found = [part for part in every_estimator(system) if isinstance(part, kinds)]
    return [part for part in found if part.memory == memory]


def _save(unit, system, choices, train, folder):
    """Write the model, where it can be saved, and then what was chosen."""
    options = {"system": unit.system, "machine": unit.name}
    about = {"options": options, "sections": sections_of(train)}
    saved = True
    try:
        with folder.writing(folder.model(unit)) as temporary, portable(system):
            _file.write(system, temporary, about, unit.classes)
    except (TypeError, ValueError) as error:
        saved = False
        warnings.warn(f"{unit}: no model file is written. {error}", stacklevel=2)
    with folder.writing(folder.choices(unit)) as temporary:
        text = json.dumps({"machine": unit.name, "choices": choices, "saved": saved})
        temporary.write_text(f"{text}\n", encoding="utf-8")


def load_system(unit, folder):
    """The fitted system of a unit from its file, of whose classes those of the user are known.

    Raises
    ------
    OSError, ValueError
        If there is none, or it cannot be loaded.
    """
    return _file.read(folder.model(unit), unit.classes)[0]


@contextlib.contextmanager
def _named(unit):
    """Say in an error which unit it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{unit}: {error}") from error
