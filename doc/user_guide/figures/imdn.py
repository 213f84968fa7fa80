"""Score maps of IMDN with one and with three Gaussians, of a clip that lacks a click."""

import numpy as np
from _planted import missing_click, show, test_features, training_features

from sk_asd.detectors import IMDNDetector

X = training_features()
odd, (place,) = test_features(missing_click)

maps = [odd[0]]
for n_components in (1, 3):
    detector = IMDNDetector(
        "ignn",
        n_frames=31,
        window_hop=1,
        n_components=n_components,
        max_epochs=12,
        lr=1e-2,
        batch_size=64,
        random_state=0,
        module__hidden=32,
        module__n_layers=1,
    )
    # Several windows of a clip an epoch.
    detector.fit(X[np.tile(np.arange(len(X)), 5)])
    maps.append(detector.score_map(odd)[0])
show(
    maps,
    ["log-mel spectrogram", "IMDN, one Gaussian", "IMDN, three Gaussians, trained as long"],
    ["dB", "nats", "nats"],
    [(None, None), (-1, 8), (-1, 8)],
    {place: "no click"},
)
