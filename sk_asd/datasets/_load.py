"""Clip tables from folders of recordings."""

import os
import re
import warnings
from pathlib import Path

import pandas as pd

from sk_asd.datasets._audio import audio_suffixes, sound_files
from sk_asd.datasets._csv import csv_rows
from sk_asd.datasets._ground_truth import clip_key, read_ground_truth
from sk_asd.datasets._names import (
    GRAMMARS,
    column_name,
    parse_name,
    section_name,
    stem_of,
    typed_column,
)
from sk_asd.utils._labels import ANOMALY, LABEL_WORDS, NORMAL
from sk_asd.utils._sklearn import StrOptions, validate_params
from sk_asd.utils._text import composed

COLUMNS = ("machine", "section", "domain", "split", "label")

# Folders that say something about the clips below them.
_FOLDERS = {
    "train": {"split": "train"},
    "test": {"split": "test"},
    "test_rename": {"split": "test"},
    "source_test": {"split": "test", "domain": "source"},
    "target_test": {"split": "test", "domain": "target"},
    "supplemental": {"split": "supplemental"},
    "source": {"domain": "source"},
    "target": {"domain": "target"},
    **{word: {"label": kind} for word, kind in LABEL_WORDS.items()},
}
_NAMELESS = "machine"  # the root of the file system has no name that a file could have
_SECTION_FOLDER = re.compile(r"(?:section|id)_(\d+)")


@validate_params(
    {
        "root": [str, os.PathLike],
        "layout": [StrOptions({"auto", "dcase", "tree", "flat"})],
        "on_unknown": [StrOptions({"error", "warn"})],
        "ground_truth": [str, os.PathLike, list, tuple, None],
    },
    prefer_skip_nested_validation=True,
)
def load_clips(root, *, layout="auto", on_unknown="error", ground_truth=None):
    """Make a clip table from a folder of recordings.

    Only names are read, no sound. Every file with the suffix of a sound format that soundfile reads
    (wav, flac, …) is a clip; hidden files and folders and all other files are ignored. Links are
    followed, but not in a circle.

    Parameters
    ----------
    root : str or path-like
        A dataset (say, with ``dev_data`` and ``eval_data``), or any part of one: the folder of one
        machine, one split folder, or simply a folder of clips.
    layout : {"auto", "dcase", "tree", "flat"}, default="auto"
        How folders and names are read.

        - "dcase": file names of DCASE Task 2, 2020 to 2026, in ``<machine>/<split>/``. The split
          folder may be ``train``, ``test``, ``source_test``, ``target_test`` or ``supplemental``.
        - "tree": any file names, in ``<machine>/<split>/<label>/…``. Split folders as above; label
          folders ``normal``, ``ok`` or ``good``, or ``anomaly``, ``anomalous``, ``abnormal``,
          ``nok``, ``fault``, ``faulty``, ``bad``, ``defect`` or ``defective``, which ``train`` may
          lack; folders ``section_<dd>``, ``id_<dd>``, ``source`` or ``target`` may come among them.
        - "flat": normal training clips; the machine has the name of the folder that holds the file.
        - "auto": "dcase" if any file name is one of DCASE Task 2, else "tree" if any folder is a
          split or label folder, else "flat" if all clips are in one folder, else an error.
    on_unknown : {"error", "warn"}, default="error"
        What to do with a clip that the layout cannot place: raise an error, or warn and keep it in
        a row that has its path and nothing else.
    ground_truth : str, path-like or sequence of those, optional
        Files of the organisers, or folders that hold them, with what the names of evaluation clips
        do not say. Known are ``ground_truth_<machine>_section_<dd>_test.csv`` (rows
        ``<name>,<0|1>``; the domain if the folder is called ``ground_truth_domain``, else the
        label) and ``eval_data_list*.csv`` (label, domain and attributes). Only what is missing
        is filled in. See Notes.

    Returns
    -------
    DataFrame
        One row a clip, sorted by path, with the columns

        - ``path`` (str): absolute path of the file, as the disk has it.
        - ``machine`` (str): this and all other names in the composed form of Unicode (NFC), so that
          those of a disk written by macOS are the same names.
        - ``section`` (str): two digits; machine ids of 2020 are sections; "00" where none is given.
        - ``domain``: "source", "target" or None.
        - ``split``: "train", "test", "supplemental", or None where no folder and no name says it.
        - ``label``: "normal", "anomaly", or None where it is unknown. Training clips without a
          label are normal.
        - one column per attribute, under its key in the file names. Numbers where every value is
          one; a unit is dropped if all values have the same (``28V`` becomes 28). Missing values
          are NaN among numbers and None among text. Words of a name that are no pair of key and
          value are in ``extra``; ``kind`` tells clean machine sound from noise in ``supplemental``.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or no such file of ground truth.
    NotADirectoryError
        If `root` is a file.
    ValueError
        If there is no clip, a clip of unknown kind, or faulty or contradictory ground truth.

    Warns
    -----
    UserWarning
        On unknown clips with ``on_unknown="warn"``, on test clips that `ground_truth` does not
        list, and on entries of it that are known to be wrong.

    Notes
    -----
    The folder says the split, the file name the domain and the label; where one says nothing, the
    other is asked. The domain is read from a word of the name, never by searching the path.

    Attributes come from the file name. The table ``attributes_<dd>.csv`` beside the split folders
    is consulted only for clips whose name has none: its rows are ragged, and some of them name
    another key than the file name does.

    For the evaluation data of 2022 only ``ground_truth_data`` and ``ground_truth_domain`` of the
    official evaluator are right. Its ``ground_truth_attributes``, and ``eval_data_list_2022.csv``
    of later baselines, belong to other clips of ToyCar and ToyTrain: half of the labels and
    domains differ, which is chance. The former are never read, the latter not for these two
    machines. Evaluation clips that were renamed by that list carry the wrong labels in their names;
    load them under the names they were published with.

    Clips of 2026 have two channels; the feature extractors read the first, the near microphone.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sk_asd.datasets import load_clips
    >>> name = "fan/train/section_00_source_train_normal_0000_m-n_W.wav"
    >>> with tempfile.TemporaryDirectory() as root:
    ...     file = Path(root, name)
    ...     file.parent.mkdir(parents=True)
    ...     file.touch()
    ...     clips = load_clips(root)
    >>> clips[["machine", "section", "domain", "split", "label", "m-n"]].iloc[0].tolist()
    ['fan', '00', 'source', 'train', 'normal', 'W']
    """
    root = Path(os.path.abspath(os.fspath(root)))
    files = _audio_files(root)
    rows, unknown = _read_rows(files, root, layout)
    if unknown:
        _report_unknown(unknown, layout, on_unknown)
    _join_attribute_tables(rows)
    if ground_truth is not None:
        _join_ground_truth(rows, read_ground_truth(ground_truth))
    return _table(rows)


def _audio_files(root):
    """All sound files below a folder, sorted."""
    if not root.exists():
        raise FileNotFoundError(f"No such folder: {root}")
    if not root.is_dir():
        raise NotADirectoryError(f"Expected a folder of recordings, found a file: {root}")
    files = [Path(file) for file in sound_files(root)]
    if not files:
        raise ValueError(
            f"No recordings in folder {root}: found no file with the suffix of a sound format, "
            f"such as .wav or .flac."
        )
    return sorted(files, key=lambda path: path.parts)


def _read_rows(files, root, layout):
    """Return a row per file, and the files that could not be placed."""
    depth = len(root.parts)
    names = [parse_name(file.name) for file in files]
    places = [_read_folders(file.parent.parts, depth) for file in files]
    if layout == "auto":
        layout = _guess_layout(files, names, places)
    rows, unknown = [], []
    for file, name, place in zip(files, names, places):
        row = dict.fromkeys(COLUMNS) | {"path": str(file), "name": None, "attributes": {}}
        if layout == "dcase" and name is not None:
            said = {
                "section": name.section,
                "domain": name.domain,
                "split": name.split,
                "label": name.label,
            }
            # The folder has the last word on the split: moving a clip is how users resplit.
            said |= {k: v for k, v in place.items() if k in ("machine", "split") or not said[k]}
            row |= said | {"name": name, "attributes": name.attributes}
        elif layout == "tree" and ("split" in place or "label" in place):
            row |= {"section": "00"} | place
        elif layout == "flat":
            row |= {
                "machine": composed(file.parent.name) or _NAMELESS,
                "section": "00",
                "split": "train",
            }
        else:
            unknown.append(file)
        if row["split"] == "train" and row["label"] is None:
            row["label"] = "normal"
        rows.append(row)
    return rows, unknown


def _guess_layout(files, names, places):
    """Layout of the whole folder."""
    if any(name is not None for name in names):
        return "dcase"
    if any("split" in place or "label" in place for place in places):
        return "tree"
    if len({file.parent for file in files}) == 1:
        return "flat"
    return "unknown"


def _read_folders(folders, depth):
    """What the folders of a clip say: the machine, and possibly split, label, domain, section.

    Parameters
    ----------
    folders : sequence of str
        Parts of the absolute path of the folder that holds the clip.
    depth : int
        How many of them make up the root. Folders without meaning may lie below the ones with
        meaning, but only inside the root: the path to the root is the user's own.

    Returns
    -------
    dict
    """

    def meaning(i):
        folder = folders[i].lower()
        section = _SECTION_FOLDER.fullmatch(folder)
        if section:
            return {"section": section_name(section[1])}
        alone = i == 0 or folders[i - 1].lower() not in _FOLDERS
        if i < depth and alone and folder in LABEL_WORDS and folder not in (NORMAL, ANOMALY):
            return None  # a folder of one's own may well be called "good"
        return _FOLDERS.get(folder)

    inside = [i for i in range(depth, len(folders)) if meaning(i)]
    first = inside[-1] if inside else len(folders) - 1
    place = {}
    while first > 0 and (said := meaning(first)) is not None:
        place = said | place
        first -= 1
    place["machine"] = composed(folders[first]) if first > 0 else _NAMELESS
    return place


def _report_unknown(unknown, layout, on_unknown):
    """Raise or warn on files that could not be placed."""
    shown = ", ".join(str(file) for file in unknown[:5])
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    message = (
        f"{len(unknown)} recordings fit no known layout (layout={layout!r}): {shown}{more}. "
        f"Known are names {' and '.join(GRAMMARS)}; folders "
        f"<machine>/<train|test>/<normal|anomaly>/; and one folder of normal clips."
    )
    if on_unknown == "error":
        raise ValueError(f"{message} Pass on_unknown='warn' to keep them without labels.")
    warnings.warn(message, stacklevel=4)


def _join_attribute_tables(rows):
    """Fill in attributes that names lack from ``attributes_<dd>.csv`` beside the split folder."""
    tables = {}
    for row in rows:
        if row["name"] is None or row["attributes"]:
            continue
        folder = Path(row["path"]).parent.parent
        if folder not in tables:
            tables[folder] = _read_attribute_tables(folder)
        row["attributes"] = tables[folder].get(stem_of(row["path"]), {})


def _read_attribute_tables(folder):
    """Attributes by clip name. Rows are ragged: pairs are read until the row, or the file, ends."""
    table = {}
    for file in sorted(folder.glob("attributes_*.csv")):
        for _, (name, *fields) in csv_rows(file):
            full = [f for f in fields if Path(f).suffix.lower() in audio_suffixes()]
            if full:  # the evaluator's tables end with the full name, which is right
                parsed = parse_name(full[-1])
                pairs = parsed.attributes if parsed else {}
            else:
                pairs = {
                    column_name(composed(key.strip())): composed(value.strip())
                    for key, value in zip(fields[::2], fields[1::2])
                    if key.strip() not in ("", "noAttribute") and value.strip()
                }
            table[stem_of(name)] = pairs
    return table


def _join_ground_truth(rows, truth):
    """Fill in the missing labels, domains and attributes of test clips."""
    joined = 0
    lacking = []
    for row in rows:
        if row["name"] is None or row["split"] != "test":
            continue
        entry = truth.get(clip_key(row["machine"], row["name"]))
        if entry is not None:
            joined += 1
            for field in ("label", "domain", "attributes"):
                row[field] = row[field] or entry.get(field, row[field])
        if row["label"] is None:
            lacking.append(row["path"])
    if not joined:
        raise ValueError(
            f"The ground truth lists none of the test clips. It lists machines "
            f"{sorted({key[0] for key in truth})}; the test clips are of machines "
            f"{sorted({r['machine'] for r in rows if r['split'] == 'test' and r['machine']})}."
        )
    if lacking:
        warnings.warn(
            f"The ground truth has no label for {len(lacking)} test clips, such as {lacking[0]}.",
            stacklevel=4,
        )


def _table(rows):
    """Turn rows into a DataFrame with typed columns."""
    keys = list(dict.fromkeys(key for row in rows for key in row["attributes"]))
    columns = {c: pd.Series([r[c] for r in rows], dtype=object) for c in ("path", *COLUMNS)}
    columns |= {key: typed_column([r["attributes"].get(key) for r in rows]) for key in keys}
    return pd.DataFrame(columns)
