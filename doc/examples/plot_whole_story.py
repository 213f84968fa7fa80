"""
The whole story
===============

From a folder of recordings to an ensemble and a report: what to do with recordings of one's own.
"""

# %%
# Recordings
# ----------
#
# A quarter of an hour of two toys, which are synthetic, written to a folder as somebody's own
# recordings would be. ``load_clips`` makes a table of it. It reads the file names of the DCASE
# challenge, as here, and also folders ``<machine>/<train|test>/<normal|anomaly>/`` in which files
# may be called anything.

from pathlib import Path
from tempfile import TemporaryDirectory

from sk_asd.datasets import load_clips, make_machine_sounds

storage = TemporaryDirectory()
folder = Path(storage.name)
make_machine_sounds(
    ("ToyCar", "ToyTrain"),
    sections=2,
    n_train=40,
    n_test=40,
    duration=3.0,
    severity=2.0,
    root=folder / "recordings",
    random_state=0,
)

clips = load_clips(folder / "recordings")
clips.groupby(["machine", "section", "split", "label"]).size().unstack(fill_value=0)

# %%
# Look before training
# --------------------
#
# A gain is turned up too far, a cable falls out. Two of the training recordings are spoilt:

import numpy as np
import soundfile

loud, lost = clips.path[clips.split == "train"].iloc[[3, 50]]
sound, rate = soundfile.read(loud)
soundfile.write(loud, np.clip(50 * sound, -1, 1), rate)
soundfile.write(lost, 0 * sound, rate)

# %%
# ``check_clips`` reads every recording and finds them. They are left out: to a detector that has
# learnt silence as normal a machine that stands still is in order.

from sk_asd.datasets import check_clips

findings = check_clips(clips)
findings.assign(path=[Path(path).name for path in findings.path])

# %%

clips = clips[~clips.path.isin(findings.path)]
train, test = clips[clips.split == "train"], clips[clips.split == "test"]
len(train), len(test)

# %%
# A first system
# --------------
#
# The loudest moments of a log-mel spectrogram, weighted by rank, and a Mahalanobis distance for
# each machine and section. It takes a second, and is the line that everything else has to beat.

from sk_asd.systems import make_pooling

pooling = make_pooling().fit(train)

# %%
# A second one
# ------------
#
# Subsystem MHCR of the AITHU report is a network that learns to tell the section of a clip, the
# voltage, the car and the microphone. What sounds like no setting that it knows is abnormal. As
# ``make_mhcr()`` has it, training takes minutes; with fewer channels, shorter windows and eight
# epochs it takes seconds, which shows the calls and not what the method can do. Parameters of a
# step are set as in any Pipeline.

from sk_asd.features import LogMel
from sk_asd.systems import make_mhcr

mhcr = make_mhcr(
    feature=LogMel(n_mels=32, hop_length=1024), backbone="mfnse", max_epochs=8, random_state=0
).set_params(
    embedder__n_frames=32,
    embedder__window_hop=16,
    embedder__lr=3e-3,
    embedder__module__width=0.25,
)
mhcr.fit(train)

# %%
# Both together
# -------------
#
# The scores of the two are on different scales. ``ScoreEnsemble`` puts both in units of the
# training scores, within each machine and section, and adds them up. What is frozen is not fitted
# again. The weights are set beforehand, more for the member that needs less training; what comes of
# choosing them is another example, "How much weight for whom?".

from sklearn.frozen import FrozenEstimator

from sk_asd.ensemble import ScoreEnsemble

ensemble = ScoreEnsemble(
    [("pooling", FrozenEstimator(pooling)), ("mhcr", FrozenEstimator(mhcr))],
    weights=(0.7, 0.3),
    by=("machine", "section"),
).fit(train)

# %%
# ``transform`` gives the members' scores in these units, of which the ensemble's are the weighted
# sum. The official table of the ensemble, and beside it the last column of the members' tables:

from sk_asd.metrics import dcase_scores

matrix = ensemble.transform(test)
scores = {name: matrix.sel(feature=name).values for name in ("pooling", "mhcr")}
scores["ensemble"] = matrix.values @ ensemble.weights_
tables = {name: dcase_scores(test, values) for name, values in scores.items()}
beside = {f"hmean, {name}": tables[name]["hmean"] for name in ("pooling", "mhcr")}
tables["ensemble"].assign(**beside).round(3)

# %%
# After eight epochs the network alone is at chance for ToyTrain, but it hears something in ToyCar
# that the pooled spectrum does not: there the ensemble is 5 points above the first system, and 3 in
# total. With 40 test clips a section that is no proof, and no more than the calls was to be shown.
#
# Which member was it?
# --------------------
#
# ``contributions`` splits a score into the shares of the members. The five most abnormal clips; 0
# is the mean of the normal training clips, and what lies left of it makes a clip suspicious:

import matplotlib.pyplot as plt

worst = test.iloc[np.argsort(scores["ensemble"])[:5]]
shares = ensemble.contributions(worst)
height = 0.38
places = np.arange(len(worst))
figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
ax.set_yticks(places + height / 2, worst.machine + " " + worst.section + ", " + worst.label)
ax.set_xlabel("share of the score, in standard deviations of normal training clips")
for i, (member, colour) in enumerate([("pooling", "#0072b2"), ("mhcr", "#e69f00")]):
    ax.barh(places + i * height, shares.sel(feature=member), height, color=colour, label=member)
figure.legend(loc="outside upper center", ncols=2)
ax.invert_yaxis()

# %%
# It is the pooled spectrum that finds them. The network joins in clearly once, and contradicts
# three times, softly. One of the five is a normal clip.
#
# Decisions, and a report
# -----------------------
#
# One threshold for all machines and sections, below which a tenth of the normal training clips lie:

decision = np.where(scores["ensemble"] >= ensemble.offset_, "called normal", "called abnormal")
counts = test.assign(decision=decision).groupby(["domain", "label", "decision"]).size()
counts.unstack(fill_value=0)

# %%
# In the source domain 1 of 40 normal clips is called abnormal, in the target domain 13 of 40: in
# training only a tenth of the clips was of that domain. "When the machine runs under new
# conditions" is about this.
#
# The report is one HTML file for a browser, with tables, histograms, ROC curves and the names of
# the most abnormal clips:

from sk_asd.inspection import write_report

report = write_report(
    folder / "report.html",
    test,
    scores,
    thresholds={"ensemble": np.full(len(test), ensemble.offset_)},
    title="Two toys",
)
f"{report.name}: {report.stat().st_size / 1000:.0f} kB"

# %%
# The same without Python
# -----------------------
#
# On the command line, where ``recordings`` is the folder::
#
#     sk-asd check recordings
#     sk-asd run recordings --system pooling --out run_pooling
#     sk-asd run recordings --system submission-4 --out run
#
# ``check`` lists the spoilt recordings; take them away. ``run`` trains one model a machine, scores
# and decides, and writes the tables, the models and ``report.html`` to the folder ``--out``.
# ``submission-4`` is an ensemble of two systems of the AITHU report, a classifier of sections and a
# normalizing flow. Its networks are trained for minutes to hours; a run that was interrupted goes
# on when the same command is given again. Tomorrow's recordings of a machine, in a folder laid out
# like the first, are scored with its model::
#
#     sk-asd score run/models/ToyCar.joblib tomorrow --out scores.csv

storage.cleanup()
