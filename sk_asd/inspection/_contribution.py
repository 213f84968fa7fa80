"""Who contributed to the score of a clip."""

import numpy as np
import pandas as pd
import xarray as xr

from sk_asd.inspection._figure import COLOURS, new_axes
from sk_asd.inspection._steps import unwrapped
from sk_asd.utils._containers import as_clips, take_clips
from sk_asd.utils._system import is_ensemble


class ContributionDisplay:
    """What every member of an ensemble adds to the score of a clip.

    Make one with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    contributions : Series
        Weight times standardised score by member; their sum is the score, negative = abnormal.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the plot.
    figure_ : matplotlib.figure.Figure
        Its figure.
    bars_ : matplotlib.container.BarContainer
        The bars, in the order of `contributions`.

    See Also
    --------
    sk_asd.ensemble.ScoreEnsemble.contributions : The numbers.

    Examples
    --------
    >>> from sk_asd.inspection import ContributionDisplay
    >>> display = ContributionDisplay.from_predictions({"knn": -1.5, "flow": 0.25})
    >>> display.ax_.get_title()
    'score −1.25'
    """

    def __init__(self, contributions):
        self.contributions = contributions

    @classmethod
    def from_estimator(cls, estimator, X, *, clip=0, ax=None):
        """Plot the contributions to the score of a clip.

        Parameters
        ----------
        estimator : ScoreEnsemble
            Fitted; a search for its weights does, too.
        X : DataFrame, DataArray or array-like
            Clips, as the estimator takes them.
        clip : int, default=0
            Position of the clip among them.
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.

        Returns
        -------
        ContributionDisplay
            The display, plotted.

        Raises
        ------
        TypeError
            If the estimator is no fitted ensemble.
        """
        ensemble = unwrapped(estimator)
        if not is_ensemble(ensemble):
            raise TypeError(
                f"Contributions are those of a fitted ScoreEnsemble, got {type(ensemble).__name__}."
            )
        found = np.asarray(ensemble.contributions(take_clips(as_clips(X), [clip])))[0]
        return cls.from_predictions(pd.Series(found, ensemble.get_feature_names_out()), ax=ax)

    @classmethod
    def from_predictions(cls, contributions, *, clip=0, names=None, ax=None):
        """Plot contributions.

        Parameters
        ----------
        contributions : DataArray, Series, dict or array-like
            Of one clip, ``(n_members,)``, or as
            :meth:`~sk_asd.ensemble.ScoreEnsemble.contributions` gives them,
            ``(n_clips, n_members)``.
        clip : int, default=0
            Position of the clip, where there are several.
        names : sequence of str, default=None
            Names of the members, where `contributions` has none.
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.

        Returns
        -------
        ContributionDisplay
            The display, plotted.

        Raises
        ------
        ValueError
            If there are not as many names as contributions.
        """
        if np.ndim(contributions) == 2:
            contributions = contributions[clip]
        if isinstance(contributions, xr.DataArray):
            names = contributions.coords["feature"].values if names is None else names
            contributions = contributions.values
        if isinstance(contributions, dict):
            contributions = pd.Series(contributions, dtype=float)
        if not isinstance(contributions, pd.Series):
            values = np.asarray(contributions, dtype=float)
            names = [f"member {i}" for i in range(len(values))] if names is None else list(names)
            if len(names) != len(values):
                raise ValueError(f"Found {len(values)} contributions but {len(names)} names.")
            contributions = pd.Series(values, names)
        return cls(contributions).plot(ax)

    def plot(self, ax=None):
        """Plot the bars.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on; None makes some.

        Returns
        -------
        ContributionDisplay
            The display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        values = self.contributions.to_numpy(dtype=float)
        self.ax_, self.figure_ = new_axes(ax, (6.4, 1.4 + 0.35 * len(values)))
        colours = [COLOURS["anomaly"] if value < 0 else COLOURS["normal"] for value in values]
        self.bars_ = self.ax_.barh(np.arange(len(values)), values, color=colours, height=0.7)
        labels = [_number(value) for value in values]
        self.ax_.bar_label(self.bars_, labels, padding=3, fontsize="small")
        self.ax_.margins(x=0.2)
        self.ax_.set_yticks(
            np.arange(len(values)), [str(name) for name in self.contributions.index]
        )
        self.ax_.invert_yaxis()
        self.ax_.axvline(0, color="#333333", linewidth=0.8)
        self.ax_.set_xlabel("contribution to the score, negative = abnormal")
        self.ax_.set_title(f"score {_number(values.sum())}", fontsize="medium")
        self.ax_.spines[["top", "right", "left"]].set_visible(False)
        self.ax_.tick_params(axis="y", length=0)
        return self


def _number(value):
    return f"{value:.3g}".replace("-", "−")
