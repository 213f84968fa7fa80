"""What an evaluation has found: tables, models, the report, the files of the challenge."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import hmean

from sk_asd.evaluation._protocols import DEV, PROTOCOLS, reported_clips
from sk_asd.evaluation._units import load_system
from sk_asd.metrics import dcase_scores, write_submission
from sk_asd.metrics._dcase import NotMeasurable, rules_for
from sk_asd.systems import REPORT_RESULTS
from sk_asd.systems._tables import MACHINES
from sk_asd.utils._clip_tables import inventory

_REPORT_NAMES = {
    "sc": "SC",
    "mhcr": "MHCR",
    "sc-wav2vec": "SC-wav2vec",
    "wsp-nfcdee": "WSP-NFCDEE",
    "imdn": "IMDN",
    "aegan-ad": "AEGAN-AD",
    "ae": "baseline-AE",
    "mobilenetv2": "baseline-MobileNetV2",
}
_BESIDE = ("submission-1", "baseline-AE", "baseline-MobileNetV2")
_SECTIONS_2022 = {"00", "01", "02"}


@dataclass(repr=False)
class Evaluation:
    """Result of :func:`evaluate`.

    Parameters
    ----------
    scores : DataFrame
        One row per system and test clip: ``path``, where the clips have one, ``data``,
        ``machine``, ``section``, ``domain``, ``label``; ``system`` and ``protocol``; ``score``,
        high = normal, ``threshold`` and ``decision``, +1 = normal.
    metrics : DataFrame
        ``system``, ``protocol`` and ``data``, then the columns of
        :func:`~sk_asd.metrics.dcase_scores`; empty where no label is known, or no section has
        both classes.
    choices : DataFrame
        ``system``, ``protocol``, ``machine`` ("all" for one system over all), ``choice`` and
        ``value``: weights of ensembles, and what the protocols A and C have chosen.
    comparison : DataFrame
        Harmonic means in percent beside those of the AITHU report; empty where machines and
        sections are not those of the development data of 2022.
    protocol : str
        The protocol.
    settings : dict
        What the systems were made with.
    clips : DataFrame
        Training and test clips.
    """

    scores: pd.DataFrame
    metrics: pd.DataFrame
    choices: pd.DataFrame
    comparison: pd.DataFrame
    protocol: str
    settings: dict
    clips: pd.DataFrame
    _rules: int | None = field(default=None, init=False)
    # Units and their systems, None where that is in the folder.
    _fitted: list = field(default_factory=list, init=False)
    _folder: object = field(default=None, init=False)

    @property
    def systems(self):
        """Names of the systems."""
        return list(dict.fromkeys(self.scores["system"]))

    def __repr__(self):
        return f"Evaluation({', '.join(self.systems)}; protocol {self.protocol})"

    def model(self, system, machine="all"):
        """Fitted system.

        Parameters
        ----------
        system : str
            Name of the system.
        machine : str, default="all"
            The machine; "all" for one system over all machines.

        Returns
        -------
        outlier detector
            The system as it scored the test clips.

        Raises
        ------
        OSError, ValueError
            If there is none, or its file cannot be loaded.
        """
        for unit, fitted in self._fitted:
            if unit.system == system and unit.name in (machine, "all"):
                return load_system(unit, self._folder) if fitted is None else fitted
        known = "; ".join(str(unit) for unit, _ in self._fitted)
        raise ValueError(f"There is no model of {system!r} for {machine!r}; there are {known}.")

    def write_submission(self, folder, system=None):
        """Write the files that the challenge asks for.

        Parameters
        ----------
        folder : str or path-like
            Folder to write into: a folder each for development and evaluation data.
        system : str, default=None
            Name of the system; None where there is one only.

        Returns
        -------
        list of pathlib.Path
            The files.

        Raises
        ------
        ValueError
            If the system is unknown, or no files can be written for the clips.
        """
        scores = self._of(system)
        written = []
        for data, rows in scores.groupby("data"):
            target = Path(folder) / data
            written += write_submission(
                rows.assign(split="test"),
                rows["score"],
                rows["decision"],
                target,
                rules=self._rules or 2022,
            )
        return written

    def _of(self, system):
        if system is None and len(self.systems) == 1:
            (system,) = self.systems
        if system not in self.systems:
            raise ValueError(f"system must be one of {self.systems}, got {system!r}.")
        return self.scores[self.scores["system"] == system].reset_index(drop=True)

    def report(self, path, *, explain=5, title=None):
        """Write a report as one HTML file.

        Parameters
        ----------
        path : str or path-like
            The file to write. Its folder must exist.
        explain : int, default=5
            Number of the most abnormal clips of every machine that are shown, with pictures and
            sound, by the first of the systems.
        title : str, default=None
            Title of the report; None names systems and protocol.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        ImportError
            If the extra ``report`` is not installed.
        ValueError
            If no section has labels of both classes.
        """
        from sk_asd.inspection import write_report

        if not len(self.metrics):
            raise ValueError("There are no metrics to report: no section has both classes.")
        tables = {name: self._of(name) for name in self.systems}
        first = tables[self.systems[0]]
        test = self.clips[self.clips["split"] == "test"].reset_index(drop=True)
        shown = reported_clips(self.protocol, test) & test["data"].isin(self.metrics["data"])
        clips = test[shown].reset_index(drop=True)
        titles = {name: f"{name}, protocol {self.protocol}" for name in tables}
        more = {}
        for name, rows in self.choices.groupby("system", sort=False):
            kind = rows["choice"].iloc[0].split()[0]
            more[f"{titles[name]}: {kind}s"] = choices_by_machine(rows)
        if len(self.comparison):
            heading = (
                f"Protocol {self.protocol}, beside the AITHU report, harmonic means in percent"
            )
            more[f"{heading}, {DEV}"] = self.comparison
        return write_report(
            path,
            clips,
            {titles[n]: t["score"][shown].to_numpy() for n, t in tables.items()},
            thresholds={titles[n]: t["threshold"][shown].to_numpy() for n, t in tables.items()},
            rules=self._rules,
            title=title or f"{', '.join(self.systems)}, protocol {self.protocol}",
            settings={
                "Protocol": f"{self.protocol}, {PROTOCOLS[self.protocol]}",
                "Recordings": f"{inventory(clips)} reported",
                **self.settings,
            },
            parts=clips["data"].to_numpy(),
            more_tables=more,
            explain=self._explained(first[shown].reset_index(drop=True), clips, explain),
        )

    def _explained(self, scores, clips, n_clips):
        """What there is to show of the most abnormal clips of every machine."""
        from sk_asd.inspection import explain_clips

        found = []
        for machine, rows in clips.groupby("machine") if n_clips and "path" in clips else ():
            known = scores.loc[rows.index]
            train = self.clips[
                (self.clips["split"] == "train") & (self.clips["machine"] == machine)
            ]
            try:
                found += explain_clips(
                    self.model(self.systems[0], machine),
                    rows,
                    train,
                    scores=known["score"].to_numpy(),
                    thresholds=known["threshold"].to_numpy(),
                    n_clips=n_clips,
                )
            except (OSError, ValueError) as error:
                warnings.warn(f"No clips of {machine} in the report: {error}", stacklevel=3)
        return found


def choices_by_machine(choices):
    """Choices of a system with a row a machine."""
    rows = {}
    for machine, what, value in zip(choices["machine"], choices["choice"], choices["value"]):
        rows.setdefault(machine, {"machine": machine})[what] = value
    return pd.DataFrame(rows.values())


def metrics_table(clips, scores, protocol, rules, decisions=None):
    """Official metrics of the clips that the protocol reports.

    Parameters
    ----------
    clips : DataFrame
        Test clips, with the column ``data``: the folder they are from.
    scores : dict of str to ndarray of shape (n_clips,)
        Scores of systems by name, high = normal.
    protocol : {"A", "B", "C"}
        The protocol.
    rules : int or None
        Year of the rules.
    decisions : dict of str to ndarray of shape (n_clips,), default=None
        Decisions of systems by name.

    Returns
    -------
    DataFrame
        ``system``, ``protocol`` and ``data``, then as :func:`~sk_asd.metrics.dcase_scores`; no rows
        of data of which no label is known, or no section has both classes.

    Warns
    -----
    UserWarning
        Naming machines and sections without figures.
    """
    clips = clips.reset_index(drop=True)
    counted = clips[reported_clips(protocol, clips)]
    tables = []
    rules = rules or (rules_for(counted) if len(counted) else None)
    for name, found in scores.items():
        for data, rows in counted.groupby("data"):
            try:
                own = None if decisions is None else decisions[name][rows.index]
                table = dcase_scores(rows, np.asarray(found)[rows.index], own, rules=rules)
            except NotMeasurable as error:
                warnings.warn(f"No figures of {data}: {error}", stacklevel=2)
                continue
            head = {"system": name, "protocol": protocol, "data": data}
            tables.append(pd.concat([pd.DataFrame(head, index=table.index), table], axis=1))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def comparison(metrics):
    """Figures of the AITHU report beside those of an evaluation.

    Parameters
    ----------
    metrics : DataFrame
        As :func:`metrics_table` returns it.

    Returns
    -------
    DataFrame
        Harmonic means in percent per machine, and over the machines that are there; empty where
        machines and sections are not those of the development data of 2022.
    """
    if not len(metrics) or "hmean" not in metrics:
        return pd.DataFrame()
    metrics = metrics[metrics["hmean"].notna()]  # machines without figures are in no mean
    dev = metrics[(metrics["data"] == DEV) & (metrics["machine"] != "total")]
    sections = dev[dev["section"] != "hmean"].groupby("machine")["section"].agg(set)
    of_2022 = set(sections.index) <= set(MACHINES) and all(s == _SECTIONS_2022 for s in sections)
    if not len(dev) or not of_2022:
        return pd.DataFrame()
    printed = {}
    for table in REPORT_RESULTS.values():
        printed |= table.get("hmean", {})
    columns = {}
    for name, rows in dev[dev["section"] == "hmean"].groupby("system", sort=False):
        totals = rows.set_index("machine")["hmean"] * 100
        columns[f"{name} here ({rows['protocol'].iloc[0]})"] = totals
    machines = totals.index
    for name in dict.fromkeys(
        [*(_REPORT_NAMES.get(n, n) for n in dev["system"].unique()), *_BESIDE]
    ):
        if name in printed:
            protocol = "B" if name.startswith("baseline") else "A"
            columns[f"{name} in the report ({protocol})"] = machines.map(printed[name])
    table = pd.DataFrame(columns, index=machines)
    table.loc["total"] = hmean(table, axis=0)
    return table.reset_index()
