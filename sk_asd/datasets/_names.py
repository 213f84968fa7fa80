"""Grammars of clip names: what the organisers of DCASE Task 2 wrote into file names from 2020 on.

=====  ===========================================================================================
year   names
=====  ===========================================================================================
2020   ``normal_id_01_00000000``, ``anomaly_id_01_00000000``; evaluation test ``id_05_00000000``
2021   ``section_00_source_train_normal_0000_strength_1_ambient``; test names carry no attributes;
       evaluation test ``section_03_source_test_0000``
2022   ``section_00_source_test_anomaly_0000_f-n_A``; evaluation test ``section_03_0000``, also
       announced as ``section_03_test_0000``
2023   as 2022, the evaluation test too, all in section 00
2024   as 2023; ``noAttribute`` where attributes are hidden, or a trailing ``_``; attributes that
       are no pairs (``spd1000_BckgA``); some names lack ``test``; some indices start at 0001
2025   as 2024; supplemental clips ``section_00_machine_source_0000_noAttribute``
2026   as 2025
=====  ===========================================================================================

So a section name is read as ``section_<number>``, then words in any order that name domain, split,
label or kind, then a running number, then attributes.
"""

import re
from typing import NamedTuple

import numpy as np
import pandas as pd

from sk_asd.datasets._audio import audio_suffixes
from sk_asd.utils._containers import RESERVED
from sk_asd.utils._text import composed

GRAMMARS = (
    "section_<dd>[_source|_target][_train|_test][_normal|_anomaly]_<dddd>[_<key>_<value>...]",
    "[normal_|anomaly_]id_<dd>_<dddddddd>",
)

# What each word before the running number says. `kind` tells the supplemental clips of 2025 apart.
_WORDS = {
    "source": "domain",
    "target": "domain",
    "train": "split",
    "test": "split",
    "supplemental": "split",
    "normal": "label",
    "anomaly": "label",
    "machine": "kind",
    "noise": "kind",
}
_DIGITS = re.compile(r"[0-9]{1,18}")  # as many as 64 bits hold
_ID_NAME = re.compile(rf"(?:(normal|anomaly)_)?id_({_DIGITS.pattern})_({_DIGITS.pattern})")
_WHOLE = re.compile(rf"({_DIGITS.pattern})(?:\.0*)?")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?", re.ASCII)
_GLUED = re.compile(r"([A-Za-z][A-Za-z-]*)(\d+(?:\.\d+)?)|([A-Z][a-z]+)([A-Z])")  # spd1000, BckgA
_QUANTITY = re.compile(r"([+-]?\d{1,18}(?:\.\d+)?)([A-Za-z%]*)", re.ASCII)

# Names an attribute column must not take.
_TAKEN = RESERVED | {"path", "audio", "sr", "machine", "section", "domain", "split", "label"}


class ClipName(NamedTuple):
    """What the name of a clip says; None where it says nothing.

    Attributes
    ----------
    section : str
        Section or machine id, two digits.
    domain, split, label : str or None
        "source" or "target"; "train", "test" or "supplemental"; "normal" or "anomaly".
    index : int
        Running number.
    attributes : dict of str to str
        Values as written; those without a key are joined under ``"extra"``.
    """

    section: str
    domain: str | None
    split: str | None
    label: str | None
    index: int
    attributes: dict


def stem_of(name):
    """Last part of a file name without the suffix, where that is one of a sound file.

    ``Path.stem`` alone would cut a value such as ``ac_0.03`` of a name that carries no suffix.
    """
    return without_suffix(name.strip().replace("\\", "/").rsplit("/", 1)[-1])


def without_suffix(name):
    """Name of a file, composed, without the suffix, where that is one of a sound file."""
    name = composed(name)
    head, dot, suffix = name.rpartition(".")
    return head if dot and f".{suffix.lower()}" in audio_suffixes() else name


def section_name(value):
    """Name of a section as it is in file names and clip tables: numbers have two digits.

    A table that went through csv has sections 0, 0.0 or "0" in the place of "00".

    Parameters
    ----------
    value : str or number
        The section.

    Returns
    -------
    str
        Its name.

    Examples
    --------
    >>> [section_name(value) for value in (0, 3.0, "3", "03", "left")]
    ['00', '03', '03', '03', 'left']
    """
    text = composed(str(value).strip())
    number = _WHOLE.fullmatch(text)
    return f"{int(number[1]):02d}" if number else text


def parse_name(name):
    """Parse the file name of a clip.

    Parameters
    ----------
    name : str
        File name or path, with or without the suffix.

    Returns
    -------
    ClipName or None
        None where the name fits none of the `GRAMMARS`.

    Examples
    --------
    >>> clip = parse_name("section_00_source_test_anomaly_0012_vel_300_f-n_A.wav")
    >>> clip.domain, clip.label, clip.attributes
    ('source', 'anomaly', {'vel': '300', 'f-n': 'A'})
    """
    stem = stem_of(name)
    match = _ID_NAME.fullmatch(stem)
    if match:
        label, section, index = match.groups()
        return ClipName(section_name(section), None, None, label, int(index), {})

    head, *tokens = stem.split("_")
    if head != "section" or len(tokens) < 2 or not _DIGITS.fullmatch(tokens[0]):
        return None
    section, *tokens = tokens
    found = {}
    while tokens and not _DIGITS.fullmatch(tokens[0]):
        word = tokens.pop(0)
        role = _WORDS.get(word)
        if role is None or role in found:
            return None
        found[role] = word
    if not tokens:
        return None
    index, *tokens = tokens
    attributes = parse_attributes(tokens)
    if "kind" in found:
        attributes = {"kind": found["kind"], **attributes}
    return ClipName(
        section=section_name(section),
        domain=found.get("domain"),
        split=found.get("split"),
        label=found.get("label"),
        index=int(index),
        attributes=attributes,
    )


def parse_attributes(tokens):
    """Read attributes from the tokens after the running number.

    Besides key and value in turn there are glued pairs (``spd1000``, ``BckgA``), values before
    their unit (``25_mm``), and words without a value, which are joined under ``"extra"``.

    Parameters
    ----------
    tokens : sequence of str
        The parts of the name between underscores.

    Returns
    -------
    dict of str to str
        Values by attribute.

    Examples
    --------
    >>> parse_attributes(["spd1000", "BckgA"])
    {'spd': '1000', 'Bckg': 'A'}
    >>> parse_attributes(["25", "mm", "none"])
    {'mm': '25', 'extra': 'none'}
    """
    tokens = [token for token in tokens if token and token != "noAttribute"]
    attributes, extra = {}, []
    while tokens:
        token = tokens.pop(0)
        glued = _GLUED.fullmatch(token)
        if _NUMBER.fullmatch(token):
            if tokens and not _NUMBER.fullmatch(tokens[0]):
                attributes[column_name(tokens.pop(0))] = token
            else:
                extra.append(token)
        elif glued:
            key, value = (part for part in glued.groups() if part)
            attributes[column_name(key)] = value
        elif tokens and token != "no":  # as in pattern_00_no_pump
            attributes[column_name(token)] = tokens.pop(0)
        else:
            extra.append(token)
    if extra:
        attributes["extra"] = "_".join(extra)
    return attributes


def column_name(key):
    """Name of the column for the attribute `key`."""
    return f"attr_{key}" if key in _TAKEN else key


def typed_column(values, index=None):
    """Turn the values of one attribute into numbers where every one is a number.

    A unit after the number is dropped if all values have the same. Values of more than 18 digits,
    such as serial numbers, stay text, and so do whole numbers that a float does not hold exactly
    where some are missing.

    Parameters
    ----------
    values : sequence of str or None
        One value per clip.
    index : Index, optional
        Index of the result.

    Returns
    -------
    Series
        Of dtype int64, float64 (missing is NaN) or object (missing is None).

    Examples
    --------
    >>> typed_column(["28V", "31V"]).tolist()
    [28, 31]
    >>> typed_column(["28V", "3.5A"]).tolist()
    ['28V', '3.5A']
    """
    parsed = [None if value is None else _QUANTITY.fullmatch(value) for value in values]
    present = [m for value, m in zip(values, parsed) if value is not None]
    if not present or not all(present) or len({m[2] for m in present}) > 1:
        return pd.Series(list(values), index=index, dtype=object)
    if len(present) == len(parsed) and not any("." in m[1] for m in present):
        return pd.Series([int(m[1]) for m in parsed], index=index, dtype=np.int64)
    numbers = [np.nan if m is None else float(m[1]) for m in parsed]
    if any("." not in m[1] and int(m[1]) != float(m[1]) for m in present):
        return pd.Series(list(values), index=index, dtype=object)
    return pd.Series(numbers, index=index, dtype=np.float64)
