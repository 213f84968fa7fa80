"""The work of ``sk-asd run``: load, check, train what is missing, finish, write."""

import argparse
import os

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs

from sk_asd.cli._common import listed, load_table, names, relative_paths
from sk_asd.cli._run_cluster import train_on_cluster
from sk_asd.cli._run_finish import finish_machine
from sk_asd.cli._run_parts import is_done, make_parts, model_path, train_part
from sk_asd.cli._run_protocols import check_protocol
from sk_asd.cli._run_report import DEV, metrics_table, write_results
from sk_asd.cli._train import check_columns, training_clips
from sk_asd.utils._parallel import end_with_parent

DATA = (DEV, "eval_data")


def load_run(root, machines=None, ground_truth=None):
    """Load the training and test clips of a run.

    Parameters
    ----------
    root : str
        Folder with ``dev_data`` and perhaps ``eval_data``; without ``dev_data`` it is taken for it.
    machines : list of str, optional
        Machines to keep.
    ground_truth : list of str, optional
        As :func:`~sk_asd.datasets.load_clips` takes it.

    Returns
    -------
    DataFrame
        The clip table, without anomalies in the training split, and with the column ``data``: the
        folder that a clip is from.

    Raises
    ------
    OSError, ValueError
        If the folder cannot be read, or a machine or section has no training or no test clips.
    """
    clips = load_table(root, machines=machines, ground_truth=ground_truth)
    top = [path.split("/")[0] for path in relative_paths(clips, root)]
    clips["data"] = top if DEV in top else DEV
    clips = clips[clips["data"].isin(DATA) & clips["split"].isin(["train", "test"])]
    is_train = clips["split"] == "train"
    train = training_clips(clips[is_train]) if is_train.any() else clips[is_train]
    clips = pd.concat([train, clips[~is_train]], ignore_index=True)
    for machine, rows in clips.groupby("machine"):
        train, test = (names(rows["section"][rows["split"] == s]) for s in ("train", "test"))
        unseen = [section for section in test if section not in train]
        if unseen or not test:
            lacking = f"training clips of section {listed(unseen)}" if unseen else "test clips"
            raise ValueError(
                f"No {lacking} of {machine} in {root}. Add what is missing, or leave the machine "
                "out by --machine."
            )
    return clips


def check_run(clips, settings):
    """Check before any training what would go wrong after it.

    Parameters
    ----------
    clips : DataFrame
        All clips.
    settings : Namespace
        ``system``, ``protocol``, ``rules`` and ``options``.

    Raises
    ------
    ValueError
        If labels that the protocol needs are missing, columns are, or metrics are not defined.
    """
    check_protocol(settings.protocol, clips)
    for _, rows in clips.groupby("machine"):
        check_columns(rows, settings.options)
    everything = argparse.Namespace(**{**vars(settings), "protocol": "B"})
    metrics_table(clips, np.zeros(len(clips)), everything)


def _train(process, *args):
    """Train a part, here or in a worker, which ends with the process that started it."""
    if os.getpid() != process:
        end_with_parent(process)
    train_part(*args)


def run_all(folder, clips, settings, n_jobs, progress, client=None):
    """Train, score and write all that is not there yet.

    Parameters
    ----------
    folder : RunFolder
        The folder, opened.
    clips : DataFrame
        All clips.
    settings : Namespace
        ``system``, ``protocol``, ``rules``, ``root`` and ``options``.
    n_jobs : int or None
        Parts trained in parallel.
    progress : Progress
        Where progress is shown.
    client : distributed.Client, default=None
        Connection to the scheduler whose workers train; None trains here.

    Returns
    -------
    str
        The tables, as text.
    """
    tasks, machines = [], {}
    for machine, rows in clips.groupby("machine"):
        rows = rows.reset_index(drop=True)
        whole, parts = make_parts(settings.system, settings.options, machine)
        machines[machine] = whole, list(parts), rows
        # No network is to learn which folder a clip is from.
        known = rows.drop(columns="data")
        tasks += [(machine, name, part, known) for name, part in parts.items()]
    for machine, name, *_ in tasks:
        folder.discard_damaged(folder.scores(machine, name))
        folder.discard_damaged(model_path(folder, machine, name, settings))
        folder.discard_damaged(folder.model(machine))
    left = [task for task in tasks if not is_done(folder, *task[:2], settings)]
    if len(left) < len(tasks):
        progress(f"{len(tasks) - len(left)} of {len(tasks)} parts are done already")
    n_jobs = effective_n_jobs(n_jobs)
    # The losses of several trainings at once are for nobody to read.
    settings.verbose = n_jobs == 1 and client is None and not progress.quiet
    if client is not None:
        train_on_cluster(client, folder, left, settings, progress)
    else:
        Parallel(n_jobs=n_jobs)(
            delayed(_train)(os.getpid(), folder, *task, settings, progress) for task in left
        )
    tests, scores, choices = [], [], []
    for machine, (whole, parts, rows) in machines.items():
        known = rows.drop(columns="data")
        found, chosen = finish_machine(folder, machine, whole, parts, known, settings)
        tests.append(rows.loc[found.index])
        scores.append(found)
        choices += chosen
    tests, scores = (pd.concat(tables, ignore_index=True) for tables in (tests, scores))
    train = clips[clips["split"] == "train"]
    return write_results(folder, tests, scores, choices, settings, progress, train)
