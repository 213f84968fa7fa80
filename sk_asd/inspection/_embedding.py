"""Embeddings of clips in the plane."""

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from sk_asd.inspection._figure import PALETTE, new_axes
from sk_asd.inspection._nearest import embed_clips
from sk_asd.inspection._score_distribution import group_names, legend_above
from sk_asd.utils._containers import column_of
from sk_asd.utils._labels import label_kinds

_METHODS = ("pca", "tsne")
_MARKERS = {"source": "o", "target": "^"}


class EmbeddingDisplay:
    """Embeddings of clips in the plane: sections by colour, domains by shape, anomalies ringed.

    Make one with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    data : DataFrame
        One row a clip: ``x``, ``y``, ``group`` (machine and section), ``domain`` ("" where not
        known) and ``anomaly`` (bool).
    axis_labels : tuple of str, default=("", "")
        Texts of the axes.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the plot.
    figure_ : matplotlib.figure.Figure
        Its figure.

    See Also
    --------
    nearest_normal : The training clip next to a clip.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.inspection import EmbeddingDisplay
    >>> embeddings = np.random.default_rng(0).normal(size=(30, 8)) * np.r_[5.0, np.ones(7)]
    >>> EmbeddingDisplay.from_predictions(embeddings).ax_.get_xlabel()
    'first component (72 % of variance)'
    """

    def __init__(self, data, *, axis_labels=("", "")):
        self.data = data
        self.axis_labels = axis_labels

    @classmethod
    def from_estimator(cls, estimator, X, *, method="pca", member=None, random_state=None, ax=None):
        """Embed clips and plot them.

        Parameters
        ----------
        estimator : Pipeline
            Fitted; all its steps but the detector embed. Features of several frames, where there is
            no embedder, are averaged over time.
        X : DataFrame or DataArray
            Clips, with ``machine``, ``section``, ``domain`` and ``label`` where known.
        method : {"pca", "tsne"}, default="pca"
            Principal components, or t-SNE, which shows what lies close together, but no distances.
        member : str, default=None
            Member of an ensemble; None is the first.
        random_state : int, RandomState instance or None, default=None
            Seed of t-SNE.
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.

        Returns
        -------
        EmbeddingDisplay
            The display, plotted.

        Raises
        ------
        ValueError
            As :meth:`from_predictions`, or if there is no such member.
        """
        embeddings = embed_clips(estimator, X, member=member)
        return cls.from_predictions(
            embeddings, clips=X, method=method, random_state=random_state, ax=ax
        )

    @classmethod
    def from_predictions(cls, embeddings, clips=None, *, method="pca", random_state=None, ax=None):
        """Plot embeddings.

        Parameters
        ----------
        embeddings : DataArray or array-like of shape (n_clips, d)
            Embeddings.
        clips : DataFrame or DataArray, default=None
            Clips, with ``machine``, ``section``, ``domain`` and ``label`` where known; None takes
            the labels of `embeddings`.
        method : {"pca", "tsne"}, default="pca"
            Principal components, or t-SNE.
        random_state : int, RandomState instance or None, default=None
            Seed of t-SNE.
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.

        Returns
        -------
        EmbeddingDisplay
            The display, plotted.

        Raises
        ------
        ValueError
            If `method` is unknown, there are fewer than 3 clips, or numbers of clips differ.
        """
        if method not in _METHODS:
            raise ValueError(f"method must be one of {list(_METHODS)}, got {method!r}.")
        values = np.asarray(embeddings, dtype=float)
        clips = embeddings if clips is None else clips
        if values.ndim != 2 or len(values) < 3:
            raise ValueError(
                f"Expected embeddings (n_clips, d) of at least 3 clips, found shape {values.shape}."
            )
        if len(clips) != len(values):
            raise ValueError(f"Found {len(values)} embeddings of {len(clips)} clips.")
        points, labels = _in_the_plane(values, method, random_state)
        domains, kinds = column_of(clips, "domain"), label_kinds(clips)
        known = hasattr(clips, "columns") or hasattr(clips, "coords")
        data = pd.DataFrame(points, columns=["x", "y"])
        data["group"] = group_names(clips) if known else "all clips"
        data["domain"] = "" if domains is None else ["" if pd.isna(d) else str(d) for d in domains]
        data["anomaly"] = False if kinds is None else kinds == "anomaly"
        return cls(data, axis_labels=labels).plot(ax)

    def plot(self, ax=None):
        """Plot the points.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.

        Returns
        -------
        EmbeddingDisplay
            The display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        self.ax_, self.figure_ = new_axes(ax, (6.0, 5.0))
        from matplotlib import colormaps
        from matplotlib.lines import Line2D

        groups = list(dict.fromkeys(self.data["group"]))
        colours = PALETTE
        if len(groups) > len(PALETTE):
            colours = colormaps["cividis"](np.linspace(0, 1, len(groups)))
        for colour, group in zip(colours, groups):
            for domain in sorted(set(self.data["domain"])):
                rows = self.data[(self.data["group"] == group) & (self.data["domain"] == domain)]
                style = {"marker": _MARKERS.get(domain, "o"), "s": 26}
                self.ax_.scatter(rows["x"], rows["y"], color=colour, linewidth=0, **style)
        odd = self.data[self.data["anomaly"]]
        ring = {"facecolor": "none", "edgecolor": "#000000", "linewidth": 1.1}
        self.ax_.scatter(odd["x"], odd["y"], marker="o", s=80, **ring)

        def point(marker, colour, label, **style):
            return Line2D([], [], linestyle="", marker=marker, color=colour, label=label, **style)

        handles = [point("o", c, g) for c, g in zip(colours, groups)] if len(groups) > 1 else []
        domains = [d for d in sorted(set(self.data["domain"])) if d]
        if len(domains) > 1:
            handles += [point(_MARKERS.get(d, "o"), "#777777", d) for d in domains]
        if len(odd):
            handles.append(point("o", "#000000", "anomaly", fillstyle="none", markersize=9))
        if handles:
            legend_above(self.ax_, ncols=3, handles=handles)
        self.ax_.set(xlabel=self.axis_labels[0], ylabel=self.axis_labels[1])
        self.ax_.spines[["top", "right"]].set_visible(False)
        return self


def _in_the_plane(values, method, random_state):
    """Two coordinates of every clip, and the texts of the axes."""
    if method == "tsne":
        perplexity = min(30.0, (len(values) - 1) / 3)
        tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=random_state)
        return tsne.fit_transform(values), ("t-SNE, first axis", "t-SNE, second axis")
    if values.shape[1] == 1:
        return np.column_stack([values, np.zeros(len(values))]), ("embedding", "")
    pca = PCA(2, svd_solver="full").fit(values)
    shares = [f"{100 * share:.0f}" for share in np.nan_to_num(pca.explained_variance_ratio_)]
    names = ("first", "second")
    return pca.transform(values), tuple(
        f"{name} component ({share} % of variance)" for name, share in zip(names, shares)
    )
