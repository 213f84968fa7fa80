"""Embeddings and scores of SC, of three valves."""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA

from sk_asd.datasets import make_machine_sounds
from sk_asd.features import LogMel
from sk_asd.systems import make_sc

COLORS = ("#0072B2", "#E69F00", "#009E73")  # also told apart by the colour-blind
MARKERS = {"normal": "o", "anomaly": "x"}

clips = make_machine_sounds(
    "valve", sections=3, n_train=40, n_test=40, duration=4.0, snr=6.0, random_state=0
)
train, test = clips[clips["split"] == "train"], clips[clips["split"] == "test"]
model = make_sc(feature=LogMel(n_mels=32), backbone="cnn6", max_epochs=15, random_state=0)
model.set_params(embedder__n_frames=64, embedder__module__width=0.125).fit(train)
embeddings, scores = model[:-1].transform(test), model.score_samples(test)
plane = PCA(2, random_state=0).fit(model[:-1].transform(train)).transform(embeddings)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
rng = np.random.default_rng(0)
for i, (section, color) in enumerate(zip(("00", "01", "02"), COLORS)):
    for label, marker in MARKERS.items():
        chosen = ((test["section"] == section) & (test["label"] == label)).to_numpy()
        style = {"color": color, "marker": marker, "s": 22, "label": f"{section} {label}"}
        left.scatter(*plane[chosen].T, **style)
        x = i + (0.2 if label == "anomaly" else -0.2) + rng.uniform(-0.1, 0.1, chosen.sum())
        right.scatter(x, scores[chosen], **style)
    offset = model["detector"].offsets_["valve", section]
    right.hlines(offset, i - 0.4, i + 0.4, color="black", linestyle="--", linewidth=1)
left.set(xlabel="first component", ylabel="second component", title="embeddings of test clips")
figure.legend(*left.get_legend_handles_labels(), loc="outside right center")
right.set(xlabel="section", ylabel="score, high = normal", title="scores and thresholds")
right.set_xticks(range(3), ["00", "01", "02"])
