"""Error maps of the autoencoder baseline with 5 and with 31 frames, of a click that is late."""

from _planted import late_click, show, test_features, training_features

from sk_asd.detectors import AutoEncoderDetector

X = training_features()
odd, (place,) = test_features(late_click)

maps = [odd[0]]
for n_frames in (5, 31):
    detector = AutoEncoderDetector(
        n_frames=n_frames, window_hop=2, max_epochs=16, lr=3e-3, batch_size=64, random_state=0
    )
    maps.append(detector.fit(X).score_map(odd)[0])
show(
    maps,
    ["log-mel spectrogram", "autoencoder of 5 frames", "autoencoder of 31 frames"],
    ["dB", "dB²", "dB²"],
    [(None, None), (0, None), (0, None)],
    {place: "due here"},
)
