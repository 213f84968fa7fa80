"""The results of the AITHU report for DCASE 2022 Challenge Task 2, as data."""

import pandas as pd

from sk_asd.systems._tables import IMDN, MACHINES, SC, WAV2VEC_DETECTOR

TOTAL = "total"


def _row(text):
    """Results in the order of the machines, and last the printed total where there is one."""
    return dict(zip((*MACHINES, TOTAL), map(float, text.split())))


REPORT_RESULTS = {
    1: {
        "title": "baseline-AE results",
        "hmean": {"baseline-AE": _row("54.80 58.47 63.07 57.99 51.06 39.61 50.59 52.61")},
    },
    2: {
        "title": "baseline-MobileNetV2 results",
        "hmean": {"baseline-MobileNetV2": _row("59.16 57.21 59.91 50.26 54.23 51.18 62.42 56.01")},
    },
    3: {
        "title": "The results of SC",
        "hmean": {"SC": _row("82.20 80.64 83.20 88.27 77.50 75.92 96.84")},
        "parameters": SC,
    },
    4: {
        "title": "The results of MHCR",
        "hmean": {"MHCR": _row("72.07 72.16 84.01 83.18 71.10 68.14 95.28 77.01")},
    },
    5: {
        "title": "The results of SC-wav2vec",
        "hmean": {"SC-wav2vec": _row("58.54 57.16 58.01 66.77 71.90 65.03 68.89")},
        "parameters": {m: {"detector": name} for m, name in WAV2VEC_DETECTOR.items()},
    },
    6: {
        "title": "The architecture of IGNN",
        "layers": (
            ("Fully Connected", ("nMels", "128")),
            ("3 × GRU", ("128", "128")),
            ("Fully Connected", ("128", "32")),
            ("Fully Connected", ("32", "128")),
            ("3 × GRU", ("128", "128")),
            ("Fully Connected", ("(nF-1)×128", "2×nC×nMels")),
        ),
    },
    7: {
        "title": "The results of WSP-NFCDEE",
        "hmean": {"WSP-NFCDEE": _row("68.12 68.54 79.96 78.52 65.23 60.29 68.27")},
        "parameters": IMDN,  # as printed
    },
    8: {
        "title": "The results of IMDN",
        "hmean": {"IMDN": _row("60.92 62.24 67.73 73.17 68.29 65.07 86.19")},
        "parameters": IMDN,
    },
    9: {
        "title": "The results of AEGAN-AD",
        "hmean": {"AEGAN-AD": _row("75.78 65.83 71.50 75.02 79.16 58.71 52.52 67.04")},
    },
    10: {
        "title": "The results of ensembles",
        "hmean": {
            "submission-1": _row("87.75 84.98 87.55 89.35 83.52 78.81 98.10 86.81"),
            "submission-2": _row("87.72 84.34 87.55 88.77 83.48 78.15 98.06 86.51"),
            "submission-3": _row("87.62 84.73 87.54 89.33 82.25 77.94 98.10 86.40"),
            "submission-4": _row("82.76 83.88 84.09 89.25 78.81 76.57 97.02 84.18"),
        },
    },
}


def report_results(*, parameters=False):
    """Make a table of the results that the AITHU report prints.

    Parameters
    ----------
    parameters : bool, default=False
        Whether to add the settings per machine of Tables 3, 5, 7 and 8, under the names that the
        builders of this package have for them.

    Returns
    -------
    DataFrame
        One row a figure: ``table`` (int, number of the table), ``system``, ``machine``, ``metric``
        and ``value``. The metric ``"hmean"`` is the harmonic mean over sections 00 to 02 of AUC of
        the source domain, AUC of the target domain and partial AUC, in percent as printed. Rows of
        machine ``"total"`` are the printed harmonic means over all machines, which Tables 3, 5, 7
        and 8 lack.

    See Also
    --------
    sk_asd.metrics.dcase_scores : The same metrics of own scores, as fractions of 1.

    Notes
    -----
    ``sk_asd.systems.REPORT_RESULTS`` holds the tables themselves: by number of the table a dict
    with ``"title"``, ``"hmean"`` (by system and machine), ``"parameters"`` (by machine) and, of
    Table 6, ``"layers"`` (name and sizes).

    The report chose features, networks, detectors and weights per machine by the labels of the
    test clips that it reports, so that its figures are those of an oracle. Known slips:

    - The totals that are missing would be 83.02 (SC), 63.29 (SC-wav2vec), 69.25 (WSP-NFCDEE) and
      68.27 (IMDN). All totals that are printed are the harmonic means of their rows.
    - The four rows of settings in Table 7 are those of Table 8 once more, networks of IMDN
      included. The features of WSP-NFCDEE are unknown.
    - The gain of "30.80%" over the better baseline is one of percentage points, 86.81 - 56.01.
    - Table 9 prints the header of ToyCar over two columns; the columns are in the usual order.
    - Section 3.3 names a discriminator for two machines and an adaptive normalisation for two; the
      team's published code has the former for all and the latter for none.

    References
    ----------
    J. Liu et al., "AITHU system for unsupervised anomalous detection of machine working status via
    sounding", technical report, DCASE 2022 Challenge, Tables 1 to 10.

    Examples
    --------
    >>> from sk_asd.systems import report_results
    >>> table = report_results()
    >>> table[(table["table"] == 10) & (table["machine"] == "total")]["value"].tolist()
    [86.81, 86.51, 86.4, 84.18]
    """
    rows = []
    for number, table in REPORT_RESULTS.items():
        systems = table.get("hmean", {})
        for system, results in systems.items():
            rows += [(number, system, m, "hmean", value) for m, value in results.items()]
            if parameters:
                rows += [
                    (number, system, machine, name, value)
                    for machine, settings in table.get("parameters", {}).items()
                    for name, value in settings.items()
                    if value is not None
                ]
    return pd.DataFrame(rows, columns=["table", "system", "machine", "metric", "value"])
