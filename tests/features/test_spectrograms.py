"""STFT and LogMel against librosa."""

import itertools
import subprocess
import sys

import librosa
import numpy as np
import pytest
import scipy.signal
import torch
import xarray as xr
from sklearn.base import clone

from sk_asd.features import STFT, LogMel

SR = 16000


@pytest.fixture(scope="module")
def waves():
    """Coloured noise with tones and a click: spectra with a wide range."""
    rng = np.random.default_rng(0)
    noise = scipy.signal.lfilter([1.0], [1.0, -0.95], rng.normal(size=(3, 9001))) * 0.02
    time = np.arange(9001) / SR
    noise += 0.1 * np.sin(2 * np.pi * np.array([[300.0], [1234.5], [6000.0]]) * time)
    noise[:, 4000] += 0.7
    return noise.astype(np.float32)


def stft_of_librosa(wave, power=1.0, **params):
    return np.abs(librosa.stft(wave, **params)) ** power


def logmel_of_librosa(wave, amin=1e-10, top_db=80.0, **params):
    mel = librosa.feature.melspectrogram(y=wave, sr=SR, **params)
    return librosa.power_to_db(mel, amin=amin, top_db=top_db)


def assert_equal_to(expected, found):
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    # 1e-4 relative; far below the largest value float32 spectra hold rounding errors alone.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


FRAMINGS = [
    {},
    {"n_fft": 512, "hop_length": 100},
    {"n_fft": 1024, "hop_length": 300, "win_length": 700},
    {"n_fft": 1000, "hop_length": 333, "win_length": 501, "center": False},
    {"n_fft": 255, "hop_length": 64},
    {"n_fft": 1024, "hop_length": 1500},
    {"n_fft": 512, "hop_length": 128, "window": "hamming"},
    {"n_fft": 512, "hop_length": 128, "window": ("kaiser", 8.0)},
    {"n_fft": 512, "hop_length": 128, "window": 4.0},
    {"n_fft": 512, "hop_length": 128, "win_length": 400, "window": np.blackman(400)},
    {"n_fft": 512, "hop_length": 128, "window": scipy.signal.windows.boxcar},
]


@pytest.mark.parametrize(
    ("framing", "power"), [*itertools.product(FRAMINGS, [1.0]), (FRAMINGS[1], 2.0), ({}, 0.5)]
)
def test_stft_equals_librosa(waves, framing, power):
    found = STFT(power=power, **framing).fit_transform(waves)
    expected = np.stack([stft_of_librosa(wave, power=power, **framing) for wave in waves])
    assert_equal_to(expected, found)


MELS = [
    {},
    {"top_db": None},
    {"n_mels": 64, "htk": True},
    {"n_mels": 40, "norm": None},
    {"n_mels": 40, "norm": 2.0},
    {"n_mels": 33, "fmin": 50.0, "fmax": 6500.0},
    {"n_mels": 64, "power": 1.0},
    {"n_mels": 64, "power": 1.5, "htk": True, "norm": None},
    {"n_mels": 64, "top_db": None, "amin": 1e-5},
    {"n_mels": 64, "top_db": 20.0},
    {"n_mels": 1},
]


@pytest.mark.parametrize(
    ("framing", "mel"),
    [*itertools.product([{}, FRAMINGS[2]], MELS), *((framing, {}) for framing in FRAMINGS[3:7])],
)
@pytest.mark.filterwarnings("ignore:Empty filters detected")
def test_logmel_equals_librosa(waves, framing, mel):
    found = LogMel(**framing, **mel).fit_transform(waves)
    expected = np.stack([logmel_of_librosa(wave, **framing, **mel) for wave in waves])
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    # 1e-4 relative in the power is 4.3e-4 dB.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=4.3e-4)


def test_all_but_the_first_three_go_by_name():
    for extractor in (STFT, LogMel):
        found = extractor(8000, 512, 128)
        assert (found.sr, found.n_fft, found.hop_length) == (8000, 512, 128)
        with pytest.raises(TypeError, match="takes from 1 to 4 positional arguments but 5 were"):
            extractor(8000, 512, 128, 512)


@pytest.mark.filterwarnings("ignore:Empty filters detected")
def test_empty_filters_are_silent(waves):
    found = LogMel(n_fft=64, hop_length=32, n_mels=128, top_db=None).fit(waves)
    empty = ~found.mel_basis_.any(axis=1)
    assert empty.any()
    np.testing.assert_array_equal(found.transform(waves)[:, empty], -100.0)


def test_real_recordings_equal_librosa(real_data):
    import pandas as pd

    paths = sorted((real_data / "dcase_real" / "dev_data").glob("*/test/*.flac"))[::150]
    clips = pd.DataFrame({"path": [str(path) for path in paths]})
    found, magnitudes = LogMel().fit_transform(clips), STFT().fit_transform(clips)
    assert len(paths) >= 2
    for path, logmel, magnitude in zip(paths, found.values, magnitudes.values):
        wave, _ = librosa.load(path, sr=SR)
        np.testing.assert_allclose(logmel, logmel_of_librosa(wave), rtol=1e-4, atol=4.3e-4)
        assert_equal_to(stft_of_librosa(wave), magnitude)


def test_top_db_is_a_matter_of_each_clip(waves):
    pair = np.stack([waves[0], waves[0] * 1e-3])
    loud, quiet = LogMel().fit_transform(pair)
    np.testing.assert_allclose(quiet, loud - 60.0, atol=0.01)


def test_silence(waves):
    assert (LogMel().fit_transform(np.zeros_like(waves)) == -100.0).all()
    assert (STFT().fit_transform(np.zeros_like(waves)) == 0.0).all()


def test_band_of_stft(waves):
    whole, band = STFT(n_fft=512), STFT(n_fft=512, fmin=1000.0, fmax=2000.0)
    expected = whole.fit_transform(waves)[:, 32:65]
    np.testing.assert_array_equal(band.fit_transform(waves), expected)
    np.testing.assert_allclose(band.frequencies_, np.arange(32, 65) * 31.25)


def test_a_tone_is_found_at_its_frequency_and_a_click_at_its_time():
    import pandas as pd

    time = np.arange(SR) / SR
    tone = (0.5 * np.sin(2 * np.pi * 3000.0 * time)).astype(np.float32)
    click = np.zeros(SR, np.float32)
    click[8192] = 1.0
    clips = pd.DataFrame({"audio": [tone, click], "sr": SR, "section": ["00", "01"]})
    for extractor, name in ((STFT(), "frequency"), (LogMel(), "mel"), (STFT(center=False), None)):
        features = extractor.fit_transform(clips)
        assert isinstance(features, xr.DataArray)
        name = name or "frequency"
        assert features.dims == ("clip", name, "frame")
        assert features.section.values.tolist() == ["00", "01"]
        pitch = float(features[0].mean("frame").idxmax(name))
        assert pitch == pytest.approx(3000.0, rel=0.02)
        middle = float(features[1].mean(name).idxmax("frame"))
        assert middle == pytest.approx(8192 / SR, abs=1e-9)


def test_frames_of_last_tile():
    # More frames than are transformed at once, and not a multiple of them.
    wave = np.random.default_rng(0).normal(size=(1, 40_000)).astype(np.float32)
    params = {"n_fft": 1024, "hop_length": 40}
    found = STFT(**params).fit_transform(wave)
    assert found.shape[2] == 1001
    assert_equal_to(stft_of_librosa(wave[0], **params)[np.newaxis], found)


@pytest.mark.parametrize("extractor", [STFT(), LogMel(n_mels=64), LogMel(power=1.0)])
def test_result_of_a_clip_is_independent_of_the_others(extractor):
    waves = np.random.default_rng(0).normal(size=(50, 16_000)).astype(np.float32)
    expected = clone(extractor).set_params(n_jobs=1).fit_transform(waves)
    for n_jobs in (2, 3, None):
        found = clone(extractor).set_params(n_jobs=n_jobs).fit_transform(waves)
        np.testing.assert_array_equal(found, expected)
    extractor.fit(waves)
    order = np.random.default_rng(1).permutation(50)
    np.testing.assert_array_equal(extractor.transform(waves[order]), expected[order])
    for rows in (slice(7, 8), slice(3, 21), [49, 0]):
        np.testing.assert_array_equal(extractor.transform(waves[rows]), expected[rows])
    # Neither the layout in memory nor torch's threads matter.
    np.testing.assert_array_equal(extractor.transform(np.asfortranarray(waves)), expected)
    np.testing.assert_array_equal(extractor.transform(waves.astype(np.float64)), expected)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        np.testing.assert_array_equal(extractor.transform(waves), expected)
    finally:
        torch.set_num_threads(threads)


def test_global_settings_of_torch_are_left_alone(waves):
    from concurrent.futures import ThreadPoolExecutor

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        torch.set_default_dtype(torch.float64)
        found = LogMel(n_jobs=2).fit_transform(waves)
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:  # a thread that starts afterwards
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(found, LogMel().fit_transform(waves))


def test_a_loaded_extractor_needs_no_librosa(waves, tmp_path):
    import joblib

    extractor = LogMel(n_mels=64).fit(waves)
    joblib.dump(extractor, tmp_path / "logmel.joblib")
    np.save(tmp_path / "waves.npy", waves)
    code = (
        "import sys, joblib, numpy as np\n"
        "features = joblib.load(sys.argv[1]).transform(np.load(sys.argv[2]))\n"
        "np.save(sys.argv[3], features)\n"
        "assert 'librosa' not in sys.modules\n"
    )
    files = [tmp_path / name for name in ("logmel.joblib", "waves.npy", "features.npy")]
    subprocess.run([sys.executable, "-c", code, *files], check=True)
    np.testing.assert_array_equal(np.load(files[2]), extractor.transform(waves))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_fft": 0}, "'n_fft' parameter"),
        ({"hop_length": 0}, "'hop_length' parameter"),
        ({"power": 0.0}, "'power' parameter"),
        ({"on_length": "stretch"}, "'on_length' parameter"),
        ({"win_length": 513}, "win_length=513 is more than n_fft=512"),
        ({"fmin": 9000.0}, "fmin < fmax <= sr / 2 = 8000 Hz"),
        ({"fmin": 3000.0, "fmax": 2000.0}, "found fmin=3000.0 and fmax=2000.0"),
        ({"fmax": 8001.0}, "fmax=8001.0"),
        ({"fmin": 1001.0, "fmax": 1002.0}, "No bin lies between fmin=1001.0"),
        ({"window": np.ones(100)}, r"window has shape \(100,\), expected win_length=512"),
        ({"window": "no such window"}, "no such window"),
        ({"n_jobs": 0}, "n_jobs == 0"),
    ],
)
def test_wrong_parameters(waves, params, message):
    with pytest.raises(ValueError, match=message):
        STFT(**{"n_fft": 512, **params}).fit(waves).transform(waves)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_mels": 0}, "'n_mels' parameter"),
        ({"amin": 0.0}, "'amin' parameter"),
        ({"top_db": -1.0}, "'top_db' parameter"),
        ({"norm": "l2"}, "'norm' parameter"),
    ],
)
def test_wrong_parameters_of_logmel(waves, params, message):
    with pytest.raises(ValueError, match=message):
        LogMel(**params).fit(waves)
