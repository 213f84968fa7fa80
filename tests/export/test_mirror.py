"""The torch module of a system against the system itself, part by part."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_asd.detectors import (
    CosineDetector,
    GaussianMixtureDetector,
    KNNDetector,
    LOFDetector,
    MahalanobisDetector,
)
from sk_asd.embedders import MultiHeadEmbedder, SectionEmbedder, Wav2VecPretrainer
from sk_asd.embedders._layers import PReLULayer
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
from sk_asd.features import STFT, KeepLabels, LogMel, TimePooling, Wav2Vec
from sk_asd.metrics import anomaly_score
from sk_asd.systems import make_pooling

RNG = np.random.default_rng(0)
WAVES = (0.1 * RNG.normal(size=(3, 8000)) + 0.2 * np.sin(np.arange(8000) / 9)).astype("float32")


def embedding(embedder, name, n_frames=16):
    """Embedder of a tiny network."""
    settings = {"n_frames": n_frames, "window_hop": 8, "module__embedding_dim": 8, "max_epochs": 1}
    return embedder(name, device="cpu", random_state=0, module__width=0.1, **settings)


@pytest.mark.parametrize(
    "extractor",
    [
        STFT(n_fft=512),
        STFT(n_fft=512, hop_length=128, power=2.0, fmin=300, fmax=3000),
        STFT(n_fft=401, hop_length=160, power=0.5),  # odd, and no common divisor
        STFT(n_fft=256, hop_length=300, win_length=200, window="hamming", center=False),
        STFT(n_fft=512, window=np.linspace(0.1, 1, 512)),  # not symmetric
        LogMel(n_fft=1024, n_mels=40),
        LogMel(n_mels=20, top_db=None, fmax=4000, htk=True, norm=None, power=1.0),
        LogMel(n_mels=20, top_db=30.0),
        LogMel(n_mels=20, amin=1e-3),
        Wav2Vec(),
        Wav2VecPretrainer(max_updates=1, batch_size=1, device="cpu", random_state=0),
    ],
)
def test_features(extractor):
    expected = extractor.fit_transform(WAVES)
    found = extractor._exported()(torch.from_numpy(WAVES)).detach().numpy()
    assert found.shape == expected.shape
    # The Fourier transform rounds in units of a frame's largest values.
    atol = 1e-3 if isinstance(extractor, LogMel) else 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("r", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("statistics", [("mean", "std", "max", "gwrp"), ("gwrp",)])
def test_pooling(r, statistics):
    features = RNG.normal(size=(3, 5, 61)).astype("float32")
    pooling = TimePooling(statistics, r=r)
    expected = pooling.fit_transform(features)
    found = pooling._exported(61)(torch.from_numpy(features))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_frames", [16, 30, None])
@pytest.mark.parametrize("subtract_mean", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "std"])
def test_windows_of_embedders(n_frames, subtract_mean, pooling):
    features = RNG.normal(size=(6, 12, 30)).astype("float32")
    embedder = embedding(SectionEmbedder, "cnn6", n_frames)
    embedder.set_params(subtract_mean=subtract_mean).fit(features, y=[0, 1] * 3)
    embedder.pooling = "mean" if n_frames in (30, None) else pooling  # one window has no spread
    found = embedder._exported(30)(torch.from_numpy(features))
    np.testing.assert_allclose(found.detach(), embedder.transform(features), atol=1e-6)


@pytest.mark.parametrize("slopes", [[0.25], [2.0], [-0.5, 0.25, 1.0], [-0.5, 0.25, 1.5]])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5), (2, 3, 5, 4)])
def test_prelu_is_the_same(slopes, shape):
    prelu = torch.nn.PReLU(len(slopes))
    with torch.no_grad():
        prelu.weight.copy_(torch.tensor(slopes))
    x = torch.from_numpy(RNG.normal(size=shape).astype("float32"))
    torch.testing.assert_close(PReLULayer(prelu)(x), prelu(x), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [SectionEmbedder, MultiHeadEmbedder])
@pytest.mark.parametrize("backbone", ["mobilefacenet", "mfnse", "ecapa", "cnn6"])
def test_backbones(kind, backbone):
    features = RNG.normal(size=(6, 12, 40)).astype("float32")
    embedder = embedding(kind, backbone).fit(features, y=["a", "b"] * 3)
    found = embedder._exported(40)(torch.from_numpy(features))
    np.testing.assert_allclose(found.detach(), embedder.transform(features), atol=1e-6)


DETECTORS = [
    KNNDetector(),
    KNNDetector(3, metric="euclidean", aggregation="max"),
    KNNDetector(2, metric="euclidean", density_neighbors=3),
    LOFDetector(3),
    CosineDetector(),
    MahalanobisDetector(),
    *(
        GaussianMixtureDetector(2, covariance_type=kind, reg_covar=1e-2, random_state=0)
        for kind in ("full", "tied", "diag", "spherical")
    ),
    GaussianMixtureDetector(2, density="max_component", reg_covar=1e-2, random_state=0),
]


@pytest.mark.parametrize("over", [None, "domain"])
@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: str(d).replace("Detector", ""))
def test_detectors(train, test, mirrored, detector, over):
    train = train.assign(domain=["source", "target"] * (len(train) // 2))
    if over is not None and getattr(detector, "density_neighbors", None):
        over = None  # four clips a domain are too few
    if over is not None and isinstance(detector, LOFDetector):
        detector = LOFDetector(2)
    if over is not None and getattr(detector, "n_neighbors", 1) == 3:
        detector = KNNDetector(2, metric="euclidean", aggregation="max")
    system = make_pooling(
        feature=LogMel(n_fft=512, n_mels=16), detector=detector, over=over, by="machine"
    ).fit(train)
    np.testing.assert_allclose(
        mirrored(system, test), anomaly_score(system, test), rtol=1e-5, atol=1e-5
    )


def test_vectors_of_length_zero(test, mirrored):
    """Silence: scikit-learn's cosine distance of a zero vector is 1, or 0.5 between pairs."""
    silent = test[:2].assign(audio=[np.zeros(16000, "float32")] * 2)
    for detector in (KNNDetector(), CosineDetector()):
        system = make_pipeline(STFT(n_fft=512), TimePooling(), detector).fit(test)
        expected = anomaly_score(system, silent)
        assert expected[0] == pytest.approx(1.0 if isinstance(detector, KNNDetector) else 0.5)
        np.testing.assert_allclose(mirrored(system, silent), expected)


@pytest.mark.parametrize(
    "steps",
    [
        (KeepLabels(StandardScaler()),),
        (KeepLabels(PCA(4)),),
        (KeepLabels(StandardScaler(with_mean=False)), KeepLabels(PCA(4, whiten=True))),
        ("passthrough", KeepLabels(StandardScaler(with_std=False))),
    ],
)
def test_scalers(train, test, mirrored, steps):
    feature = LogMel(n_fft=512, n_mels=16)
    detector = GroupedDetector(MahalanobisDetector(), by="machine")
    system = make_pipeline(feature, TimePooling(), *steps, detector).fit(train)
    np.testing.assert_allclose(
        mirrored(system, test), anomaly_score(system, test), rtol=1e-5, atol=1e-5
    )


def test_ensembles(train, test, mirrored):
    """Members by columns of their own, one of them dropped, inside and outside a Pipeline."""
    feature = LogMel(n_fft=512, n_mels=16)
    members = [
        ("machine", GroupedDetector(KNNDetector(), by="machine")),
        ("none", CosineDetector()),
        ("gone", LOFDetector()),
        ("pipeline", make_pipeline(KeepLabels(PCA(3)), GroupedDetector(by=["section", "machine"]))),
    ]
    by = ["machine", "section"]
    inner = ScoreEnsemble(members, (0.5, 0.2, 0.2, 0.1), by=by).set_params(gone="drop")
    system = make_pipeline(feature, TimePooling(), inner).fit(train)
    np.testing.assert_allclose(
        mirrored(system, test), anomaly_score(system, test), rtol=1e-5, atol=1e-5
    )
    outer = ScoreEnsemble(
        [("mel", make_pooling(feature=feature)), ("stft", make_pooling(feature=STFT(n_fft=512)))],
        by=by,
    ).fit(train)
    np.testing.assert_allclose(
        mirrored(outer, test), anomaly_score(outer, test), rtol=1e-5, atol=1e-5
    )
