"""Protocols of an evaluation: which labels a choice may see, and which clips are reported."""

import numpy as np

from sk_asd.utils._clip_tables import names
from sk_asd.utils._text import listed

PROTOCOLS = {
    "A": "oracle: chosen by the labels of the test clips that are reported",
    "B": "fixed settings",
    "C": "chosen on sections 00 to 02, reported on sections 03 to 05",
}
DEV, EVAL = "dev_data", "eval_data"
_CHOSEN_ON = ("00", "01", "02")
_REPORTED_ON = ("03", "04", "05")


def check_protocol(protocol, clips):
    """Check before any training that a protocol has the labels it needs.

    Parameters
    ----------
    protocol : {"A", "B", "C"}
        The protocol.
    clips : DataFrame
        All clips.

    Raises
    ------
    ValueError
        Naming the machine, what it has, and what is missing.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {list(PROTOCOLS)}, got {protocol!r}.")
    if protocol == "B":
        return
    for machine, rows in clips.groupby("machine"):
        known = names(rows["section"][is_labelled_test(rows)])
        if protocol == "A" and not known:
            raise ValueError(
                f"protocol=A chooses by the labels of the test clips, of which {machine} has none. "
                "Those of evaluation data come in csv files of their own: give ground_truth."
            )
        lacking = [
            f"{wanted[0]} to {wanted[-1]}"
            for wanted in (_CHOSEN_ON, _REPORTED_ON)
            if not set(wanted).intersection(known)
        ]
        if protocol == "C" and lacking:
            raise ValueError(
                "protocol=C chooses on sections 00 to 02 and reports sections 03 to 05; "
                f"{machine} has labelled test clips of {listed(known) or 'no section'}, and none "
                f"of {' and '.join(lacking)}. Those of evaluation data come in csv files of their "
                "own: give ground_truth."
            )


def is_labelled_test(clips):
    """Mask of the test clips whose label is known."""
    return ((clips["split"] == "test") & clips["label"].notna()).to_numpy()


def choice_clips(protocol, clips):
    """Mask of the clips whose labels a choice may see.

    Labels of evaluation data, where they are known, choose nothing that is reported on development
    data: they count only where there are no others.
    """
    mask = is_labelled_test(clips)
    if protocol == "B":
        return np.zeros(len(clips), dtype=bool)
    if protocol == "C":
        return mask & clips["section"].isin(_CHOSEN_ON).to_numpy()
    of_development = mask & (clips["data"] == DEV).to_numpy()
    return of_development if of_development.any() else mask


def reported_clips(protocol, clips):
    """Mask of the clips that metrics and report are about."""
    mask = is_labelled_test(clips)
    return mask & clips["section"].isin(_REPORTED_ON).to_numpy() if protocol == "C" else mask
