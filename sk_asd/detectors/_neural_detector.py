"""What detectors that train a network share."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sk_asd.detectors._base import BaseDetector
from sk_asd.utils._checked_scores import checked_scores
from sk_asd.utils._normal_threshold import normal_threshold
from sk_asd.utils._sklearn import _fit_context
from sk_asd.utils._training import NeuralMixin
from sk_asd.utils._validation import check_features


class NeuralDetector(NeuralMixin, BaseDetector):
    """Base of the detectors that train a network on features ``(n_clips, n_bins, n_frames)``.

    A subclass writes what :class:`~sk_asd.utils._training.NeuralMixin` asks for, and
    ``_score_clips(features, X)``, which returns the scores of clips, high = normal; `features` is
    the plain 3-D array and `X` the container it came in, for labels such as the section.
    """

    _parameter_constraints: dict = {
        **BaseDetector._parameter_constraints,
        **NeuralMixin._training_constraints,
    }
    _takes = "spectrograms"

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Train the network on normal clips.

        Parameters
        ----------
        X : DataArray or array-like of shape (n_clips, n_bins, n_frames)
            Features of normal clips; a 2-D array is one frame a clip.
        y : None
            Ignored.

        Returns
        -------
        self
            The fitted detector. Its ``training_scores_`` are those of the clips it was trained on.

        Raises
        ------
        ValueError
            If there are too few clips or frames, NaN or infinite values, or only constant features,
            or the training diverges.
        """
        return self._fit_network(X, y)

    def score_samples(self, X):
        """Normality of clips.

        Parameters
        ----------
        X : DataArray or array-like of shape (n_clips, n_bins, n_frames)
            Features.

        Returns
        -------
        ndarray of shape (n_clips,)
            Scores, high = normal.
        """
        check_is_fitted(self)
        features = check_features(self, X, reset=False)
        return checked_scores(self._score_clips(features, X), self)

    def _exported(self, n_frames):
        raise ValueError("it scores with a network of its own; networks of embedders are exported.")

    def _checked(self, X):
        features = super()._checked(X)
        if not np.ptp(features, axis=(0, 2)).any():
            raise ValueError(
                f"All {features.shape[1]} bins are constant over the {len(features)} training "
                "clips: there is nothing to learn from. Are the recordings silent?"
            )
        return features

    def _finish(self, features, X):
        self.training_scores_ = checked_scores(self._score_clips(features, X), self)
        self.offset_ = normal_threshold(self.training_scores_, self.contamination, self.threshold)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags
