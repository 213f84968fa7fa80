"""Error map of AEGAN-AD, of a clip with a tone too many and a click too few."""

from _planted import missing_click, show, test_features, tone, training_features

from sk_asd.detectors import AEGANDetector

odd, (click, added) = test_features(missing_click, tone)
detector = AEGANDetector(
    n_frames=32,
    window_hop=4,
    adversarial=False,
    max_epochs=18,
    lr=2e-3,
    batch_size=32,
    random_state=0,
    module__norm="batch",
    module__width=0.1,
    module__latent_dim=16,
).fit(training_features())
show(
    [odd[0], detector.score_map(odd)[0]],
    ["log-mel spectrogram", "AEGAN-AD"],
    ["dB", "squared error"],
    [(None, None), (0, None)],
    {click: "no click", added: "tone"},
)
