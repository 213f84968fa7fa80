"""A recording of three hours, a table of a hundred thousand clips, eight threads."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import xarray as xr
from sklearn.base import clone

from sk_asd.datasets import make_machine_sounds
from sk_asd.detectors import IMDNDetector, KNNDetector, MahalanobisDetector
from sk_asd.embedders import SectionEmbedder
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
from sk_asd.features import LogMel, TimePooling
from sk_asd.metrics import dcase_scores
from sk_asd.model_selection import NormalTrainSplit
from sk_asd.systems import make_pooling
from sk_asd.utils._containers import check_clip_table

SR = 8000
N_SAMPLES = 3 * 3600 * SR
N_CLIPS = 100_000


@pytest.fixture(scope="module")
def three_hours(tmp_path_factory):
    """A file of noise, written block by block."""
    path = tmp_path_factory.mktemp("long") / "three_hours.flac"
    block = 0.05 * np.random.default_rng(0).normal(size=60 * SR)
    with sf.SoundFile(path, "w", SR, 1, "PCM_16") as file:
        for i in range(N_SAMPLES // len(block)):
            file.write(np.roll(block, i) * (1 + i % 7))
    return path


@pytest.mark.parametrize(
    ("step", "result", "n_copies"),
    # Checked piece by piece; pooled from features of the waveform and its padded copy.
    [("check", [], 0.5), ("pool", [1, 128, True], 3)],
)
def test_three_hours_in_bounded_memory(three_hours, step, result, n_copies):
    measure = Path(__file__).with_name("measure.py")
    command = [sys.executable, measure, step, three_hours]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=600).stdout)
    assert found["result"] == result
    print(f"{step}: {found['bytes'] / 2**20:.0f} MB for {4 * N_SAMPLES / 2**20:.0f} MB of samples")
    assert found["bytes"] < n_copies * 4 * N_SAMPLES


@pytest.fixture
def table(rng):
    """100,000 clips of 70 machines with 6 sections; no file of them exists."""
    clips = pd.DataFrame(
        {
            "machine": rng.choice([f"m{i:02d}" for i in range(70)], N_CLIPS).astype(object),
            "section": rng.choice([f"{i:02d}" for i in range(6)], N_CLIPS).astype(object),
            "domain": rng.choice(["source", "target"], N_CLIPS).astype(object),
            "split": rng.choice(["train", "test"], N_CLIPS).astype(object),
            "label": rng.choice(["normal", "anomaly"], N_CLIPS).astype(object),
            "vel": rng.integers(0, 9, N_CLIPS),
        }
    )
    clips.loc[clips["split"] == "train", "label"] = "normal"
    paths = clips["machine"] + "/" + clips["split"] + "/" + clips.index.astype(str) + ".wav"
    clips.insert(0, "path", paths.astype(object))
    return clips


def test_a_hundred_thousand_clips(table, rng):
    """The whole table at once; it takes seconds."""
    assert check_clip_table(table) is table
    ((train, test),) = NormalTrainSplit().split(table)
    assert len(train) + len(test) == N_CLIPS

    values = rng.normal(size=(N_CLIPS, 4)).astype(np.float32)
    values[(table["label"] == "anomaly").to_numpy()] += 3
    coords = {c: ("clip", table[c].to_numpy(dtype=object)) for c in ("machine", "section")}
    X = xr.DataArray(values, dims=("clip", "feature"), coords=coords)
    detector = GroupedDetector(MahalanobisDetector(), by=["machine", "section"]).fit(X[train])
    assert len(detector.detectors_) == 420
    scores = np.full(N_CLIPS, np.nan)
    scores[test] = detector.score_samples(X[test])

    metrics = dcase_scores(table, scores)
    assert len(metrics) == 420 + 70 + 1
    assert metrics["hmean"].iloc[-1] > 0.95


@pytest.fixture(scope="module")
def clips():
    sounds = {"n_train": 8, "n_test": 8, "duration": 1.0, "random_state": 0}
    return make_machine_sounds(("fan", "valve"), sections=2, **sounds)


def system_of(middle, detector):
    """Log-mel spectrograms, what comes after them, a detector for every machine and section."""
    feature = LogMel(n_fft=512, hop_length=512, n_mels=32)
    return make_pooling(feature=feature, detector=detector).set_params(pooling=middle)


POOLING = system_of(TimePooling(), MahalanobisDetector())
NETWORK = system_of(
    SectionEmbedder(target="machine", n_frames=16, max_epochs=1, random_state=0), KNNDetector()
)
DENSITY = system_of("passthrough", IMDNDetector(n_frames=16, max_epochs=1, random_state=0))
ENSEMBLE = ScoreEnsemble(
    [("pooling", POOLING), ("network", NETWORK)], by=["machine", "section"], n_jobs=2
)


@pytest.mark.parametrize(
    "system", [POOLING, NETWORK, DENSITY, ENSEMBLE], ids=["pooling", "network", "density", "all"]
)
def test_eight_threads_score_as_one(system, clips):
    train, test = clips[clips["split"] == "train"], clips[clips["split"] == "test"]
    fitted = clone(system).fit(train)
    # Other clips every time, in another order.
    parts = [test.sample(4 + i, random_state=i) for i in range(24)]
    expected = [fitted.score_samples(part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(fitted.score_samples, parts))
    for one, eight in zip(expected, found):
        np.testing.assert_array_equal(eight, one)
