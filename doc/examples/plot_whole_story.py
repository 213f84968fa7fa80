"""
From own recordings to a report
===============================

Recordings of two machines lie in a folder. Are they fit for use? Which clips are abnormal, who says
so, and where does a colleague read it?
"""

# %%
# Recordings
# ----------
# Synthetic machines stand in for your own here, as files on disk, one folder a machine. A broken
# microphone has left one of them silent.
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from sk_asd.datasets import check_clips, load_clips, make_machine_sounds

folder = tempfile.TemporaryDirectory()
root = Path(folder.name) / "recordings"
make_machine_sounds(
    ("fan", "valve"),
    sections=2,
    n_train=30,
    n_test=30,
    duration=3.0,
    severity=2.0,
    root=root,
    random_state=0,
)
broken = sorted((root / "dev_data" / "valve" / "train").iterdir())[3]
soundfile.write(broken, np.zeros(48000), 16000)

clips = load_clips(root)
clips[["machine", "section", "domain", "split", "label"]].value_counts().head()

# %%
# ``load_clips`` reads names, not sounds. ``check_clips`` reads every file and tells what would
# spoil a training:
findings = check_clips(clips)
findings[["problem", "detail"]]

# %%
# The silent clip has to go. From here on normal training clips are one table, test clips another.
clips = clips[~clips["path"].isin(findings["path"])]
train, test = clips[clips["split"] == "train"], clips[clips["split"] == "test"]

# %%
# A first system
# --------------
# The mean of every frequency over time, and a Mahalanobis distance in every section: no network, a
# second of training. Labels of test clips are used for the evaluation alone.
from sk_asd.metrics import dcase_scores
from sk_asd.systems import make_pooling

steady = make_pooling(r=1.0).fit(train)
dcase_scores(test, steady.score_samples(test)).round(3)

# %%
# A mean hears the hum of a fan better than the strokes of a valve, which are over in an instant.
# Ranking pooling with a small ``r`` listens to the loudest moments instead:
peaks = make_pooling(r=0.5).fit(train)
dcase_scores(test, peaks.score_samples(test)).round(3)

# %%
# An ensemble
# -----------
# Who does not want to choose for every machine takes both. An ensemble puts the scores of its
# members in units of their training scores, in the groups ``by``, and adds them. It is nearly as
# good as the better one on either machine:
from sk_asd.ensemble import ScoreEnsemble

ensemble = ScoreEnsemble(
    [("steady", steady), ("peaks", peaks)], by=("machine", "section"), threshold="gamma"
).fit(train)
scores = ensemble.score_samples(test)
dcase_scores(test, scores).round(3)

# %%
# Who says so?
# ------------
# ``contributions`` splits a score among the members: negative shares make a clip abnormal. These
# are the six most abnormal test clips.
import matplotlib.pyplot as plt

worst = test.iloc[np.argsort(scores)[:6]]
shares = ensemble.contributions(worst)
names = [f"{clip.machine} {clip.section}, {clip.label}" for clip in worst.itertuples()]
figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
left = np.zeros(len(worst))
for member, color in zip(shares["feature"].values, ("#0072B2", "#E69F00")):
    values = shares.sel(feature=member).values
    ax.barh(names_at := np.arange(len(worst)), values, left=left, color=color, label=member)
    left += values
ax.set_yticks(names_at, names)
ax.invert_yaxis()
ax.set(xlabel="share of the score, in standard deviations of training scores", title="worst first")
legend = ax.legend()
# %%
# A report
# --------
# One file for the browser, with tables, histograms and ROC curves, and the most abnormal clips with
# their spectrograms, anomaly maps and nearest normal clips, to be heard as well.
from sk_asd.inspection import explain_clips, write_report

report = write_report(
    root / "report.html",
    test,
    {"steady and peaks": scores},
    thresholds={"steady and peaks": np.full(len(test), ensemble.offset_)},
    title="Fans and valves",
    explain=explain_clips(ensemble, test, train, scores=scores, n_clips=3),
)
print(f"{report.name}: {report.stat().st_size / 1000:.0f} kB")

# %%
# The same from the command line, with the best ensemble of this package in place of this one::
#
#     sk-asd check recordings
#     sk-asd run recordings --system best --out run
#
# ``run`` trains one system a machine, scores, decides, evaluates, and writes the tables, the csv
# files of the challenge, the models and the report into the folder ``run``. Given again, the
# command goes on where it was interrupted.
folder.cleanup()
