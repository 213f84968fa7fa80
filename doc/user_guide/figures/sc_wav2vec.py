"""Features of a wav2vec model, and embeddings of a classifier trained on them, of three valves."""

import matplotlib.pyplot as plt
from sklearn.decomposition import PCA

from sk_asd.datasets import make_machine_sounds
from sk_asd.systems import make_sc_wav2vec

COLORS = ("#0072B2", "#E69F00", "#009E73")  # also told apart by the colour-blind

clips = make_machine_sounds(
    "valve", sections=3, n_train=20, n_test=20, duration=2.0, snr=6.0, random_state=0
)
train, test = clips[clips["split"] == "train"], clips[clips["split"] == "test"]
model = make_sc_wav2vec("valve", target="section", max_epochs=12, random_state=0)
model.set_params(embedder__n_frames=128, embedder__module__width=0.125, embedder__mixup=0.0)
X_train = model["feature"].fit_transform(train)
X_test = model["feature"].transform(test)
model["embedder"].fit(X_train)
spaces = {
    "wav2vec features, mean over time": (X_train.mean("frame"), X_test.mean("frame")),
    "embeddings of the classifier": (
        model["embedder"].transform(X_train),
        model["embedder"].transform(X_test),
    ),
}

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for ax, (title, (known, new)) in zip(axes, spaces.items()):
    plane = PCA(2, random_state=0).fit(known).transform(new)
    for section, color in zip(("00", "01", "02"), COLORS):
        for label, marker in (("normal", "o"), ("anomaly", "x")):
            chosen = ((test["section"] == section) & (test["label"] == label)).to_numpy()
            ax.scatter(*plane[chosen].T, 22, color, marker, label=f"{section} {label}")
    ax.set(xlabel="first component", ylabel="second component", title=title)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
