"""Clip tables with known scores, and a detector that reads them and counts its fits."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, OutlierMixin

from sk_asd.utils._containers import column_of


class FromColumn(OutlierMixin, BaseEstimator):
    """Scores are a column of the clip table; every fit and every scoring is a line in `log`."""

    def __init__(self, column, log=None):
        self.column = column
        self.log = log

    def fit(self, X, y=None):
        self._write("fit")
        self.offset_ = 0.0
        return self

    def score_samples(self, X):
        self._write("score")
        return np.asarray(column_of(X, self.column), dtype=float)

    def decision_function(self, X):
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def _write(self, what):
        if self.log is not None:
            with open(self.log, "a") as file:
                file.write(f"{what} {self.column}\n")


def logged(log):
    """Lines of a log, sorted."""
    return sorted(Path(log).read_text().split("\n")[:-1])


def table(sections=("00", "01"), n_train=12, n_test=20, machine="fan", seed=0, columns="abc"):
    """Clips with scores drawn at random, lower for anomalies, most in the first column."""
    rng = np.random.default_rng(seed)
    parts = []
    for section in sections:
        n = n_train + n_test
        anomaly = np.r_[np.zeros(n_train, bool), np.arange(n_test) % 2 == 1]
        part = pd.DataFrame(
            {
                "path": [f"{machine}_{section}_{i:03d}.wav" for i in range(n)],
                "machine": machine,
                "section": section,
                "domain": np.where(np.arange(n) % 4 < 2, "source", "target"),
                "split": ["train"] * n_train + ["test"] * n_test,
                "label": np.where(anomaly, "anomaly", "normal"),
            }
        )
        for j, column in enumerate(columns):
            part[column] = 10 * j + rng.normal(size=n) * 2**j - anomaly * 2**j / (j + 1)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def members(log=None, columns="abc"):
    return [(column, FromColumn(column, log)) for column in columns]
