"""
Looking at results
==================

One plot for every question about a score: what is in the clip, where the system finds it abnormal,
who said so, how it compares with other clips, and how well all of that tells faults from normal
sound.
"""

# %%
# A small ensemble
# ----------------
#
# Two synthetic machines of two sections, and two members that fit in a second each: Mahalanobis
# distance on means and deviations over time, k-NN on peaks.

import matplotlib.pyplot as plt

from sk_asd.datasets import make_machine_sounds
from sk_asd.detectors import KNNDetector
from sk_asd.ensemble import ScoreEnsemble
from sk_asd.features import LogMel
from sk_asd.inspection import (
    AnomalyMapDisplay,
    ContributionDisplay,
    EmbeddingDisplay,
    RocDisplay,
    ScoreDistributionDisplay,
    SpectrogramDisplay,
    anomaly_map,
    nearest_normal,
)
from sk_asd.systems import make_pooling

clips = make_machine_sounds(
    ("fan", "valve"), sections=2, n_train=60, n_test=40, duration=4.0, random_state=0
)
train, test = clips[clips.split == "train"], clips[clips.split == "test"]
mel = LogMel(n_fft=1024, n_mels=64)
ensemble = ScoreEnsemble(
    [
        ("levels", make_pooling(feature=mel, statistics=("mean", "std"))),
        ("peaks", make_pooling(feature=mel, statistics=("max",), detector=KNNDetector(2))),
    ],
    weights=(0.7, 0.3),
    by=["machine", "section"],
).fit(train)
scores = ensemble.score_samples(test)

# %%
# Scores
# ------
#
# One row a section. High is normal; what lies left of the dashed threshold is called abnormal.

ScoreDistributionDisplay.from_estimator(ensemble, test)

# %%
# The same as ROC curves, for the sections of the valve together. The shaded region is the partial
# AUC of the challenge: what is found with few false alarms.

valve = (test.machine == "valve").to_numpy()
RocDisplay.from_predictions(test[valve], scores[valve])

# %%
# The most abnormal clip
# ----------------------

worst = int(scores.argmin())
SpectrogramDisplay.from_estimator(ensemble, test, clip=worst)

# %%
# Who said so? Negative contributions speak against the clip.

ContributionDisplay.from_estimator(ensemble, test, clip=worst)

# %%
# And where? The member is the one that speaks the loudest.

AnomalyMapDisplay.from_estimator(ensemble, test, clip=worst)

# %%
# The numbers behind it: a labelled array, hertz and seconds included.

maps = anomaly_map(ensemble, test.iloc[[worst]])
maps[0].mean("frame").to_series().nlargest(3)

# %%
# Compared with normal clips
# --------------------------
#
# The nearest normal clip of the same machine and section, to listen to both:

nearest = nearest_normal(ensemble, test.iloc[[worst]], train)
nearest

# %%

figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
own = SpectrogramDisplay.from_predictions(test, clip=worst, ax=axes[0])
other = SpectrogramDisplay.from_predictions(train.loc[nearest["index"]], ax=axes[1])
other.image_.set_clim(own.image_.get_clim())  # the same colours for the same levels
axes[0].set_title("most abnormal")
axes[1].set_title("nearest normal")

# %%
# All clips of the valve in the space that the detector looks at:

EmbeddingDisplay.from_estimator(ensemble, test[valve], member="peaks")
