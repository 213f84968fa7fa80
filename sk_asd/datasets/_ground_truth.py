"""Labels and domains of evaluation clips, from the csv files of the organisers."""

import os
import re
import warnings
from pathlib import Path

from sk_asd.datasets._csv import csv_rows
from sk_asd.datasets._names import parse_name
from sk_asd.utils._labels import LABEL_CODES
from sk_asd.utils._text import composed

_GROUND_TRUTH = re.compile(r"ground_truth_(.+?)_(?:section|id)_\d+\w*\.csv")
_VALUES = {
    "label": {code: LABEL_CODES[code] for code in "01"},
    "domain": {"0": "source", "1": "target"},
}
# The list of 2022 is at chance for these clips; ground_truth_data and ground_truth_domain, with
# which the official evaluator scores, say something else for about half of them.
_WRONG_IN_LIST = {
    (toy, section) for toy in ("ToyCar", "ToyTrain") for section in ("03", "04", "05")
}


def clip_key(machine, name):
    """Identity of an evaluation clip, whatever its suffix: machine, section, domain, index."""
    return composed(machine), name.section, name.domain, name.index


def read_ground_truth(sources):
    """Read the ground truth of evaluation sets.

    Parameters
    ----------
    sources : str, path-like or sequence of those
        Files, or folders that are searched with all below them. See
        :func:`~sk_asd.datasets.load_clips`.

    Returns
    -------
    dict
        From :func:`clip_key` to a dict with some of ``"label"``, ``"domain"``, ``"attributes"``.
    """
    if isinstance(sources, (str, os.PathLike)):
        sources = [sources]
    truth, origin = {}, {}
    for file in _files(sources):
        for key, entry in _read_file(file):
            known = truth.setdefault(key, {})
            for field, value in entry.items():
                if field != "attributes" and known.get(field, value) != value:
                    raise ValueError(
                        f"Two files of ground truth disagree on the {field} of {key}: "
                        f"{origin[key, field]} and {file}."
                    )
                known[field] = value
                origin[key, field] = file
    if not truth:
        raise ValueError(f"Found no entry of ground truth in {[str(s) for s in sources]}.")
    return truth


def _files(sources):
    for source in map(Path, sources):
        if source.is_dir():
            found = sorted(
                p
                for p in source.rglob("*.csv")
                if _GROUND_TRUTH.fullmatch(p.name) or p.name.startswith("eval_data_list")
            )
            if not found:
                raise ValueError(
                    f"No ground truth in folder {source}: expected files "
                    f"ground_truth_<machine>_section_<dd>_test.csv or eval_data_list*.csv."
                )
            # Attributes are no ground truth: for the toys of 2022 they belong to other clips.
            yield from (p for p in found if p.parent.name != "ground_truth_attributes")
        elif source.is_file():
            yield source
        else:
            raise FileNotFoundError(f"No such file or folder of ground truth: {source}")


def _read_file(file):
    rows = [(n, [f.strip() for f in row]) for n, row in csv_rows(file)]
    match = _GROUND_TRUTH.fullmatch(file.name)
    if match:
        field = "domain" if "domain" in file.parent.name else "label"
        return _read_values(file, rows, match[1], field)
    if rows and len(rows[0][1]) == 1:
        return _read_list(file, rows)
    raise ValueError(
        f"{file} is no ground truth: expected a name ground_truth_<machine>_section_<dd>_test.csv, "
        f"or a list whose first row is the name of a machine."
    )


def _read_values(file, rows, machine, field):
    """Rows ``<name>,<0|1>`` of ``ground_truth_data`` or ``ground_truth_domain``."""
    for line, row in rows:
        name = parse_name(row[0])
        if len(row) != 2 or name is None or row[1] not in _VALUES[field]:
            raise ValueError(f"{file}, line {line}: expected <clip name>,<0 or 1>, found {row}.")
        yield clip_key(machine, name), {field: _VALUES[field][row[1]]}


def _read_list(file, rows):
    """Rows ``<name>,<full name>[,<0|1>]`` of ``eval_data_list.csv``, under rows ``<machine>``."""
    skipped = 0
    machine = None
    for line, row in rows:
        if len(row) == 1:
            machine = row[0]
            continue
        name, full = parse_name(row[0]), parse_name(row[1])
        label = _VALUES["label"].get(row[2]) if len(row) == 3 else full and full.label
        if name is None or label is None or len(row) > 3:
            raise ValueError(
                f"{file}, line {line}: expected <clip name>,<full name>[,<0 or 1>], found {row}."
            )
        if (machine, name.section) in _WRONG_IN_LIST and name.domain is None:
            skipped += 1
            continue
        entry = {"label": label}
        if full is not None and full.domain is not None:
            entry["domain"] = full.domain
        if full is not None and full.attributes:
            entry["attributes"] = full.attributes
        yield clip_key(machine, name), entry
    if skipped:
        warnings.warn(
            f"{file} is wrong for ToyCar and ToyTrain of 2022: {skipped} of its entries are not "
            f"used. Give the folders ground_truth_data and ground_truth_domain of the official "
            f"evaluator instead.",
            stacklevel=5,
        )
