"""
A section classifier
====================

A network that learns to tell operating conditions apart hears what machines sound like: subsystem
SC of the AITHU report, in small.
"""

# %%
# Classes without anomalies
# -------------------------
#
# The training clips are all normal. With ``target="joint"`` the classes are all combinations of
# machine, section, domain and attributes.

from sklearn.pipeline import make_pipeline

from sk_asd.datasets import make_machine_sounds
from sk_asd.detectors import KNNDetector
from sk_asd.embedders import SectionEmbedder
from sk_asd.ensemble import GroupedDetector
from sk_asd.features import LogMel

clips = make_machine_sounds(
    ("ToyCar", "ToyTrain"), n_train=60, n_test=40, duration=3.0, random_state=0
)
train, test = clips[clips.split == "train"], clips[clips.split == "test"]
model = make_pipeline(
    LogMel(n_mels=32, hop_length=1024),
    SectionEmbedder(
        backbone="mfnse",
        target="joint",
        n_frames=32,
        window_hop=8,
        max_epochs=15,
        batch_size=16,
        lr=3e-3,
        module__width=0.25,
        random_state=0,
    ),
    GroupedDetector(KNNDetector(), by=["machine", "section"]),
).fit(train)
embedder = model["sectionembedder"]
len(embedder.classes_)

# %%
# The loss of every epoch is in the history of the skorch net.

import matplotlib.pyplot as plt

figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.plot(embedder.net_.history[:, "train_loss"])
ax.set(xlabel="epoch", ylabel="ArcFace loss")

# %%
# The embeddings
# --------------
#
# They are labelled as the clips are. Two principal components of the test clips:

from sklearn.decomposition import PCA

embeddings = model[:-1].transform(test)
points = PCA(2).fit_transform(embeddings.values)
figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
for machine, marker in (("ToyCar", "o"), ("ToyTrain", "s")):
    for label, colour in (("normal", "tab:blue"), ("anomaly", "tab:red")):
        chosen = ((embeddings.machine == machine) & (embeddings.label == label)).values
        ax.scatter(*points[chosen].T, s=12, marker=marker, color=colour, label=f"{machine} {label}")
ax.legend()

# %%
# The distance to the nearest training clip of the same machine and section is the score. Two
# minutes of sound a machine and some 120 steps of training show the calls, not what the method can
# do.

from sk_asd.metrics import dcase_scores

dcase_scores(test, model.score_samples(test)).round(3)
