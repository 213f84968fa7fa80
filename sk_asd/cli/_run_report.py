"""What a run writes for its readers: tables, files of the challenge, the report."""

import warnings

import pandas as pd
from scipy.stats import hmean

from sk_asd.cli._common import check_report, format_table, inventory, relative_paths
from sk_asd.cli._evaluate import percent
from sk_asd.cli._models import load_model
from sk_asd.cli._run_folder import explained
from sk_asd.cli._run_protocols import PROTOCOLS, reported_clips
from sk_asd.metrics import dcase_scores, write_submission
from sk_asd.metrics._dcase import NO_DOMAIN, NotMeasurable, rules_for
from sk_asd.systems import REPORT_RESULTS
from sk_asd.systems._tables import MACHINES

DEV = "dev_data"
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


def metrics_table(clips, scores, run):
    """Official metrics of the clips that the protocol reports.

    Parameters
    ----------
    clips : DataFrame
        Test clips, with the column ``data``: the folder they are from.
    scores : array-like of shape (n_clips,)
        Scores, high = normal.
    run : Namespace
        ``system``, ``protocol`` and ``rules``.

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
    scores = pd.Series(scores, index=clips.index)
    counted = clips[reported_clips(run.protocol, clips)]
    if not len(counted):
        return pd.DataFrame()
    rules = run.rules or rules_for(counted)
    tables = []
    for data, rows in counted.groupby("data"):
        try:
            table = dcase_scores(rows, scores[rows.index], rules=rules)
        except NotMeasurable as error:
            warnings.warn(f"No figures of {data}: {error}", stacklevel=2)
            continue
        head = {"system": run.system, "protocol": run.protocol, "data": data}
        tables.append(pd.concat([pd.DataFrame(head, index=table.index), table], axis=1))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def comparison(metrics, run):
    """Figures of the AITHU report beside those of a run.

    Parameters
    ----------
    metrics : DataFrame
        As :func:`metrics_table` returns it.
    run : Namespace
        ``system`` and ``protocol``.

    Returns
    -------
    DataFrame or None
        Harmonic means in percent per machine, and over the machines that are there; None where
        machines and sections are not those of the development data of 2022.
    """
    if not len(metrics) or "hmean" not in metrics:
        return None
    metrics = metrics[metrics["hmean"].notna()]  # machines without figures are in no mean
    dev = metrics[(metrics["data"] == DEV) & (metrics["machine"] != "total")]
    totals = dev[dev["section"] == "hmean"].set_index("machine")["hmean"] * 100
    sections = dev[dev["section"] != "hmean"].groupby("machine")["section"].agg(set)
    of_2022 = set(totals.index) <= set(MACHINES) and all(s == _SECTIONS_2022 for s in sections)
    if not len(totals) or not of_2022:
        return None
    printed = {}
    for table in REPORT_RESULTS.values():
        printed |= table.get("hmean", {})
    own = _REPORT_NAMES.get(run.system, run.system)
    columns = {f"{run.system} here ({run.protocol})": totals}
    for name in dict.fromkeys([own, *_BESIDE]):
        if name in printed:
            protocol = "B" if name.startswith("baseline") else "A"
            columns[f"{name} in the report ({protocol})"] = totals.index.map(printed[name])
    table = pd.DataFrame(columns, index=totals.index)
    table.loc["total"] = hmean(table, axis=0)
    return table.reset_index()


def write_results(folder, clips, scores, choices, run, progress, train=None):
    """Write all that a finished run has to show.

    Parameters
    ----------
    folder : RunFolder
        Where it is written.
    clips : DataFrame
        Test clips, with the column ``data``.
    scores : DataFrame
        ``score``, ``threshold`` and ``decision`` of them.
    choices : list of tuple
        Machine, what was set or chosen, and its value.
    run : Namespace
        ``system``, ``protocol``, ``rules``, ``root``, ``options``, ``explain``.
    progress : Progress
        Where progress is shown.
    train : DataFrame, default=None
        Training clips, with which the most abnormal clips are compared in the report.

    Returns
    -------
    str
        The tables, as text.
    """
    path, title = folder.path, f"{run.system}, protocol {run.protocol}"
    table = clips[["data", "machine", "section", "domain", "label"]].copy()
    table.insert(0, "path", relative_paths(clips, run.root))
    folder.write_csv(table.join(scores).assign(protocol=run.protocol), path / "scores.csv")
    texts = [f"{title} ({PROTOCOLS[run.protocol]})"]

    metrics = metrics_table(clips, scores["score"], run)
    if len(metrics):
        if run.rules is None and "auc" in metrics:
            texts.append(NO_DOMAIN)
        folder.write_csv(metrics, path / "metrics.csv")
        for data, rows in metrics.groupby("data"):
            rows = rows.drop(columns=["system", "protocol", "data"])
            texts.append(f"{title}, {data}: official metrics in percent\n{percent(rows)}")
    else:
        known = reported_clips(run.protocol, clips).any()
        reason = "No section has both classes" if known else "No label is known"
        hint = "" if known else " Give --ground-truth."
        texts.append(f"{reason}: no metrics, no report.{hint}")

    more = {}
    if choices:
        chosen = pd.DataFrame(choices, columns=["machine", "choice", "value"])
        chosen.insert(1, "protocol", run.protocol)
        folder.write_csv(chosen, path / "choices.csv")
        more[f"{title}: {choices[0][1].split()[0]}s"] = _by_machine(choices)
    beside = comparison(metrics, run)
    if beside is not None:
        folder.write_csv(beside, path / "comparison.csv")
        more[f"{title}: beside the AITHU report, harmonic means in percent, {DEV}"] = beside
    for name, shown in more.items():
        texts.append(f"{name}\n{format_table(shown.columns, shown.to_numpy().tolist())}")

    for data, rows in clips.groupby("data"):
        target = path / "challenge" / data
        found = scores.loc[rows.index]
        try:
            with explained(target):
                write_submission(
                    rows, found["score"], found["decision"], target, rules=run.rules or 2022
                )
        except ValueError as error:
            warnings.warn(f"No files of the challenge for {data}: {error}", stacklevel=2)
    if len(metrics):
        shown = clips["data"].isin(metrics["data"])
        parts = clips[shown], scores[shown]
        texts.append(_write_report(folder, *parts, more, title, run, progress, train))
    return "\n\n".join(texts)


def _by_machine(choices):
    """Choices with a row a machine."""
    rows = {}
    for machine, what, value in choices:
        rows.setdefault(machine, {"machine": machine})[what] = value
    return pd.DataFrame(rows.values())


def _write_report(folder, clips, scores, more, title, run, progress, train):
    """Write the report where its libraries are installed; return a line that says so."""
    path = folder.path / "report.html"
    try:
        check_report(str(path))
    except ImportError as error:
        return f"No report: {error}"
    from sk_asd.inspection import write_report

    progress("writing the report")
    counted = reported_clips(run.protocol, clips)
    clips, scores = clips[counted], scores[counted]
    settings = {name.replace("_", "-"): value for name, value in run.options.items()}
    with explained(path):
        write_report(
            path,
            clips,
            {title: scores["score"].to_numpy()},
            thresholds={title: scores["threshold"].to_numpy()},
            rules=run.rules,
            title=f"{title} on {run.root}",
            settings={
                "Protocol": f"{run.protocol}, {PROTOCOLS[run.protocol]}",
                "Recordings": f"{run.root}: {inventory(clips)} reported",
                **settings,
            },
            parts=clips["data"].to_numpy(),
            more_tables=more,
            explain=_explained(folder, clips, scores, run, progress, train),
        )
    return f"Report: {path}"


def _explained(folder, clips, scores, run, progress, train):
    """What there is to show of the most abnormal clips of every machine."""
    from sk_asd.inspection import explain_clips

    found = []
    for machine, rows in clips.groupby("machine") if run.explain else ():
        progress(f"{machine}: looking at the most abnormal clips")
        known = scores.loc[rows.index]
        others = None if train is None else train[train["machine"] == machine]
        try:
            model, _ = load_model(folder.model(machine))
            found += explain_clips(
                model,
                rows,
                others,
                scores=known["score"].to_numpy(),
                thresholds=known["threshold"].to_numpy(),
                n_clips=run.explain,
            )
        except (OSError, ValueError) as error:
            warnings.warn(f"No clips of {machine} in the report: {error}", stacklevel=2)
    return found
