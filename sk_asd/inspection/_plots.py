"""Figures of the report: score histograms and ROC curves, as SVG in a data URI.

Figures are made without pyplot, so that no global state is touched and no display is needed.
"""

import base64
import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

MAX_FPR = 0.1  # the partial AUC of the official metrics ends here

# Colours of Okabe and Ito, which colour-blind readers can tell apart.
COLOURS = {
    "normal": "#0072b2",
    "normal, source": "#0072b2",
    "normal, target": "#56b4e9",
    "anomaly": "#d55e00",
    "all": "#333333",
}


def kinds_of(labels, domains):
    """Kind of every clip: ``anomaly``, or ``normal`` with the domain where it is known."""
    return np.array(
        [
            "anomaly" if label == "anomaly" else f"normal, {domain}" if domain else "normal"
            for label, domain in zip(labels, domains)
        ]
    )


def histogram(scores, kinds, thresholds=()):
    """Histogram of the scores of each kind of clip.

    Parameters
    ----------
    scores : ndarray of shape (n_clips,)
        Scores, high = normal.
    kinds : ndarray of shape (n_clips,)
        As :func:`kinds_of` returns them.
    thresholds : sequence of float
        Drawn as dashed lines.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    figure, axes = _figure()
    low, high = _limits(scores, kinds, thresholds)
    shown = np.clip(scores, low, high)
    bins = np.linspace(low, high, 25)
    for kind in [kind for kind in COLOURS if kind in kinds]:
        values = shown[kinds == kind]
        style = {"color": COLOURS[kind], "bins": bins}
        axes.hist(values, alpha=0.35, **style)
        axes.hist(values, histtype="step", linewidth=1.5, label=f"{kind} ({len(values)})", **style)
    for i, threshold in enumerate(thresholds):
        axes.axvline(
            threshold,
            color="#333333",
            linestyle="--",
            linewidth=1.2,
            label=None if i else "threshold",
        )
    beyond = int(((scores < low) | (scores > high)).sum())
    note = f"; {beyond} beyond the edge" if beyond else ""
    axes.set(xlabel=f"score, high = normal{note}", ylabel="clips", xlim=(low, high))
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return figure


def roc(scores, kinds):
    """ROC curves: normal clips of each domain, and of all, against all anomalies.

    Parameters
    ----------
    scores : ndarray of shape (n_clips,)
        Scores, high = normal.
    kinds : ndarray of shape (n_clips,)
        As :func:`kinds_of` returns them; normal clips and anomalies must be among them.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; the region of the partial AUC is shaded.
    """
    figure, axes = _figure()
    anomalous = kinds == "anomaly"
    normal_kinds = sorted(set(kinds) - {"anomaly"})
    curves = {kind: anomalous | (kinds == kind) for kind in normal_kinds}
    if len(curves) > 1:
        curves["all"] = np.ones(len(kinds), dtype=bool)
    for name, rows in curves.items():
        fpr, tpr, _ = roc_curve(anomalous[rows], -scores[rows])
        style = {"color": COLOURS[name], "linewidth": 1.5}
        axes.plot(fpr, tpr, label=name.replace("normal, ", ""), **style)
    fpr, tpr, _ = roc_curve(anomalous, -scores)
    inside = np.searchsorted(fpr, MAX_FPR, side="right")
    edge = np.interp(MAX_FPR, fpr[inside - 1 : inside + 1], tpr[inside - 1 : inside + 1])
    axes.fill_between(
        np.append(fpr[:inside], MAX_FPR), np.append(tpr[:inside], edge), color="#e69f00", alpha=0.4
    )
    axes.axvline(MAX_FPR, color="#e69f00", linewidth=0.8)
    axes.plot([0, 1], [0, 1], color="#999999", linestyle=":", linewidth=1)
    axes.set(
        xlabel=f"false alarms (share of normal clips); shaded: pAUC ≤ {MAX_FPR:g}",
        ylabel="anomalies found",
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
    )
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    return figure


def svg_uri(figure):
    """Data URI of a figure as SVG, the same for the same figure.

    In a data URI the figure is a document of its own: the ids of several figures cannot clash.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "sk_asd", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _figure():
    figure = Figure(figsize=(4.4, 3.1), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _limits(scores, kinds, thresholds):
    """Range of scores to show: far outliers must not squeeze everything else into one bar."""
    values = np.append(scores, thresholds)
    low, high = values.min(), values.max()
    normal = scores[kinds != "anomaly"]
    if len(normal):
        quarter, three_quarters = np.quantile(normal, [0.25, 0.75])
        reach = 8 * (three_quarters - quarter)
        if reach > 0:
            shown = np.append([quarter - reach, three_quarters + reach], thresholds)
            low, high = max(low, shown.min()), min(high, shown.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)
