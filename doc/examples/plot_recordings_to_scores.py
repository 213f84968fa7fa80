"""
From recordings to scores
=========================

A clip table, the Pipeline, scores, the official metrics and decisions.
"""

# %%
# The clip table
# --------------
#
# One row a recording. Here the recordings are synthetic; ``load_clips("folder")`` makes such a
# table of your own. The training clips are all normal; the source domain is what the machines
# usually do, the target domain has changed conditions with few training clips.

from sk_asd.datasets import check_clips, make_machine_sounds

clips = make_machine_sounds(("fan", "valve"), n_train=60, n_test=60, duration=4.0, random_state=0)
clips.drop(columns="audio").groupby(["machine", "split", "domain", "label"]).size()

# %%
# Look at the recordings before any training. An empty table means that all is well.

check_clips(clips)

# %%
# Features
# --------
#
# An extractor returns an array that carries the columns of the table along. A normal valve and an
# abnormal one:

import matplotlib.pyplot as plt

from sk_asd.features import LogMel

valves = clips[(clips.machine == "valve") & (clips.split == "test")]
pair = valves.drop_duplicates("label")
spectrograms = LogMel(n_mels=64).fit_transform(pair)
figure, axes = plt.subplots(1, 2, sharey=True, figsize=(9, 3), layout="constrained")
for ax, spectrogram in zip(axes, spectrograms):
    spectrogram.plot(ax=ax, x="frame", add_colorbar=False)
    ax.set(title=spectrogram.label.item(), xlabel="s", ylabel="Hz", yscale="symlog")

# %%
# A system
# --------
#
# Log-mel spectrogram, ranking pooling over time, and a Mahalanobis distance for each section:
# three steps of an ordinary Pipeline.

from sk_asd.systems import make_pooling

train, test = clips[clips.split == "train"], clips[clips.split == "test"]
model = make_pooling(r=0.9).fit(train)
model

# %%
# Scores are high for normal clips, as everywhere in scikit-learn. The official metrics compare
# them with the labels:

from sk_asd.metrics import dcase_scores

scores = model.score_samples(test)
dcase_scores(test, scores).round(3)

# %%
# Decisions
# ---------
#
# Each section has a threshold from its normal training clips, here the default, below which a
# tenth of them lie. Clips left of the line are called abnormal.

figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for ax, (group, offset) in zip(axes, model[-1].offsets_.items()):
    machine, section = group
    rows = (test.machine == machine) & (test.section == section)
    values = [scores[rows & (test.label == label)] for label in ("normal", "anomaly")]
    ax.hist(values, bins=20, label=["normal", "anomaly"])
    ax.axvline(offset, color="black", linestyle="--", label="threshold")
    ax.set(title=f"{machine} {section}", xlabel="score, high = normal")
    ax.legend()

# %%

test.assign(decision=model.predict(test)).groupby(["machine", "label", "decision"]).size()
