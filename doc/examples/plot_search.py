"""
Which detector, which pooling?
==============================

``GridSearchCV`` on a clip table: steps of a Pipeline and their parameters in one search.
"""

# %%
# All clips go into the search. ``NormalTrainSplit`` trains on the normal clips of the training
# split and tests on the test split; ``dcase_scorer`` takes the official number. ``refit=False``,
# because a refit would train on all rows, the anomalies included.
#
# The features are the same for all candidates, so they are computed once and kept on disk.

from tempfile import TemporaryDirectory

import pandas as pd
from sklearn.model_selection import GridSearchCV

from sk_asd.datasets import make_machine_sounds
from sk_asd.detectors import KNNDetector, LOFDetector, MahalanobisDetector
from sk_asd.features import LogMel
from sk_asd.metrics import dcase_scorer
from sk_asd.model_selection import NormalTrainSplit
from sk_asd.systems import make_pooling

clips = make_machine_sounds(
    ("fan", "slider", "valve"), n_train=60, n_test=60, duration=4.0, random_state=0
)
candidates = {
    "pooling__r": [0.4, 0.7, 0.9, 1.0],
    "detector__detector": [KNNDetector(), LOFDetector(), MahalanobisDetector()],
}


def search(clips, cache):
    """Scores of all candidates."""
    model = make_pooling(feature=LogMel(n_mels=64, cache_dir=cache))
    found = GridSearchCV(
        model, candidates, scoring=dcase_scorer, cv=NormalTrainSplit(), refit=False
    ).fit(clips)
    return pd.DataFrame(found.cv_results_)


with TemporaryDirectory() as cache:
    results = {machine: search(rows, cache) for machine, rows in clips.groupby("machine")}

# %%
# ``r = 1`` averages over the clip, a smaller one listens to its loudest moments. Machines and
# detectors differ in what suits them; with 60 test clips a machine, differences under some 10
# points mean little.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, 3, sharey=True, figsize=(10, 3), layout="constrained")
for ax, (machine, result) in zip(axes, results.items()):
    names = result["param_detector__detector"].map(lambda detector: type(detector).__name__)
    for name, rows in result.groupby(names):
        ax.plot(rows["param_pooling__r"], rows["mean_test_score"], marker="o", label=name)
    ax.set(title=machine, xlabel="r")
axes[0].set_ylabel("official score")
axes[0].legend()

# %%
# These are oracle figures: whoever picks the best point of each panel has looked at the labels of
# the very clips it is reported on. An honest figure fixes the setting beforehand, or chooses on
# some sections and reports on others.
