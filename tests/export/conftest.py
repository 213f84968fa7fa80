"""Small systems on synthetic machines, and the scores of their graphs."""

import numpy as np
import onnxruntime
import pytest
import torch

from sk_asd.datasets import make_machine_sounds
from sk_asd.embedders import SectionEmbedder
from sk_asd.export._mirror import Mirror
from sk_asd.features import LogMel
from sk_asd.systems import make_pooling


@pytest.fixture(scope="session")
def clips():
    """Two machines of two sections, one second a clip."""
    return make_machine_sounds(
        ("fan", "valve"), sections=2, n_train=8, n_test=4, duration=1.0, random_state=0
    )


@pytest.fixture(scope="session")
def train(clips):
    return clips[clips["split"] == "train"].reset_index(drop=True)


@pytest.fixture(scope="session")
def test(clips):
    """Test clips in an order that mixes the groups."""
    return clips[clips["split"] == "test"].sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="session")
def pooling(train):
    """Fitted pooling system with a group per machine and section."""
    return make_pooling(feature=LogMel(n_fft=512, n_mels=16)).fit(train)


@pytest.fixture(scope="session")
def embedder(train):
    """Features and fitted embedder of a tiny network."""
    feature = LogMel(n_fft=512, n_mels=16).fit(train)
    embedder = SectionEmbedder(
        "cnn6",
        target=["machine", "section"],
        n_frames=16,
        window_hop=8,
        max_epochs=1,
        device="cpu",
        random_state=0,
        module__embedding_dim=8,
        module__width=0.1,
    )
    return feature, embedder.fit(feature.transform(train))


def groups_of(mirror, clips):
    """Input ``group`` for clips."""
    columns = [clips[column] for column in mirror.groups.columns]
    names = list(zip(*columns)) if columns else [()] * len(clips)
    return np.array([mirror.groups.names.index(name) for name in names])


@pytest.fixture(scope="session")
def mirrored():
    """Return a function that scores clips by the torch module of a system."""

    def scores(system, clips):
        mirror = Mirror(system)
        waves = torch.from_numpy(np.stack(clips["audio"].tolist()).astype(np.float32))
        with torch.inference_mode():
            return mirror(waves, torch.from_numpy(groups_of(mirror, clips))).double().numpy()

    return scores


@pytest.fixture(scope="session")
def run_graph():
    """Return a function that runs a graph, from a file or from bytes."""

    def run(model, waves, groups=None):
        model = model if isinstance(model, bytes) else str(model)
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        feed = {"waveform": np.asarray(waves, dtype=np.float32)}
        if groups is not None:
            feed["group"] = np.asarray(groups, dtype=np.int64)
        return session.run(["anomaly_score"], feed)[0]

    return run
