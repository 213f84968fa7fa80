"""Pseudo-anomalies: what stands in for anomalies where there are none."""

import numpy as np
import pandas as pd

from sk_asd.datasets._audio import read_audio
from sk_asd.datasets._samples import as_samples
from sk_asd.ensemble._by_columns import labels_of, rows_by_group, strata_of
from sk_asd.ensemble._perturbations import PERTURBATIONS, perturb
from sk_asd.utils._containers import column_of, is_clip_table, is_labelled, plain, take_clips
from sk_asd.utils._labels import is_anomaly, leave_out
from sk_asd.utils._sklearn import _num_samples


def normal_training_rows(X, y):
    """Positions of clips that are not known to be anomalies nor test clips."""
    rows = np.ones(_num_samples(X), dtype=bool)
    split, anomalous = column_of(X, "split"), is_anomaly(X)
    if split is not None:
        rows &= split == "train"
    if y is not None:
        rows &= np.asarray(y) != -1
    if anomalous.any() and rows.any():
        rows[rows] = leave_out(anomalous[rows])
    if not rows.any():
        raise ValueError(
            f"None of the {len(rows)} clips is a normal training clip: of split 'train', where "
            "there is a column 'split', and not labelled as an anomaly."
        )
    return np.flatnonzero(rows)


class Places:
    """Where clips come from: machine, section and what else makes the groups.

    Parameters
    ----------
    X : container
        Clips.
    by : list of str
        Columns that make the groups of the ensemble.
    """

    def __init__(self, X, by):
        columns = dict.fromkeys([*by, "machine", "section"])
        self.columns = [c for c in columns if column_of(X, c) is not None]
        self.values = {c: column_of(X, c) for c in self.columns}
        codes = strata_of(X, self.columns)
        self.rows = {code: np.array(r) for code, r in rows_by_group(codes).items()}

    def others(self, code):
        """Clips of other places: of the same machine if it has any, else of all."""
        own = self.rows[code][0]
        rows = np.concatenate([r for other, r in self.rows.items() if other != code])
        if "machine" in self.values:
            machine = self.values["machine"]
            same = rows[machine[rows] == machine[own]]
            rows = same if len(same) else rows
        return rows

    def labels(self, code, count):
        """Columns that present `count` clips as clips of a place."""
        own = self.rows[code][0]
        columns = {}
        for name, values in self.values.items():
            columns[name] = np.empty(count, dtype=values.dtype)
            columns[name][:] = values[own]
        return columns


def from_other_places(X, by, rng):
    """Normal clips of other sections or machines under the labels of a place.

    Every place gets as many as it has clips.

    Parameters
    ----------
    X : clip table, DataFrame or DataArray
        Normal clips that the detectors do not know.
    by : list of str
        Columns that make the groups of the ensemble.
    rng : numpy.random.Generator
        Source of the choice of clips.

    Returns
    -------
    container
        As `X`.

    Raises
    ------
    ValueError
        If the clips have no place, or only one.
    """
    places = Places(X, by)
    if len(places.rows) < 2:
        raise ValueError(
            f"pseudo='other' needs clips of two places or more, found {len(places.rows)} by the "
            f"columns {places.columns}; use pseudo='perturbed'."
        )
    rows, labels = [], []
    for code, own in places.rows.items():
        others = places.others(code)
        rows.append(rng.choice(others, len(own), replace=len(others) < len(own)))
        labels.append(pd.DataFrame(places.labels(code, len(own))))
    return _relabelled(take_clips(X, np.concatenate(rows)), pd.concat(labels))


def perturbed(X, by, rng):
    """Every clip once, changed.

    Of a clip table the sound is changed, in one of six ways. In arrays every feature, with its
    frames, is that of another clip of the same place: values stay possible, what they have to do
    with one another is lost.

    Parameters
    ----------
    X : container
        Normal clips that the detectors do not know.
    by : list of str
        Columns that make the groups of the ensemble.
    rng : numpy.random.Generator
        Source of the choices.

    Returns
    -------
    container
        As `X`, a clip table with its sound in the column ``audio``.
    """
    if not is_clip_table(X):
        return _shuffled(X, by, rng)
    ways = rng.permutation(np.resize(np.arange(len(PERTURBATIONS)), len(X)))
    rates = None
    if "audio" in X.columns:
        waves = [
            as_samples(wave, f"Row {row}, column 'audio'") for row, wave in enumerate(X["audio"])
        ]
    else:
        waves, rates = zip(*map(read_audio, X["path"]))
    audio = np.empty(len(X), dtype=object)
    audio[:] = [perturb(wave, PERTURBATIONS[way], rng) for wave, way in zip(waves, ways)]
    changed = X.drop(columns="path", errors="ignore").assign(audio=audio)
    return changed if rates is None else changed.assign(sr=rates)


def _shuffled(X, by, rng):
    names = None
    if isinstance(X, pd.DataFrame):
        names = [c for c in X if pd.api.types.is_numeric_dtype(X[c].dtype) and c not in by]
    values = np.array(plain(X) if names is None else X[names])
    for rows in Places(X, by).rows.values():
        for j in range(values.shape[1]):
            values[rows, j] = values[rng.permutation(rows), j]
    if names is not None:
        X = X.copy()
        X[names] = values
        return X
    return X.copy(data=values) if is_labelled(X) else values


def _relabelled(X, labels):
    """Other values in columns of labels."""
    columns = {name: labels[name].to_numpy() for name in labels}
    if isinstance(X, pd.DataFrame):
        return X.assign(**columns)
    return X.assign_coords({name: ("clip", values) for name, values in columns.items()})


def evaluation_table(normal, pseudo, by):
    """What the metrics need of held-out normal clips followed by pseudo-anomalies.

    Parameters
    ----------
    normal, pseudo : container
        Clips.
    by : list of str
        Columns that make the groups of the ensemble.

    Returns
    -------
    DataFrame
        With ``machine``, ``section``, ``domain`` and ``label``. The groups stand in for a section
        that is not there, and source for a domain.
    """
    parts = []
    for X, label in ((normal, "normal"), (pseudo, "anomaly")):
        table = pd.DataFrame({"label": [label] * _num_samples(X)})
        for name in ("machine", "section", "domain"):
            values = column_of(X, name)
            table[name] = None if values is None else pd.Series(values, dtype=object)
        if by and column_of(X, "section") is None:
            table["section"] = [str(group) for group in labels_of(X, by)]
        parts.append(table)
    table = pd.concat(parts, ignore_index=True)
    return table.assign(domain=table["domain"].fillna("source"))
