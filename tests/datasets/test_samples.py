"""Samples of any type: the same at every door, or refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from scipy.io import wavfile
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from sk_asd.datasets import check_clips
from sk_asd.datasets._samples import LARGEST, as_samples, check_range
from sk_asd.detectors import MahalanobisDetector
from sk_asd.embedders import Wav2VecPretrainer
from sk_asd.features import STFT, LogMel, TimePooling, Wav2Vec
from sk_asd.watching import StreamingScorer

SR = 4000
TINY = Path(__file__).parents[1] / "features" / "tiny_wav2vec.safetensors"


@pytest.fixture(scope="module")
def sounds():
    return np.random.default_rng(0).normal(size=(24, SR)) * 0.05


@pytest.fixture(scope="module")
def model(sounds):
    """Fitted to float samples."""
    table = pd.DataFrame({"audio": list(sounds[:16]), "sr": SR})
    front = LogMel(sr=SR, n_fft=256, n_mels=16, n_jobs=1)
    return make_pipeline(front, TimePooling(), MahalanobisDetector()).fit(table)


@pytest.mark.parametrize(
    ("subtype", "dtype"),
    [
        ("PCM_U8", np.uint8),
        ("PCM_16", np.int16),
        ("PCM_24", np.int32),
        ("PCM_32", np.int32),
        ("FLOAT", np.float32),
        ("DOUBLE", np.float64),
    ],
)
def test_files_tables_matrices_and_streams_agree(sounds, model, tmp_path, subtype, dtype):
    """Integers as SciPy reads them; in streams they are windows."""
    paths = [str(tmp_path / f"{i}.wav") for i in range(8)]
    for path, sound in zip(paths, sounds[16:]):
        sf.write(path, sound, SR, subtype)
    waves = [wavfile.read(path)[1] for path in paths]
    assert waves[0].dtype == dtype
    files = pd.DataFrame({"path": paths, "sr": SR})
    expected = model.score_samples(files)
    for X in (
        pd.DataFrame({"audio": waves, "sr": SR}),
        np.stack(waves),
        np.stack(waves).astype(np.dtype(dtype).newbyteorder(">")),
        pd.DataFrame(np.stack(waves)),
    ):
        np.testing.assert_array_equal(model.score_samples(X), expected)
    scorer = StreamingScorer(model, 1.0, sr=SR)
    events = [e for wave in waves for e in scorer.feed(wave)] + scorer.finish()
    assert {e.type for e in events} == {"score"}
    alone = [model.score_samples(files[i : i + 1])[0] for i in range(8)]
    assert [e.score for e in events] == alone
    # And what is too quiet is so at every door.
    steps = np.iinfo(dtype).max if np.dtype(dtype).kind == "i" else 1
    quiet = [(wave // steps if steps > 1 else wave * 0) for wave in waves[:1]]
    found = check_clips(pd.DataFrame({"audio": quiet, "sr": SR}))["problem"].tolist()
    assert found == ["silent"]


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_values_are_those_of_soundfile(tmp_path, subtype):
    y = np.random.default_rng(0).uniform(-1, 1, 5000)
    y[:2] = -1, 1
    sf.write(tmp_path / "a.flac", y, SR, subtype)
    expected, _ = sf.read(tmp_path / "a.flac", dtype="float32")
    for dtype in ("int16", "int32"):
        if subtype == "PCM_24" and dtype == "int16":
            continue
        values, _ = sf.read(tmp_path / "a.flac", dtype=dtype)
        np.testing.assert_array_equal(as_samples(values, "a"), expected)
    if subtype == "PCM_S8":
        int8 = (sf.read(tmp_path / "a.flac", dtype="int16")[0] >> 8).astype(np.int8)
        np.testing.assert_array_equal(as_samples(int8, "a"), expected)


def test_known_values():
    for values, expected in (
        (np.array([-32768, 0, 16384], np.int16), [-1, 0, 0.5]),
        (np.array([-128, 64], np.int8), [-1, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1, 0, 0.5]),
        (np.array([-(2**31), 2**30, 1], ">i4"), [-1, 0.5, 2.0**-31]),
        ([0.25, 3.0, np.nan], [0.25, 3.0, np.nan]),
        (np.array([0.5, 1.5], object), [0.5, 1.5]),
        (np.array([np.int16(16384)], object), [0.5]),
        (np.float16([0.5]), [0.5]),
        (np.array([1e300, -1e300]), [np.inf, -np.inf]),
    ):
        samples = as_samples(values, "a")
        assert samples.dtype == np.float32
        np.testing.assert_array_equal(samples, expected)


REFUSED = {
    "int64": np.zeros(SR, np.int64),
    "uint16": np.zeros(SR, np.uint16),
    "uint32": np.zeros(SR, np.uint32),
    "uint64": np.zeros(SR, np.uint64),
    "bool": np.zeros(SR, bool),
    "complex": np.zeros(SR, complex),
    "text": np.full(SR, "1.0"),
    "integers without a type": np.zeros(SR, object),
    "dates": np.zeros(SR, "M8[s]"),
    "None": np.full(SR, None),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_types_are_refused_at_every_door(model, sounds, kind):
    wave = REFUSED[kind]
    table = pd.DataFrame({"audio": [*sounds[:2], wave], "sr": SR})
    with pytest.raises(TypeError, match="Row 2, column 'audio': "):
        model.score_samples(table)
    with pytest.raises((TypeError, ValueError), match=r"X: |[Cc]omplex|str|NaN"):
        model.score_samples(np.stack([wave, wave]))
    with pytest.raises(TypeError, match="The chunk: "):
        StreamingScorer(model, 1.0, sr=SR).feed(wave)
    found = check_clips(table)
    assert found[["path", "problem"]].values.tolist() == [["clip 2", "unreadable"]]


def test_columns_of_integers(model, sounds):
    """Of the types of pandas, too; with floats among them nothing says what they are."""
    int16 = np.round(sounds[16:] * 32768).astype(np.int16)
    expected = model.score_samples(int16)
    frame = pd.DataFrame(int16)
    np.testing.assert_array_equal(model.score_samples(frame.astype("Int16")), expected)
    with pytest.raises(TypeError, match="found int64"):
        model.score_samples(frame.astype("Int64"))
    with pytest.raises(TypeError, match="samples of one type, found columns of float64, int16"):
        model.score_samples(frame.astype({0: float}))


@pytest.mark.parametrize("extractor", [Wav2Vec(str(TINY)), STFT(n_fft=64)])
def test_all_extractors_hear_the_same(sounds, extractor, tmp_path):
    int16 = np.round(sounds * 32768).astype(np.int16)
    expected = extractor.fit_transform(int16 / 32768)
    np.testing.assert_array_equal(extractor.fit(int16).transform(int16), expected)
    assert extractor.peak_ == np.abs(int16[np.linspace(0, 23, 16).astype(int)] / 32768).max()
    # What is in the cache counts for both.
    cached = clone(extractor).set_params(cache_dir=tmp_path)
    for X in (int16, int16 / 32768, list(int16)):
        np.testing.assert_array_equal(cached.fit(int16).transform(X), expected)
    assert len(list(tmp_path.iterdir())) == 1


def test_pretraining_hears_the_same(sounds):
    """Whatever of a clip it draws."""
    int16 = np.round(sounds * 32768).astype(np.int16)
    size = {"channels": 4, "encoder": [(1, 1)], "aggregator": [2], "n_steps": 1}
    params = {"max_updates": 2, "sr": SR, "random_state": 0}
    params |= {f"module__{name}": value for name, value in size.items()}
    found = [
        Wav2VecPretrainer(**params).fit(pd.DataFrame({"audio": list(X), "sr": SR}))
        for X in (int16, int16 / 32768)
    ]
    for one, other in zip(*(p.net_.module_.state_dict().values() for p in found)):
        np.testing.assert_array_equal(one, other)
    table = pd.DataFrame({"audio": [*sounds[:3], 1e20 * sounds[3]], "sr": SR})
    with pytest.raises(ValueError, match="Row 3, column 'audio': .* beyond 1e\\+10"):
        Wav2VecPretrainer(**{**params, "max_updates": 20}).fit(table)


def test_range():
    check_range(np.float32([-LARGEST, 0, LARGEST]), "a")
    check_range(np.float32([]), "a")
    for value in (np.nan, np.inf, -np.inf, 1.01e10, -1e38):
        with pytest.raises(ValueError, match="a: the clip contains NaN, infinity or"):
            check_range(np.float32([0, value, 1]), "a")
