"""ROC curves, with the region of the partial AUC."""

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score, roc_curve

from sk_asd.inspection._figure import COLOURS, new_axes
from sk_asd.inspection._score_distribution import legend_above, score_table
from sk_asd.utils._system import score_samples_of


class RocDisplay:
    """ROC curves of normal clips, of each domain and of all, against all anomalies.

    The region of the partial AUC, that of few false alarms, is shaded. Make one with
    :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    curves : dict of str to tuple of ndarray
        False alarms and anomalies found, as shares, by name: "source", "target", "all". "all" must
        be there.
    aucs : dict of str to float
        Area under each curve.
    pauc : float
        Partial AUC of all clips, standardised so that 0.5 is chance.
    max_fpr : float, default=0.1
        Share of false alarms where the partial AUC ends.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the plot.
    figure_ : matplotlib.figure.Figure
        Its figure.
    region_ : matplotlib.collections.PolyCollection
        The shaded region.

    See Also
    --------
    sk_asd.metrics.dcase_scores : The official numbers, section by section.

    Notes
    -----
    The clips make one curve, whatever sections they are from: give those of one section to see
    what the official AUC of that section is made of.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_asd.inspection import RocDisplay
    >>> clips = pd.DataFrame({"label": ["normal", "normal", "anomaly", "anomaly"]})
    >>> RocDisplay.from_predictions(clips, [4.0, 2.0, 1.0, 3.0]).aucs
    {'all': 0.75}
    """

    def __init__(self, curves, aucs, pauc, *, max_fpr=0.1):
        self.curves = curves
        self.aucs = aucs
        self.pauc = pauc
        self.max_fpr = max_fpr

    @classmethod
    def from_estimator(cls, estimator, X, *, max_fpr=0.1, ax=None):
        """Score clips and plot the curves.

        Parameters
        ----------
        estimator : Pipeline or outlier detector
            Fitted.
        X : DataFrame or DataArray
            Clips, with ``label``, and ``domain`` where known.
        max_fpr : float, default=0.1
            Share of false alarms where the partial AUC ends.
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.

        Returns
        -------
        RocDisplay
            The display, plotted.

        Raises
        ------
        ValueError
            As :meth:`from_predictions`.
        """
        return cls.from_predictions(X, score_samples_of(estimator, X), max_fpr=max_fpr, ax=ax)

    @classmethod
    def from_predictions(cls, clips, scores, *, max_fpr=0.1, ax=None):
        """Plot the curves of scores.

        Parameters
        ----------
        clips : DataFrame or DataArray
            Clips, with ``label``, and ``domain`` where known; those without a label do not count.
        scores : array-like of shape (n_clips,)
            Scores, high = normal.
        max_fpr : float, default=0.1
            Share of false alarms where the partial AUC ends.
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.

        Returns
        -------
        RocDisplay
            The display, plotted.

        Raises
        ------
        ValueError
            If normal clips or anomalies are missing, lengths differ, or scores are NaN or
            +inf.
        """
        table = score_table(clips, scores)
        table = table[table["kind"] != "unknown"]
        # Ranks, since a score may be infinite.
        kinds, scores = table["kind"].to_numpy(), rankdata(table["score"])
        anomalous = kinds == "anomaly"
        if anomalous.all() or not anomalous.any():
            raise ValueError(
                "A ROC curve needs normal clips and anomalies, found "
                f"{(~anomalous).sum()} and {anomalous.sum()} in the column 'label'."
            )
        normal_kinds = sorted(set(kinds[~anomalous]))
        rows = {kind.replace("normal, ", ""): anomalous | (kinds == kind) for kind in normal_kinds}
        if len(rows) == 1:
            rows = {}
        rows["all"] = np.ones(len(kinds), dtype=bool)
        curves = {name: roc_curve(anomalous[r], -scores[r])[:2] for name, r in rows.items()}
        aucs = {name: float(roc_auc_score(anomalous[r], -scores[r])) for name, r in rows.items()}
        pauc = float(roc_auc_score(anomalous, -scores, max_fpr=max_fpr))
        return cls(curves, aucs, pauc, max_fpr=max_fpr).plot(ax)

    def plot(self, ax=None):
        """Plot the curves.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.

        Returns
        -------
        RocDisplay
            The display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        self.ax_, self.figure_ = new_axes(ax, (5.0, 4.2))
        for name, (fpr, tpr) in self.curves.items():
            colour = COLOURS.get(f"normal, {name}", COLOURS.get(name, COLOURS["normal"]))
            self.ax_.plot(
                fpr, tpr, color=colour, linewidth=1.5, label=f"{name}: AUC {self.aucs[name]:.3f}"
            )
        fpr, tpr = self.curves["all"]
        inside = np.searchsorted(fpr, self.max_fpr, side="right")
        edge = np.interp(self.max_fpr, fpr[inside - 1 : inside + 1], tpr[inside - 1 : inside + 1])
        self.region_ = self.ax_.fill_between(
            np.append(fpr[:inside], self.max_fpr),
            np.append(tpr[:inside], edge),
            color="#e69f00",
            alpha=0.4,
            label=f"pAUC ({self.max_fpr:g}) {self.pauc:.3f}",
        )
        self.ax_.axvline(self.max_fpr, color="#e69f00", linewidth=0.8)
        self.ax_.plot([0, 1], [0, 1], color="#999999", linestyle=":", linewidth=1)
        self.ax_.set(
            xlabel="false alarms (share of normal clips)",
            ylabel="anomalies found (share)",
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
        )
        self.ax_.spines[["top", "right"]].set_visible(False)
        legend_above(self.ax_, ncols=2)
        return self
