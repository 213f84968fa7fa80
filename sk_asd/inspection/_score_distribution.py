"""Scores of normal clips and anomalies, per section and domain, with the threshold."""

import numpy as np
import pandas as pd
from sklearn.utils import check_consistent_length

from sk_asd.inspection._figure import COLOURS, kinds_of, new_axes
from sk_asd.utils._checked_scores import checked_scores
from sk_asd.utils._containers import column_of, metadata_of
from sk_asd.utils._labels import label_kinds
from sk_asd.utils._system import score_samples_of

_BINS = 24


class ScoreDistributionDisplay:
    """Histograms of scores per section, domain and label, with the threshold.

    Every section is a row, and within it every kind of clip a histogram; high = normal. Make one
    with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    data : DataFrame
        One row a clip: ``group`` (machine and section), ``kind`` ("normal, source",
        "normal, target", "normal", "anomaly" or "unknown"), ``score`` and ``threshold`` (NaN where
        not known).

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the plot.
    figure_ : matplotlib.figure.Figure
        Its figure.
    edges_ : ndarray
        Edges of the bins. Scores beyond the outer ones are counted in the outer bins.

    See Also
    --------
    RocDisplay : How well they tell anomalies from normal clips.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_asd.inspection import ScoreDistributionDisplay
    >>> clips = pd.DataFrame({"section": "00", "label": ["normal", "normal", "anomaly"]})
    >>> display = ScoreDistributionDisplay.from_predictions(clips, [1.0, 0.9, 0.2], thresholds=0.5)
    >>> display.data.groupby("kind")["score"].mean().to_dict()
    {'anomaly': 0.2, 'normal': 0.95}
    """

    def __init__(self, data):
        self.data = data

    @classmethod
    def from_estimator(cls, estimator, X, *, ax=None):
        """Score clips and plot the scores.

        Parameters
        ----------
        estimator : Pipeline or outlier detector
            Fitted.
        X : DataFrame or DataArray
            Clips, with ``label``, and ``machine``, ``section`` and ``domain`` where known.
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.

        Returns
        -------
        ScoreDistributionDisplay
            The display, plotted.
        """
        scores = score_samples_of(estimator, X)
        # One threshold a group; the same numbers, since it is what is taken off.
        decisions = np.asarray(estimator.decision_function(X), dtype=float)
        thresholds = np.full(len(scores), np.nan)  # where the score is -inf
        np.subtract(scores, decisions, out=thresholds, where=np.isfinite(scores))
        return cls.from_predictions(X, scores, thresholds=thresholds, ax=ax)

    @classmethod
    def from_predictions(cls, clips, scores, *, thresholds=None, ax=None):
        """Plot scores.

        Parameters
        ----------
        clips : DataFrame or DataArray
            Clips, with ``label``, and ``machine``, ``section`` and ``domain`` where known.
        scores : array-like of shape (n_clips,)
            Scores, high = normal.
        thresholds : float or array-like of shape (n_clips,), default=None
            Score below which a clip is called abnormal.
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.

        Returns
        -------
        ScoreDistributionDisplay
            The display, plotted.

        Raises
        ------
        ValueError
            If lengths differ, or scores are NaN or +inf. Those of −inf are beyond the edge.
        """
        return cls(score_table(clips, scores, thresholds)).plot(ax)

    def plot(self, ax=None):
        """Plot the histograms.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.

        Returns
        -------
        ScoreDistributionDisplay
            The display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        groups = list(dict.fromkeys(self.data["group"]))
        self.ax_, self.figure_ = new_axes(ax, (6.4, max(3.2, 1.4 + 0.9 * len(groups))))
        scores, kinds = self.data["score"].to_numpy(), self.data["kind"].to_numpy()
        thresholds = self.data["threshold"].to_numpy(dtype=float)
        low, high = _limits(scores, kinds, thresholds[~np.isnan(thresholds)])
        self.edges_ = np.linspace(low, high, _BINS + 1)
        shown = [kind for kind in COLOURS if kind in set(kinds)]
        n_of = {kind: int((kinds == kind).sum()) for kind in shown}
        labels = {kind: f"{kind} ({n})" for kind, n in n_of.items()}
        line = "threshold"
        for row, name in enumerate(groups):
            rows = (self.data["group"] == name).to_numpy()
            counts = {
                kind: np.histogram(np.clip(scores[rows & (kinds == kind)], low, high), self.edges_)
                for kind in shown
            }
            counts = {kind: found[0] for kind, found in counts.items() if found[0].any()}
            # Several sections share the axes: each a row of the same height, the first on top.
            base, scale = 0, 1
            if len(groups) > 1:
                base = len(groups) - 1 - row
                scale = 0.85 / max(map(max, counts.values()))
            for kind, found in counts.items():
                self.ax_.stairs(
                    base + scale * found,
                    self.edges_,
                    baseline=base,
                    fill=True,
                    alpha=0.35,
                    color=COLOURS[kind],
                )
                self.ax_.stairs(
                    # No line along the bins that are empty.
                    np.where(found > 0, base + scale * found, np.nan),
                    self.edges_,
                    baseline=base,
                    linewidth=1.5,
                    color=COLOURS[kind],
                    label=labels.pop(kind, None),
                )
            for threshold in np.unique(thresholds[rows][~np.isnan(thresholds[rows])]):
                bottom, top = (base, base + 0.95) if len(groups) > 1 else (0, 1)
                style = {"color": "#333333", "linestyle": "--", "linewidth": 1.2, "label": line}
                if len(groups) > 1:
                    self.ax_.vlines(threshold, bottom, top, **style)
                else:
                    self.ax_.axvline(threshold, **style)
                line = None
        self._finish(groups, int(((scores < low) | (scores > high)).sum()), (low, high))
        return self

    def _finish(self, groups, beyond, limits):
        note = f"; {beyond} beyond the edge" if beyond else ""
        self.ax_.set(xlabel=f"score, high = normal{note}", xlim=limits)
        self.ax_.locator_params(axis="x", nbins=6)  # room for long numbers in small figures
        self.ax_.spines[["top", "right"]].set_visible(False)
        if len(groups) > 1:
            ticks = np.arange(len(groups))[::-1]
            self.ax_.set_yticks(ticks, groups)
            self.ax_.set_ylim(-0.05, len(groups))
            for base in ticks:
                self.ax_.axhline(base, color="#bbbbbb", linewidth=0.6, zorder=0)
        else:
            self.ax_.set_ylabel("clips")
            self.ax_.yaxis.get_major_locator().set_params(integer=True)
        legend_above(self.ax_, ncols=2)


def legend_above(ax, ncols, handles=None):
    """Legend on top of the axes, where it covers nothing."""
    ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=ncols,
        frameon=False,
        borderaxespad=0.2,
        fontsize="small",
    )


def score_table(clips, scores, thresholds=None):
    """Clips as the plots need them: ``group``, ``kind``, ``score`` and ``threshold``."""
    check_consistent_length(clips, scores)
    scores = checked_scores(scores, "The display was given")
    limits = np.full(len(scores), np.nan)
    if thresholds is not None:
        limits = np.broadcast_to(np.asarray(thresholds, dtype=float), scores.shape)
    missing = np.full(len(scores), None)
    labels, domains = label_kinds(clips), column_of(clips, "domain")
    kinds = kinds_of(missing if labels is None else labels, missing if domains is None else domains)
    return pd.DataFrame(
        {"group": group_names(clips), "kind": kinds, "score": scores, "threshold": limits}
    )


def group_names(clips):
    """Machine and section of every clip, as text; the machine alone where there is no section."""
    table = metadata_of(clips)
    table = clips if table is None else table
    columns = [table[c] for c in ("machine", "section") if c in table]
    if len(columns) == 2 and len(set(columns[0])) == 1:
        columns = columns[1:]
    if not columns:
        return np.full(len(clips), "all clips", dtype=object)
    texts = [column.map(lambda v: "" if pd.isna(v) else str(v)) for column in columns]
    names = [" ".join(filter(None, parts)) for parts in zip(*texts)]
    if len(columns) == 1 and columns[0].name == "section":
        names = [f"section {name}" if name else name for name in names]
    return np.array([name or "all clips" for name in names], dtype=object)


def _limits(scores, kinds, thresholds):
    """Range of scores to show: far outliers must not squeeze everything else into one bar."""
    finite = np.isfinite(scores)
    values = np.concatenate([scores[finite], thresholds])
    low, high = (values.min(), values.max()) if len(values) else (0.0, 0.0)
    normal = scores[finite & (kinds != "anomaly")]
    if len(normal):
        quarter, three_quarters = np.quantile(normal, [0.25, 0.75])
        reach = 8 * (three_quarters - quarter)
        if reach > 0:
            shown = np.append([quarter - reach, three_quarters + reach], thresholds)
            low, high = max(low, shown.min()), min(high, shown.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)
