"""A whole evaluation: check, train what is missing, score, measure."""

import contextlib
import os
import warnings

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.base import BaseEstimator

from sk_asd.ensemble import ScoreEnsemble
from sk_asd.evaluation._choices import is_choosable
from sk_asd.evaluation._cluster import work_on_cluster
from sk_asd.evaluation._folder import EvaluationFolder, explained, make_manifest
from sk_asd.evaluation._protocols import DEV, EVAL, check_protocol
from sk_asd.evaluation._result import Evaluation, comparison, metrics_table
from sk_asd.evaluation._settings import described, plain
from sk_asd.evaluation._units import Unit, discard_damaged, is_done, read_outcome, work
from sk_asd.systems import make_system
from sk_asd.systems._registry import BUILDERS
from sk_asd.utils._clip_tables import names, relative_paths
from sk_asd.utils._containers import is_clip_table
from sk_asd.utils._labels import normal_clips
from sk_asd.utils._parallel import end_with_parent
from sk_asd.utils._progress import Progress
from sk_asd.utils._text import listed

SCOPES = ("machine", "all")


def evaluate(
    systems,
    clips,
    *,
    protocol="B",
    scope=None,
    choices=None,
    rules=None,
    folder=None,
    root=None,
    settings=None,
    n_jobs=None,
    client=None,
    verbose=0,
):
    """Train systems, score test clips, decide, choose as a protocol says, and measure.

    Parameters
    ----------
    systems : outlier detector, str, callable or dict
        What is evaluated: an unfitted system, such as a Pipeline; a name that
        :func:`~sk_asd.systems.make_system` knows; a function that makes a system for the machine
        that it is given, or for None; or a dict of these, by names of your own.
    clips : DataFrame
        Clip table with the column ``split``, training and test clips in it; also ``machine``,
        ``section``, ``domain`` and ``label`` where they are known. Without ``machine`` or
        ``section`` there is one. The column ``data`` tells ``"dev_data"`` from ``"eval_data"``;
        without it a folder of that name in ``path`` does.
    protocol : {"A", "B", "C"}, default="B"
        Which labels a choice may see. B takes fixed settings. A is an oracle: it chooses by the
        labels of the test clips that it reports, those of development data where there are any, as
        the AITHU report did. C chooses by those of sections 00 to 02 and reports 03 to 05.
    scope : {"machine", "all"}, default=None
        Whether a system is trained for each machine, with the settings that it has for it, or once
        for all. None is what suits the system: "all" for names of systems that learn to tell
        machines apart, else "machine".
    choices : dict or list of dict, default=None
        What A and C choose from, as :class:`~sklearn.model_selection.ParameterGrid` takes it; for
        several systems a dict of these by name. Parameters of the last step alone cost no further
        training of those before it. Of an ensemble the parameters of each member are chosen by its
        own score, then ``weights``, by default on a grid of 0.1. None is what the report chose: the
        detector of classifiers, the score of reconstructions, weights.
    rules : {2020, 2021, 2022}, default=None
        Year of the rules of the metrics; see :func:`~sk_asd.metrics.dcase_scores`.
    folder : str or path-like, default=None
        Folder for models, scores, tables and files of the challenge. An evaluation that was
        interrupted goes on there when it is called again with the same arguments.
    root : str or path-like, default=None
        Folder that the paths in tables are relative to; None leaves them as they are.
    settings : dict, default=None
        What the systems were made with, as JSON has it: kept in `folder`, which is refused with
        others, and shown in the report. None compares all parameters of the systems.
    n_jobs : int, default=None
        Systems trained in parallel, or machines.
    client : distributed.Client, default=None
        Connection to a dask scheduler whose workers train, with `folder` on storage that all share.
    verbose : int, default=0
        1 shows the progress on stderr.

    Returns
    -------
    Evaluation
        Tables, models, the report.

    Raises
    ------
    OSError
        If a file cannot be read or written; what is finished is kept in `folder`.
    TypeError
        If `clips` is no clip table, or a system no outlier detector.
    ValueError
        If `folder` holds something else or another evaluation, or another process is at work there;
        if labels are missing that the protocol needs, or it has nothing to choose; if a machine or
        section has no training or no test clips; or as a system raises it.

    Warns
    -----
    UserWarning
        Naming machines without figures, of whose test clips all have one label, or of which
        nothing can be chosen.

    See Also
    --------
    sk_asd.decisions.score_clips : Scores and decisions of one fitted system.

    Notes
    -----
    A system over all machines is chosen for once, with one setting for all of them. A choice is
    the fixed setting wherever nothing is better, so that A is never below B on the clips that it
    chooses by.

    References
    ----------
    AITHU report for DCASE 2022 task 2, sections 3 and 4.

    Examples
    --------
    >>> from sk_asd.datasets import make_machine_sounds
    >>> from sk_asd.evaluation import evaluate
    >>> from sk_asd.systems import make_pooling
    >>> clips = make_machine_sounds("fan", n_train=20, n_test=10, duration=1.0, random_state=0)
    >>> result = evaluate({"means": make_pooling(r=1.0), "peaks": make_pooling(r=0.5)}, clips)
    >>> total = result.metrics[result.metrics["machine"] == "total"]
    >>> total.set_index("system")["section"].to_dict()
    {'means': 'hmean', 'peaks': 'hmean'}
    """
    systems = _named(systems)
    clips = _checked(clips)
    rules = None if rules is None else int(rules)
    check_protocol(protocol, clips)
    zeros = np.zeros((clips["split"] == "test").sum())
    # Before any training: what rules are not defined for, and which machines have no figures.
    metrics_table(clips[clips["split"] == "test"], {"": zeros}, protocol, rules)
    units = _units(systems, clips, scope, choices, protocol, rules)
    progress = Progress(not verbose)
    if folder is None:
        if client is not None:
            raise ValueError("client= needs folder=, on storage that all workers share.")
        outcomes = _run(units, clips, None, n_jobs, None, progress)
        return _result(units, outcomes, clips, root, settings)
    folder = EvaluationFolder(folder)
    parameters = {"protocol": protocol, "rules": str(rules or 2022)}
    parameters |= _parameters(units) if settings is None else _scopes(units) | settings
    base = _base(clips) if root is None else root
    manifest = make_manifest(parameters, clips, base, choosing=protocol != "B")
    with folder.open(manifest):
        outcomes = _run(units, clips, folder, n_jobs, client, progress)
        result = _result(units, outcomes, clips, root, settings, folder)
        _write(result, folder)
    return result


def _scopes(units):
    """Names of the systems, and whether one is for all machines."""
    scopes = {unit.system: "all" if unit.name == "all" else "machine" for unit in units}
    return {"systems": list(scopes), "scope": scopes}


def _parameters(units):
    """All that the scores of systems depend on, by words that tell what has changed."""
    found = _scopes(units)
    for unit in units:
        if unit.grid is not None:
            found[f"choices of {unit.system}"] = plain(unit.grid)
        found |= {f"{unit}: {name}": v for name, v in described(unit.estimator).items()}
    return found


def _named(systems):
    """Systems by name."""
    if isinstance(systems, str):
        systems = {systems: systems}
    elif not isinstance(systems, dict):
        name = type(systems).__name__ if isinstance(systems, BaseEstimator) else "system"
        systems = {name: systems}
    for name, system in systems.items():
        if not isinstance(name, str) or name != os.path.basename(name) or name.startswith("."):
            raise ValueError(f"Names of systems are names of files, too; got {name!r}.")
        if isinstance(system, str) and system not in BUILDERS:
            raise ValueError(f"There is no system {system!r}; known are {list(BUILDERS)}.")
        known = isinstance(system, (str, BaseEstimator)) or callable(system)
        if not known or isinstance(system, type):
            raise TypeError(f"{name}: expected a system, its name or a function, got {system!r}.")
    if not systems:
        raise ValueError("No systems to evaluate.")
    return systems


def _checked(clips):
    """Training and test clips, with all columns that an evaluation needs."""
    if not is_clip_table(clips):
        raise TypeError(
            f"clips must be a clip table, a DataFrame with the column path or audio, got "
            f"{type(clips).__name__}."
        )
    if "split" not in clips.columns:
        raise ValueError('The clips have no column split, of which rows are "train" and "test".')
    clips = clips[clips["split"].isin(["train", "test"])]
    for column, only in (("machine", "machine"), ("section", "00"), ("domain", None)):
        if column not in clips.columns:
            clips = clips.assign(**{column: only})
    if clips["section"].isna().all():
        clips = clips.assign(section="00")
    if clips["domain"].notna().any():  # some without are one domain with the first
        clips = clips.assign(domain=clips["domain"].fillna("source"))
    if "label" not in clips.columns:
        clips = clips.assign(label=None)
    if "data" not in clips.columns:
        clips = clips.assign(data=_data(clips))
    is_train = clips["split"] == "train"
    if not is_train.any():
        raise ValueError("There are no training clips: no row has the split train.")
    clips = pd.concat([normal_clips(clips[is_train])[0], clips[~is_train]], ignore_index=True)
    for machine, rows in clips.groupby("machine"):
        if machine != os.path.basename(machine):
            raise ValueError(f"Names of machines are names of files, too; got {machine!r}.")
        train, test = (names(rows["section"][rows["split"] == s]) for s in ("train", "test"))
        unseen = [section for section in test if section not in train]
        if unseen or not test:
            lacking = f"training clips of section {listed(unseen)}" if unseen else "test clips"
            raise ValueError(
                f"There are no {lacking} of the machine {machine}. Add what is missing, or leave "
                "the machine out."
            )
    return clips


def _data(clips):
    if "path" not in clips.columns:
        return DEV
    folders = [os.path.normpath(path).split(os.sep) for path in map(os.fspath, clips["path"])]
    return [EVAL if EVAL in parts and DEV not in parts else DEV for parts in folders]


def _base(clips):
    """Folder that all clips are in, or None for clips without files."""
    if "path" not in clips.columns:
        return None
    return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in clips["path"]])


def _units(systems, clips, scope, choices, protocol, rules):
    """What is to be trained."""
    if scope not in (None, *SCOPES):
        raise ValueError(f"scope must be one of {list(SCOPES)} or None, got {scope!r}.")
    if choices is not None and protocol == "B":
        raise ValueError("choices= are for protocol=A and protocol=C; B takes fixed settings.")
    machines = sorted(clips["machine"].unique())
    found = []
    for name, system in systems.items():
        own = scope or (BUILDERS[system].scope if isinstance(system, str) else "machine")
        grid = choices if len(systems) == 1 or choices is None else choices.get(name)
        for unit in ["all"] if own == "all" else machines:
            estimator = _made(system, None if own == "all" else unit)
            if not isinstance(estimator, BaseEstimator):
                raise TypeError(f"{name}: expected an unfitted system, got {estimator!r}.")
            if protocol != "B" and not is_choosable(estimator, grid):
                raise ValueError(
                    f"protocol={protocol} has nothing to choose for {name} that would not have to "
                    "be trained anew: give protocol=B, or choices."
                )
            if isinstance(estimator, ScoreEnsemble) and not isinstance(grid, (dict, type(None))):
                raise TypeError(f"choices of the ensemble {name} must be one dict, got {grid!r}.")
            found.append(Unit(name, unit, estimator, grid, protocol, rules))
    return found


def _made(system, machine):
    if isinstance(system, str):
        return make_system(system, machine)
    return system if isinstance(system, BaseEstimator) else system(machine)


def _run(units, clips, folder, n_jobs, client, progress):
    """Work on all units that are not done; return what they give."""
    tasks = [(unit, _clips_of(unit, clips)) for unit in units]
    left = tasks
    if folder is not None:
        for unit in units:
            discard_damaged(unit, folder)
        left = [(unit, rows) for unit, rows in tasks if not is_done(unit, folder)]
        if len(left) < len(tasks):
            progress(f"{len(tasks) - len(left)} of {len(tasks)} units are done already")
    n_jobs = effective_n_jobs(n_jobs)
    if folder is None and len(left) == 1 and isinstance(left[0][0].estimator, ScoreEnsemble):
        left[0][0].estimator.set_params(n_jobs=n_jobs)
        n_jobs = 1
    # Members of ensembles at the same time, for the memory that the ensembles then find them in.
    members = []
    if folder is not None and (client is not None or n_jobs > 1):
        members = [(member, rows) for unit, rows in left for member in unit.members]
    for tasks_now in filter(None, (members, left)):
        if client is not None:
            found = work_on_cluster(client, folder, tasks_now, progress)
            continue
        # The losses of several trainings at once are for nobody to read.
        inner = progress if n_jobs == 1 else _Lines(progress)
        found = Parallel(n_jobs=n_jobs)(
            delayed(_work)(os.getpid(), *task, folder, inner) for task in tasks_now
        )
    if folder is None:
        return found
    return [read_outcome(unit, rows, folder) for unit, rows in tasks]


def _clips_of(unit, clips):
    return clips if unit.name == "all" else clips[clips["machine"] == unit.name]


def _work(process, *args):
    """Work on a unit, here or in a process, which ends with the one that started it."""
    if os.getpid() != process:
        end_with_parent(process)
    return work(*args)


class _Lines(Progress):
    """Lines of several processes at once, without bars and losses."""

    def __init__(self, progress):
        super().__init__(progress.quiet)
        self._start = progress._start

    @contextlib.contextmanager
    def reading(self, what):
        yield


def _result(units, outcomes, clips, root, settings, folder=None):
    test = clips[clips["split"] == "test"]
    head = [c for c in ("path", "data", "machine", "section", "domain", "label") if c in test]
    told = test[head]
    if root is not None and "path" in told:
        told = told.assign(path=relative_paths(told, root))
    protocol, rules = units[0].protocol, units[0].rules
    tables, scores, decisions, choices = [], {}, {}, []
    for unit, outcome in zip(units, outcomes):
        choices += [(unit.system, protocol, unit.name, *choice) for choice in outcome.choices]
        scores.setdefault(unit.system, []).append(outcome.scores)
    for name, parts in scores.items():
        found = pd.concat(parts).loc[test.index]
        scores[name], decisions[name] = found["score"].to_numpy(), found["decision"].to_numpy()
        tables.append(told.assign(system=name, protocol=protocol).join(found))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said before any training
        metrics = metrics_table(test, scores, protocol, rules, decisions)
    columns = ["system", "protocol", "machine", "choice", "value"]
    result = Evaluation(
        scores=pd.concat(tables, ignore_index=True),
        metrics=metrics,
        choices=pd.DataFrame(choices, columns=columns),
        comparison=comparison(metrics),
        protocol=protocol,
        settings=settings or {},
        clips=clips,
    )
    result._rules, result._folder = rules, folder
    result._fitted = [(unit, outcome.system) for unit, outcome in zip(units, outcomes)]
    return result


def _write(result, folder):
    """Write the tables, and the files of the challenge."""
    for name in ("scores", "metrics", "choices", "comparison"):
        table = getattr(result, name)
        if len(table):
            folder.write_csv(table, folder.path / f"{name}.csv")
    if "path" not in result.scores:
        return
    several = len(result.systems) > 1
    for name in result.systems:
        target = folder.path / "challenge"
        with explained(target):
            try:
                result.write_submission(target / name if several else target, name)
            except ValueError as error:
                warnings.warn(f"{name}: no files of the challenge. {error}", stacklevel=3)
