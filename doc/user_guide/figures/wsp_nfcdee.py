"""Pooled bins of a fan with a tone too many, and their contributions to the score."""

import matplotlib.pyplot as plt
import numpy as np

from sk_asd.datasets import make_machine_sounds
from sk_asd.features import LogMel
from sk_asd.systems import make_wsp_nfcdee

HZ = 2000

clips = make_machine_sounds(
    "fan", n_train=80, n_test=40, n_target_train=0, duration=3.0, random_state=0
)
train = clips[clips["split"] == "train"]
normal = clips[(clips["domain"] == "source") & (clips["label"] == "normal")].drop(train.index)
y = normal["audio"].iloc[0]
tone = 0.3 * y.std() * np.sin(2 * np.pi * HZ * np.arange(len(y)) / 16000)
odd = normal[:1].assign(audio=[(y + tone).astype(y.dtype)])

model = make_wsp_nfcdee(max_epochs=40, random_state=0)
model.set_params(feature=LogMel(n_mels=40)).fit(train)
mel, detector = model["feature"], model["detector"].detectors_["fan"]
alpha = detector.alpha_


def pooled(clips):
    """Weighted statistic pooling with the weights that were learnt."""
    X = mel.transform(clips)
    return alpha * X.mean("frame") + (1 - alpha) * X.std("frame")


rows = {
    "pooled, dB": (pooled(normal), pooled(odd)[0]),
    "contribution, nats": [detector.score_map(mel.transform(c)) for c in (normal, odd)],
}
figure, axes = plt.subplots(2, sharex=True, figsize=(8, 4.4), layout="constrained")
for ax, (label, (usual, one)) in zip(axes, rows.items()):
    low, high = np.quantile(usual, [0.05, 0.95], axis=0)
    hz = usual.mel.values
    ax.fill_between(hz, low, high, color="#56B4E9", alpha=0.5, label="90 % of normal test clips")
    ax.plot(
        hz, np.ravel(one), color="#D55E00", marker=".", label="one of them with a tone of 2 kHz"
    )
    ax.axvline(HZ, color="black", linestyle=":", linewidth=1)
    ax.set(ylabel=label, xscale="log")
axes[0].legend()
axes[1].set_xlabel("frequency, Hz")
