"""Where extractors take waveforms from, and what they say to those that do not fit."""

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import soxr
import xarray as xr

from sk_asd.datasets._audio import write_audio
from sk_asd.features import STFT, LogMel

SR = 16000
SMALL = {"n_fft": 256, "hop_length": 128}


@pytest.fixture(scope="module")
def waves():
    return np.random.default_rng(0).uniform(-0.5, 0.5, size=(40, 2000)).astype(np.float32)


@pytest.fixture(scope="module")
def clips(waves, tmp_path_factory):
    """Clip table of files that hold `waves` exactly."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"section_00_{i:04d}.wav" for i in range(len(waves))]
    for path, wave in zip(paths, waves):
        write_audio(path, wave, SR, subtype="FLOAT")
    return pd.DataFrame(
        {
            "path": [str(path) for path in paths],
            "machine": "fan",
            "section": [f"{i % 2:02d}" for i in range(len(waves))],
            "domain": ["source", None] * 20,
            "vel": np.where(np.arange(40) % 3, 8.0, np.nan),
        },
        index=np.arange(40)[::-1],
    )


def with_path(clips, row, path):
    changed = clips.copy()
    changed.iloc[row, 0] = str(path)
    return changed


@pytest.mark.parametrize("extractor", [STFT(**SMALL), LogMel(n_mels=16, **SMALL)])
def test_files_audio_and_arrays_agree(extractor, waves, clips):
    expected = extractor.fit_transform(waves)
    assert type(expected) is np.ndarray
    from_files = extractor.fit_transform(clips)
    assert extractor.n_samples_ == extractor.n_features_in_ == 2000
    audio = clips.drop(columns="path").assign(audio=list(waves), sr=SR)
    from_audio = extractor.fit(audio).transform(audio)
    for labelled in (from_files, from_audio):
        assert isinstance(labelled, xr.DataArray)
        np.testing.assert_array_equal(labelled.values, expected)
        assert labelled.section.values.tolist() == clips["section"].tolist()
        assert labelled.domain.values.tolist() == clips["domain"].tolist()
        np.testing.assert_array_equal(labelled.vel.values, clips["vel"].to_numpy())
    assert from_files.path.values.tolist() == clips["path"].tolist()
    assert "audio" not in from_audio.coords
    np.testing.assert_array_equal(extractor.transform(waves), expected)


def test_labelled_waveforms_keep_their_labels(waves):
    X = xr.DataArray(waves, dims=("clip", "sample"), coords={"section": ("clip", ["00"] * 40)})
    features = STFT(**SMALL).fit_transform(X)
    assert features.dims == ("clip", "frequency", "frame")
    assert features.section.values.tolist() == ["00"] * 40


def test_audio_goes_before_path_and_may_lack_a_rate(waves, clips):
    expected = STFT(**SMALL).fit_transform(waves)
    for sr in ([None] * 40, [np.nan, SR] * 20):
        table = clips.assign(audio=list(waves), path="nowhere.wav", sr=sr)
        np.testing.assert_array_equal(STFT(**SMALL).fit_transform(table).values, expected)


def test_channels(tmp_path, waves):
    write_audio(tmp_path / "two.wav", waves[:2].T, SR, subtype="FLOAT")
    table = pd.DataFrame({"path": [str(tmp_path / "two.wav")]})
    for channel in (0, 1):
        found = STFT(channel=channel, **SMALL).fit_transform(table)
        expected = STFT(**SMALL).fit_transform(waves[channel : channel + 1])
        np.testing.assert_array_equal(found.values, expected)
    with pytest.raises(ValueError, match=r"two\.wav has 2 channel\(s\); there is no channel 2"):
        STFT(channel=2, **SMALL).fit_transform(table)


def lengths(waves):
    return pd.DataFrame({"audio": [waves[0], waves[1][:1500], np.r_[waves[2], waves[3]]]})


def test_pad_crop_tile(waves):
    table = lengths(waves)
    longer = table.iloc[[0, 2]]
    expected = {
        "pad": [waves[0], np.r_[waves[1][:1500], np.zeros(500, np.float32)], waves[2]],
        "tile": [waves[0], np.r_[waves[1][:1500], waves[1][:500]], waves[2]],
    }
    for on_length, same in expected.items():
        found = STFT(on_length=on_length, **SMALL).fit_transform(table)
        np.testing.assert_array_equal(found.values, STFT(**SMALL).fit_transform(np.stack(same)))
    found = STFT(on_length="crop", **SMALL).fit_transform(longer)
    np.testing.assert_array_equal(
        found.values, STFT(**SMALL).fit_transform(np.stack([waves[0], waves[2]]))
    )
    with pytest.raises(ValueError, match=r"Row 1, column 'audio': the clip has 1500 samples"):
        STFT(on_length="crop", **SMALL).fit_transform(table)
    with pytest.raises(ValueError, match=r"Row 1, .*1500 samples .*expected 2000"):
        STFT(**SMALL).fit_transform(table)


def test_duration_goes_before_the_first_clip(waves):
    extractor = STFT(duration=0.05, on_length="crop", **SMALL).fit(lengths(waves))
    assert extractor.n_samples_ == 800
    expected = STFT(**SMALL).fit_transform(waves[:, :800])
    np.testing.assert_array_equal(extractor.transform(waves), expected)
    with pytest.raises(ValueError, match=r"2000 samples \(0.125 s at 16000 Hz\), expected 800"):
        STFT(duration=0.05, **SMALL).fit_transform(waves)
    three_seconds = STFT(duration=3.0, on_length="tile", **SMALL).fit_transform(waves[:1])
    assert three_seconds.shape == (1, 129, 1 + 48000 // 128)


def test_arrays_of_another_length(waves):
    strict = STFT(**SMALL).fit(waves)
    with pytest.raises(ValueError, match="X has 1999 features, but STFT is expecting 2000"):
        strict.transform(waves[:, :-1])
    padding = STFT(on_length="pad", **SMALL).fit(waves)
    padded = np.pad(waves[:, :1500], ((0, 0), (0, 500)))
    np.testing.assert_array_equal(padding.transform(waves[:, :1500]), strict.transform(padded))


def test_rates(waves, tmp_path):
    long = np.random.default_rng(0).uniform(-0.5, 0.5, 48000).astype(np.float32)
    write_audio(tmp_path / "a.wav", long, 48000, subtype="FLOAT")
    files = pd.DataFrame({"path": [str(tmp_path / "a.wav")]})
    audio = pd.DataFrame({"audio": [long], "sr": 48000})
    expected = STFT().fit_transform(soxr.resample(long, 48000, SR)[np.newaxis])
    for table in (files, audio):
        extractor = STFT(on_rate="resample").fit(table)
        assert extractor.n_samples_ == 16000
        np.testing.assert_array_equal(extractor.transform(table).values, expected)
    with pytest.raises(ValueError, match=r"a\.wav: sample rate 48000 Hz, expected sr=16000 Hz"):
        STFT().fit(files)
    with pytest.raises(ValueError, match=r"column 'audio': sample rate 48000 Hz"):
        STFT(duration=1.0).fit_transform(audio)
    with pytest.raises(ValueError, match="sample rate 0 Hz, expected a positive number"):
        STFT(on_rate="resample").fit(audio.assign(sr=0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(waves, clips, tmp_path, value):
    bad = waves.copy()
    bad[33, 7] = value
    extractor = LogMel(n_mels=16, **SMALL)
    with pytest.raises(ValueError, match="NaN|infinity"):
        extractor.fit(bad)
    with pytest.raises(ValueError, match="Row 33: the clip contains NaN, infinity"):
        extractor.fit(waves).transform(bad)
    write_audio(tmp_path / "bad.wav", bad[33], SR, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"bad\.wav: the clip contains NaN, infinity"):
        extractor.fit_transform(with_path(clips, 20, tmp_path / "bad.wav"))


@pytest.mark.parametrize("value", [1e300, -1e20, 1e30, 1.1e10])
def test_absurd_samples_are_named(waves, clips, tmp_path, value):
    """They are finite, but their features would not be."""
    bad = waves[:20].astype(np.float64)
    bad[7, 3] = value
    extractor = STFT(**SMALL)
    with pytest.raises(ValueError, match="Row 7: .* beyond 1e\\+10, too large for a sample"):
        extractor.fit_transform(bad)
    with pytest.raises(ValueError, match="Row 7, column 'audio': .* beyond 1e\\+10"):
        extractor.fit_transform(pd.DataFrame({"audio": list(bad)}))
    write_audio(tmp_path / "bad.wav", bad[7], SR, subtype="DOUBLE")
    with pytest.raises(ValueError, match=r"bad\.wav: .* beyond 1e\+10"):
        extractor.fit_transform(with_path(clips, 20, tmp_path / "bad.wav"))
    # Before it is resampled, too.
    table = pd.DataFrame({"audio": list(bad), "sr": 8000})
    with pytest.raises(ValueError, match="Row 7, column 'audio': .* beyond 1e\\+10"):
        STFT(on_rate="resample", **SMALL).fit_transform(table)


def test_any_unit_is_taken(waves):
    expected = STFT(**SMALL).fit_transform(waves)
    for unit in (2.0**-40, 2.0**-15, 2.0**4, 2.0**31):  # counts of a 32-bit converter, say
        found = STFT(**SMALL).fit_transform(unit * waves.astype(np.float64))
        np.testing.assert_array_equal(found, unit * expected)


def test_broken_files(clips, tmp_path):
    extractor = STFT(**SMALL)
    for row in (0, 25):
        with pytest.raises(FileNotFoundError, match=r"No such sound file: .*gone\.wav"):
            extractor.fit_transform(with_path(clips, row, tmp_path / "gone.wav"))
        (tmp_path / "text.wav").write_text("this is no sound")
        with pytest.raises(ValueError, match=r"text\.wav"):
            extractor.fit_transform(with_path(clips, row, tmp_path / "text.wav"))
    write_audio(tmp_path / "short.wav", np.zeros(1999), SR)
    with pytest.raises(ValueError, match=r"short\.wav: the clip has 1999 samples"):
        extractor.fit_transform(with_path(clips, 25, tmp_path / "short.wav"))
    content = (tmp_path / "short.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(content[:-100])  # that it is short is only what follows
    with pytest.raises(ValueError, match=r"cut\.wav is truncated: .* 50 more samples"):
        extractor.fit_transform(with_path(clips, 25, tmp_path / "cut.wav"))
    sf.write(tmp_path / "empty.wav", np.zeros(0), SR)
    for row in (0, 25):
        with pytest.raises(ValueError, match=r"empty\.wav: the clip has no samples"):
            extractor.fit_transform(with_path(clips, row, tmp_path / "empty.wav"))


def test_a_clip_shorter_than_a_frame(clips):
    with pytest.raises(ValueError, match=r"0000\.wav: the clip has 2000 samples, shorter than one"):
        STFT(center=False).fit(clips)
    with pytest.raises(ValueError, match=r"duration=0\.1 s are 1600 samples, shorter than one"):
        STFT(center=False, duration=0.1).fit(clips)
    assert STFT(center=False, n_fft=2000).fit_transform(clips).shape == (40, 1001, 1)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("path", None, "Row 2, column 'path': expected a file name, found"),
        ("audio", np.zeros((2, 3)), r"Row 2, column 'audio': .* found shape \(2, 3\)"),
        ("audio", None, "Row 2, column 'audio': expected a 1-D array"),
        ("audio", [[1.0], [1.0, 2.0]], "Row 2, column 'audio': expected a 1-D array"),
        ("audio", np.zeros(0), "Row 2, column 'audio': the clip has no samples"),
    ],
)
def test_cells_without_sound(clips, waves, column, value, message):
    sound = clips["path"].tolist() if column == "path" else list(waves)
    sound[2] = value
    with pytest.raises(ValueError, match=message):
        STFT(**SMALL).fit_transform(pd.DataFrame({column: pd.Series(sound, dtype=object)}))


def test_tables_without_sound(waves, clips):
    with pytest.raises(ValueError, match="needs a column 'path' or 'audio'; found columns"):
        STFT().fit(clips.drop(columns="path"))
    with pytest.raises(ValueError, match="no rows"):
        STFT().fit(clips.iloc[:0])
    numbers = pd.DataFrame(waves, columns=[f"t{i}" for i in range(2000)])
    extractor = STFT(**SMALL).fit(numbers)
    np.testing.assert_array_equal(extractor.transform(numbers), extractor.fit_transform(waves))
    extractor = STFT(**SMALL).fit(numbers).fit(clips)
    assert not hasattr(extractor, "feature_names_in_")


def test_path_objects_are_paths(clips):
    from pathlib import Path

    table = clips.assign(path=[Path(p) for p in clips["path"]])
    expected = STFT(**SMALL).fit_transform(clips).values
    np.testing.assert_array_equal(STFT(**SMALL).fit_transform(table).values, expected)


@pytest.mark.parametrize("on_length", ["crop", "pad", "tile"])
@pytest.mark.parametrize("sr", [4000, 8000, 44100, 48000, 192000])
def test_no_more_is_read_than_is_needed(tmp_path, monkeypatch, sr, on_length):
    """And features are those of the whole clip, bit for bit."""
    long = np.random.default_rng(0).uniform(-0.5, 0.5, 20 * sr).astype(np.float32)
    write_audio(tmp_path / "a.wav", long, sr, subtype="FLOAT")
    whole = soxr.resample(long, sr, SR)[: SR // 2]
    expected = STFT(**SMALL).fit_transform(whole[np.newaxis])
    lengths = []
    resample = soxr.resample
    monkeypatch.setattr(
        soxr, "resample", lambda y, *a, **k: lengths.append(len(y)) or resample(y, *a, **k)
    )
    params = {"duration": 0.5, "on_rate": "resample", "on_length": on_length, **SMALL}
    for table in (
        pd.DataFrame({"path": [str(tmp_path / "a.wav")]}),
        pd.DataFrame({"audio": [long], "sr": sr}),
    ):
        np.testing.assert_array_equal(STFT(**params).fit_transform(table).values, expected)
    assert max(lengths) < sr


def test_absurd_rates(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 32000).astype(np.float32)
    sf.write(tmp_path / "slow.wav", noise, 1)
    table = pd.DataFrame({"path": [str(tmp_path / "slow.wav")]})
    resampling = {"on_rate": "resample", **SMALL}
    cropped = STFT(duration=2.0, on_length="crop", **resampling).fit_transform(table)
    assert cropped.shape == (1, 129, 251)
    with pytest.raises(ValueError, match=r"slow\.wav: at a sample rate of 1 Hz its 32000 samples"):
        STFT(**resampling).fit(table)
    with pytest.raises(ValueError, match=r"slow\.wav: the clip has 512000000 samples"):
        STFT(duration=2.0, **resampling).fit(table).transform(table)
    sf.write(tmp_path / "fast.wav", noise, 2_000_000_000)
    table = pd.DataFrame({"path": [str(tmp_path / "fast.wav")]})
    for on_length, said in (
        ("pad", "the clip has no samples"),
        ("error", "the clip has 0 samples"),
    ):
        with pytest.raises(ValueError, match=rf"fast\.wav: {said}"):
            STFT(duration=2.0, on_length=on_length, **resampling).fit_transform(table)
    for rate in (0, -16000, np.inf):
        audio = pd.DataFrame({"audio": [noise], "sr": rate})
        with pytest.raises(ValueError, match="expected a positive number"):
            STFT(duration=2.0, **resampling).fit_transform(audio)
    with pytest.raises(ValueError, match="Column 'sr': expected sample rates in Hz"):
        STFT(**SMALL).fit(pd.DataFrame({"audio": [noise], "sr": "fast"}))


def test_loudness_of_training(waves, clips):
    """Learnt from 16 clips, the first and the last among them; in any container."""
    loud = waves.copy()
    loud[-1, 100] = 7.0
    heard = loud[np.linspace(0, 39, 16).astype(int), :1600]
    quiet = np.quantile(heard.std(axis=1, dtype=np.float64), 0.05)
    table = pd.DataFrame({"audio": list(loud), "sr": SR})
    for X in (loud, table):
        extractor = STFT(**SMALL).fit(X)
        assert (extractor.peak_, extractor.quiet_) == (7.0, quiet)
    rows = np.linspace(0, 39, 16).astype(int)
    assert STFT(**SMALL).fit(clips).peak_ == np.abs(waves[rows]).max()
    nothing = STFT(**SMALL).fit(np.full((3, 2000), 0.25))
    assert (nothing.peak_, nothing.quiet_) == (0.25, 0.0)
