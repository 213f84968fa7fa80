"""What the heads of MHCR learn about gearboxes, and what they say about test clips."""

import matplotlib.pyplot as plt
import pandas as pd

from sk_asd.datasets import make_machine_sounds
from sk_asd.features import LogMel
from sk_asd.systems import make_mhcr

LABELS = {"volt": "volt: voltage in V", "wt": "wt: load"}

clips = make_machine_sounds(
    "gearbox",
    sections=3,
    n_train=40,
    n_test=30,
    n_target_train=10,
    duration=4.0,
    snr=6.0,
    random_state=0,
)
train, test = clips[clips["split"] == "train"], clips[clips["split"] == "test"]
model = make_mhcr("gearbox", feature=LogMel(n_mels=32), backbone="cnn6", max_epochs=20)
model.set_params(
    embedder__n_frames=64,
    embedder__module__width=0.125,
    embedder__mixup=0.0,
    embedder__subtract_mean=False,  # gearboxes hum
    embedder__random_state=0,
).fit(train)
embedder = model["embedder"]
said = embedder.predict_targets(model["feature"].transform(test))

figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
# Blue, orange, green and purple that the colour-blind tell apart.
styles = zip(("#0072B2", "#E69F00", "#009E73", "#CC79A7"), ("-", "--", "-.", ":"))
for name, (color, style) in zip(embedder.heads_, styles):
    losses = pd.Series(embedder.net_.history[:, f"{name}_loss"], dtype=float)
    smooth = losses.rolling(5, min_periods=1).mean() / losses[0]
    axes[0].plot(losses.index + 1, smooth, color=color, linestyle=style, label=name)
axes[0].set(
    xlabel="epoch", ylabel="loss / loss of the first epoch", title="heads, mean of 5 epochs"
)
axes[0].set(ylim=(0, 1.15))
axes[0].legend()
for ax, name in zip(axes[1:], ("volt", "wt")):
    for label, marker, color in (("normal", "o", "#0072B2"), ("anomaly", "x", "#D55E00")):
        chosen = (test["label"] == label).to_numpy() & test[name].notna().to_numpy()
        ax.scatter(test[name][chosen], said[name][chosen], 22, color, marker, label=label)
    ends = test[name].min(), test[name].max()
    ax.plot(ends, ends, color="black", linewidth=1)
    ax.set(xlabel="value in the file name", ylabel="what the head says", title=LABELS[name])
axes[1].legend()
