"""Scores in a csv file, and the clips that they are about."""

import math
import re
import warnings

from sk_asd.datasets._csv import read_table
from sk_asd.utils._clip_tables import only_machines, relative_paths
from sk_asd.utils._text import composed, listed

_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")


def read_scores(path):
    """Read and check a csv file of scores.

    Parameters
    ----------
    path : str or path-like
        The file, with the columns ``path`` and ``score``, and perhaps ``threshold``.

    Returns
    -------
    DataFrame
        Its table.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, lacks a column or a value, or lists a path twice.
    """
    scores = read_table(path, "scores", ("path", "score"))
    unnamed = scores.index[scores["path"] == ""]
    if len(unnamed):
        raise ValueError(f"{path} has no path in row {listed(unnamed)}.")
    for column in {"score", "threshold"}.intersection(scores.columns):
        scores[column] = [
            # float() reads every digit.
            _number(text, f"{path}: the {column} of {name}")
            for name, text in zip(scores["path"], scores[column])
        ]
    _check_unique(scores, path)
    return scores.reset_index(drop=True)


def _check_unique(scores, source):
    repeated = scores["path"][scores["path"].duplicated()].unique()
    if len(repeated):
        raise ValueError(f"{source} has several rows for {listed(repeated)}.")


def _is_no_text(path):
    """Whether a path has bytes that are no UTF-8."""
    return any("\udc80" <= character <= "\udcff" for character in path)


def _number(text, what):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        hint = ", expected a decimal point" if _DECIMAL_COMMA.fullmatch(text.strip()) else ""
        raise ValueError(f"{what} is no finite number: {text!r}{hint}.")
    return value


def scored_clips(path, clips, root, machines=None):
    """Read scores from a csv file and bring them and the test clips into one order.

    Parameters
    ----------
    path : str or path-like
        The csv file, as :func:`read_scores` reads it; its paths are relative to `root`.
    clips : DataFrame
        All clips of a folder.
    root : str or path-like
        The folder.
    machines : list of str, default=None
        Machines to keep; None keeps all.

    Returns
    -------
    clips, scores : DataFrame
        The labelled test clips, and their rows of the file.

    Raises
    ------
    OSError, ValueError
        As of :func:`read_scores`; or if a scored path is not in the folder, or a test clip has no
        score, or none has a label.

    Warns
    -----
    UserWarning
        If some clips have no label.
    """
    scores = read_scores(path)
    names = relative_paths(clips, root)
    if len(set(map(composed, names))) == len(names):  # else two differ in nothing else
        names = [composed(name) for name in names]
        scores = scores.assign(path=scores["path"].map(composed))
        _check_unique(scores, path)
    extra = scores["path"][~scores["path"].isin(names)]
    if len(extra):
        hint = " (it is not in UTF-8)" if extra.map(_is_no_text).any() else ""
        raise ValueError(f"{path} scores paths that are not in {root}: {listed(extra)}{hint}.")
    clips = only_machines(clips.assign(name=names), machines, root)
    # Scored training clips are welcome, but the metrics are about test clips.
    clips = clips[clips["split"] == "test"]
    if len(clips) == 0:
        raise ValueError(f"No test clips in {root}: there is nothing to evaluate.")
    missing = clips["name"][~clips["name"].isin(scores["path"])]
    if len(missing):
        raise ValueError(f"{path} has no score for {listed(missing)}.")
    unlabelled = clips["name"][clips["label"].isna()]
    if len(unlabelled):
        message = f"The label is unknown for {listed(unlabelled)}"
        if len(unlabelled) == len(clips):
            raise ValueError(f"{message}: give ground_truth with the csv files of the organisers.")
        warnings.warn(f"{message}: left out.", stacklevel=2)
        clips = clips[clips["label"].notna()]
    scores = scores.set_index("path").loc[clips["name"]].reset_index()
    return clips.drop(columns="name").reset_index(drop=True), scores
