"""Detectors with several scores to choose from after training."""

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sk_asd.detectors._neural_detector import NeuralDetector
from sk_asd.utils._containers import is_labelled, plain
from sk_asd.utils._normal_threshold import normal_threshold
from sk_asd.utils._validation import check_features


class MetricDetector(NeuralDetector):
    """Base of the detectors whose parameter `metric` chooses among scores without refitting.

    A subclass writes ``_metrics()``, the names that its network allows;
    ``_measure(features, X, metrics)``, a dict of the scores of clips, high = normal;
    ``_measure_training(features, X)``, the same of all metrics for the training clips, which may
    learn further attributes; and ``_error_maps(features, X)``, which yields the reconstruction
    error of every clip over bins and frames.
    """

    _state = ("training_metrics_", "metric_offsets_")
    _map_unit = "squared error"

    @property
    def training_scores_(self):
        """Scores of the training clips by `metric`."""
        return self.training_metrics_[self.metric].to_numpy()

    @property
    def offset_(self):
        """Threshold on ``score_samples``, that is on `metric`."""
        return self.metric_offsets_[self.metric]

    def score_metrics(self, X):
        """Normality of clips by all metrics, in one pass.

        Parameters
        ----------
        X : DataArray or array-like of shape (n_clips, n_bins, n_frames)
            Features.

        Returns
        -------
        DataFrame of shape (n_clips, n_metrics)
            Scores, high = normal; a column is what ``score_samples`` gives with it as `metric`.

        Raises
        ------
        ValueError
            If clips are shorter than one window.
        """
        check_is_fitted(self)
        features = check_features(self, X, reset=False)
        return pd.DataFrame(self._measure(features, X, self._metrics()), dtype=np.float64)

    def score_map(self, X):
        """Reconstruction error over time and frequency.

        Parameters
        ----------
        X : DataArray or array-like of shape (n_clips, n_bins, n_frames)
            Features.

        Returns
        -------
        DataArray or ndarray of shape (n_clips, n_bins, n_frames)
            Squared errors, the mean over all windows that cover a place; labelled as `X` is.

        Raises
        ------
        ValueError
            If clips are shorter than one window.
        """
        check_is_fitted(self)
        features = check_features(self, X, reset=False)
        errors = np.stack(list(self._error_maps(features, X))).reshape(np.shape(plain(X)))
        return X.copy(data=errors) if is_labelled(X) else errors

    def _score_clips(self, features, X):
        self._check_metric()
        return self._measure(features, X, (self.metric,))[self.metric]

    def _finish(self, features, X):
        self.training_metrics_ = pd.DataFrame(self._measure_training(features, X), dtype=np.float64)
        self.metric_offsets_ = {
            name: normal_threshold(scores.to_numpy(), self.contamination, self.threshold)
            for name, scores in self.training_metrics_.items()
        }

    def _check_metric(self):
        if self.metric not in self._metrics():
            raise ValueError(
                f"metric={self.metric!r} is none of those of this {type(self).__name__}: "
                f"{', '.join(self._metrics())}."
            )
