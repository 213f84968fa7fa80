import joblib
import numpy as np
import pandas as pd
import pytest

from sk_asd.datasets import check_clips, load_clips
from sk_asd.datasets._audio import read_audio, write_audio
from sk_asd.datasets._check import PROBLEMS

SR = 16000


@pytest.fixture
def noise():
    """Return a function that draws normal noise."""

    def draw(seed=0, scale=0.1, n_samples=SR):
        y = scale * np.random.default_rng(seed).standard_normal(n_samples)
        return y.astype(np.float32)

    return draw


@pytest.fixture
def table(tmp_path, noise):
    """Return a function that writes clips and returns their table.

    Each clip is given as an array, or as a dict of its name, samples, rate and metadata.
    """

    def write(*clips):
        rows = []
        for n, clip in enumerate(clips):
            clip = {"y": clip} if isinstance(clip, np.ndarray) else dict(clip)
            path = tmp_path / clip.pop("name", f"{n}.wav")
            write_audio(
                path, clip.pop("y", noise(n)), clip.pop("sr", SR), subtype=clip.pop("as", None)
            )
            row = {"machine": "fan", "split": "train", "label": "normal"}
            rows.append({"path": str(path), **row, **clip})
        return pd.DataFrame(rows)

    return write


def found(clips, **params):
    """Findings as pairs of file name and problem."""
    report = check_clips(clips, **params)
    assert list(report.columns) == ["path", "problem", "detail"]
    assert set(report["problem"]) <= set(PROBLEMS)
    assert (report["detail"].str.len() > 0).all()
    return [(path.rsplit("/")[-1], problem) for path, problem in report[["path", "problem"]].values]


def detail(clips, problem, **params):
    """The detail of the only finding of one kind."""
    report = check_clips(clips, **params)
    (text,) = report.loc[report.problem == problem, "detail"]
    return text


def test_all_is_well(table, noise):
    clips = table(*(noise(n) for n in range(4)))
    report = check_clips(clips)
    assert report.shape == (0, 3)
    assert report.index.equals(pd.RangeIndex(0))


def test_missing_and_unreadable_files_do_not_stop_the_rest(table, noise, tmp_path):
    clips = table(*({"name": f"{n}.flac", "y": noise(n)} for n in range(6)))
    (tmp_path / "0.flac").unlink()
    (tmp_path / "1.flac").write_bytes(b"")
    (tmp_path / "2.flac").write_bytes(b"no sound at all")
    clips.loc[3, "path"] = str(tmp_path)
    content = bytearray((tmp_path / "4.flac").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    (tmp_path / "4.flac").write_bytes(content)
    report = check_clips(clips)
    assert report["problem"].tolist() == ["unreadable"] * 5
    assert report["path"].tolist() == clips["path"].tolist()[:5]
    assert "No such sound file" in report["detail"][0]
    assert "Cannot read" in report["detail"][1]
    assert "found a folder" in report["detail"][3]


def test_path_that_is_none(table, noise):
    clips = table(noise(0), noise(1))
    clips.loc[0, "path"] = None
    assert found(clips) == [("clip 0", "unreadable")]


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_truncated(table, noise, tmp_path, suffix):
    clips = table(*({"name": f"{n}.{suffix}", "y": noise(n)} for n in range(3)))
    content = (tmp_path / f"1.{suffix}").read_bytes()
    (tmp_path / f"1.{suffix}").write_bytes(content[: len(content) // 2])
    assert found(clips) == [(f"1.{suffix}", "truncated")]
    assert "the header promises 16000 samples" in detail(clips, "truncated")


def test_sample_rate(table, noise):
    clips = table(noise(0), {"y": noise(1), "sr": 8000}, noise(2))
    assert found(clips) == [("1.wav", "sample_rate")]
    assert detail(clips, "sample_rate") == "8000 Hz; 2 of 3 clips have 16000 Hz"
    assert found(clips, sr=8000) == [("0.wav", "sample_rate"), ("2.wav", "sample_rate")]
    assert check_clips(clips, sr=8000)["detail"][0] == "16000 Hz; expected 8000 Hz"


def test_channels_and_length_are_compared_within_a_machine(table, noise):
    two = np.stack([noise(7), noise(8)], axis=1)
    clips = table(
        noise(0),
        noise(1),
        {"y": two, "machine": "fan"},
        {"y": noise(3)[:-1]},
        {"y": two[::-1], "machine": "Sander"},
        {"y": 0.5 * two, "machine": "Sander"},
        {"y": noise(4)[:9000], "machine": "pump"},
        {"y": noise(5)[:9000], "machine": "pump"},
    )
    assert found(clips) == [("2.wav", "channels"), ("3.wav", "length")]
    assert detail(clips, "channels") == "2 channels; 3 of 4 clips of 'fan' have 1"
    assert detail(clips, "length") == "15999 samples; 3 of 4 clips of 'fan' have 16000"
    assert ("6.wav", "length") in found(clips.drop(columns="machine"))


def test_empty_clip(table, noise):
    clips = table(noise(0), np.empty(0, np.float32))
    assert found(clips) == [("1.wav", "unreadable")]
    assert detail(clips, "unreadable") == "the clip holds no samples"


def test_nan_and_inf(table, noise):
    bad = noise(1)
    bad[[3, 50]] = np.nan, np.inf
    clips = table(noise(0), {"y": bad, "as": "FLOAT"})
    assert found(clips) == [("1.wav", "nan")]
    assert detail(clips, "nan") == ("2 of 16000 samples are NaN, infinite or beyond 1e+10")


@pytest.mark.parametrize("value", [1e20, 1e30, -1e12])
def test_absurd_samples(table, noise, value):
    loud = noise(1)
    loud[7] = value
    clips = table(noise(0), {"y": loud, "as": "FLOAT"})
    assert found(clips) == [("1.wav", "nan")]
    audio = pd.DataFrame({"audio": [noise(0), loud.astype(np.float64) * 1e200], "sr": SR})
    assert found(audio) == [("clip 1", "nan")]


@pytest.mark.parametrize("unit", [3e-5, 1e-3, 30.0, 1e6])
def test_any_unit_is_sound(table, noise, unit):
    """And a dead line among it is silent all the same."""
    clips = [{"y": noise(n, scale=unit), "as": "FLOAT"} for n in range(5)]
    assert found(table(*clips)) == []
    dead = {"y": noise(5, scale=1e-6 * unit), "as": "FLOAT"}
    assert found(table(*clips, dead)) == [("5.wav", "silent")]


def test_silence_of_integers_is_absolute(table, noise):
    """All microphones of the machine are dead."""
    faint = [(np.round(noise(n) * 10) / 32768).astype(np.float32) for n in range(3)]
    for subtype in ("PCM_16", "FLOAT"):
        clips = table(*({"y": y, "as": subtype} for y in faint))
        assert found(clips) == [(f"{n}.wav", "silent") for n in range(3)]
    int16 = pd.DataFrame({"audio": [(y * 32768).astype(np.int16) for y in faint], "sr": SR})
    assert found(int16) == [(f"clip {n}", "silent") for n in range(3)]


def test_rates_of_cells(noise):
    clips = pd.DataFrame({"audio": [noise(n) for n in range(4)], "sr": [SR, 0, np.inf, np.nan]})
    assert found(clips) == [("clip 1", "unreadable"), ("clip 2", "unreadable")]


def test_cells_without_sound(noise):
    clips = pd.DataFrame({"audio": [noise(0), None, "a.wav", [1, 2, 3]], "sr": SR})
    assert found(clips) == [(f"clip {n}", "unreadable") for n in (1, 2, 3)]


def test_silent(table, noise):
    offset = np.full(SR, 0.25, np.float32)
    clips = table(
        noise(0),
        np.zeros(SR, np.float32),
        offset,
        {"y": noise(3, scale=10 ** (-85 / 20)), "as": "FLOAT"},
        {"y": noise(4, scale=10 ** (-75 / 20)), "as": "FLOAT"},  # faint, but there
    )
    assert found(clips) == [(f"{n}.wav", "silent") for n in (1, 2, 3)]
    report = check_clips(clips)
    assert report["detail"][0] == "all samples are equal"
    assert report["detail"][2].startswith("RMS -85.0 dB")
    assert ("4.wav", "silent") in found(clips, silence_db=-70)


class TestClipped:
    def test_hard_clipping_is_found(self, table, noise):
        """Noise clipped at two standard deviations: 4.6 % of the samples are at the rails."""
        loud = noise(0, scale=0.5)
        clips = table(
            np.clip(loud, -1, 1),
            np.clip(noise(1, scale=0.2), -0.4, None),  # before the converter, on one side
            0.1 * np.clip(noise(2, scale=0.5), -1, 1),  # scaled afterwards
        )
        # Single samples at the rail do not count: normal noise seldom stays there for three.
        assert found(clips) == []
        smooth = [np.convolve(noise(n, 0.5), np.ones(8) / 3, "same") for n in range(3)]
        clips = table(
            np.clip(smooth[0], -1, 1),
            np.clip(smooth[1], -0.8, None),
            0.1 * np.clip(smooth[2], -1, 1),
        )
        assert found(clips) == [(f"{n}.wav", "clipped") for n in range(3)]
        share = np.mean(np.abs(smooth[0]) >= 1)
        text = detail(clips[:1], "clipped")
        assert text.endswith("of the samples are in flat tops")
        assert 0.3 * share < float(text.split("%")[0]) / 100 <= share

    def test_a_handful_of_full_scale_samples_is_not_clipping(self, table, noise):
        y = noise(0, scale=0.1)
        y[::2000] = 1.0
        y[100:104] = 1.0
        clips = table(y)
        assert found(clips) == []
        assert found(clips, clip_fraction=1e-4) == [("0.wav", "clipped")]  # 4 of 16,000

    def test_tones_and_quiet_clips_are_not_clipping(self, table):
        time = np.arange(SR) / SR
        tones = [0.9 * np.sin(2 * np.pi * f * time) for f in (10, 50, 440, 4000)]
        steps = np.round(12 * np.sin(2 * np.pi * 50 * time)) / 2**15  # flat by quantisation
        assert found(table(*tones, steps)) == []

    def test_one_clipped_channel_is_enough(self, table):
        time = np.arange(SR) / SR
        tone = 0.5 * np.sin(2 * np.pi * 100 * time)
        clips = table(np.stack([tone, np.clip(4 * tone, -1, 1)], axis=1))
        assert found(clips) == [("0.wav", "clipped")]


class TestDuplicates:
    def test_same_samples_in_another_format(self, table, noise):
        y = np.int16(2**15 * noise(0))
        clips = table(
            y,
            {"name": "copy.flac", "y": y},
            noise(2),
            {"name": "again.wav", "y": y},
        )
        assert found(clips) == [("copy.flac", "duplicate"), ("again.wav", "duplicate")]
        report = check_clips(clips)
        assert report["detail"].tolist() == [f"same samples as {clips.path[0]}"] * 2

    def test_the_same_file_twice(self, table, noise):
        clips = table(noise(0), noise(1))
        clips = pd.concat([clips, clips[:1]], ignore_index=True)
        assert found(clips) == [("0.wav", "duplicate")]

    def test_other_label_or_split(self, table, noise):
        clips = table(
            {"y": noise(0), "split": "train"},
            {"y": noise(1), "split": "test"},
            {"y": noise(0), "split": "test"},
            {"y": noise(1), "split": "test", "label": "anomaly"},
            {"y": noise(1), "split": "test"},
        )
        assert found(clips) == [(f"{n}.wav", "duplicate_label") for n in (2, 3, 4)]
        assert check_clips(clips)["detail"].tolist() == [
            f"normal, test; same samples as {clips.path[0]} (normal, train)",
            f"anomaly, test; same samples as {clips.path[1]} (normal, test)",
            f"normal, test; same samples as {clips.path[3]} (anomaly, test)",
        ]

    def test_unknown_label_is_no_other_label(self, table, noise):
        clips = table({"y": noise(0), "label": None, "split": None}, {"y": noise(0)})
        assert found(clips) == [("1.wav", "duplicate")]
        assert found(clips[["path"]]) == [("1.wav", "duplicate")]

    def test_scaled_or_cut_copy_is_not_the_same(self, table, noise):
        assert found(table(noise(0), 0.5 * noise(0), noise(0)[:-1], noise(5))) == [
            ("2.wav", "length")
        ]

    def test_silent_clips_are_not_compared(self, table):
        assert found(table(*np.zeros((2, SR), np.float32))) == [
            ("0.wav", "silent"),
            ("1.wav", "silent"),
        ]


def test_audio_column(noise):
    clips = pd.DataFrame(
        {
            "audio": [
                noise(0),
                noise(1)[:-5],
                noise(0),
                np.zeros((2, 9)),
                noise(4).astype(complex),
            ],
            "sr": [SR, SR, 8000, SR, SR],
            "machine": "fan",
        },
        index=[10, 11, 12, 13, 14],
    )
    assert found(clips) == [
        ("clip 11", "length"),
        ("clip 12", "sample_rate"),
        ("clip 12", "duplicate"),
        ("clip 13", "unreadable"),
        ("clip 14", "unreadable"),
    ]
    assert "shape (2, 9)" in check_clips(clips)["detail"][3]
    assert found(clips[:1].drop(columns="sr")) == []


def test_threads_give_the_same_findings(table, noise):
    clips = table(*(noise(n % 5) for n in range(12)), np.zeros(SR, np.float32))
    one = check_clips(clips)
    assert len(one) == 8
    pd.testing.assert_frame_equal(check_clips(clips, n_jobs=2), one)
    with joblib.parallel_config(n_jobs=3):
        pd.testing.assert_frame_equal(check_clips(clips), one)


def test_findings_follow_the_clips_not_the_index(table, noise):
    clips = table(noise(0), np.zeros(SR, np.float32), np.zeros(SR, np.float32))
    clips.index = [7, 7, 7]
    before = clips.copy()
    assert found(clips[::-1]) == [("2.wav", "silent"), ("1.wav", "silent")]
    pd.testing.assert_frame_equal(clips, before)


def test_progress(table, noise, capsys):
    clips = table(noise(0), noise(1))
    check_clips(clips, verbose=True)
    assert "Checking: 100%" in capsys.readouterr().err
    check_clips(clips)
    assert capsys.readouterr().err == ""


def test_bad_input(table, noise):
    clips = table(noise(0))
    with pytest.raises(ValueError, match="needs a column 'path' or 'audio'"):
        check_clips(clips.drop(columns="path"))
    with pytest.raises(ValueError, match="no rows"):
        check_clips(clips[:0])
    with pytest.raises(TypeError, match="Expected a clip table"):
        check_clips([1, 2])
    for wrong in ({"clip_fraction": 0}, {"silence_db": 3}, {"sr": 0}, {"n_jobs": 1.5}):
        with pytest.raises(ValueError, match=f"'{next(iter(wrong))}' parameter"):
            check_clips(clips, **wrong)


@pytest.mark.parametrize("size", [1, 2, 7, 100, 4096])
def test_a_long_file_is_checked_piece_by_piece_as_if_it_were_a_whole(table, size, monkeypatch):
    """Flat tops of 1 to 9 samples lie across the ends of pieces."""
    rng = np.random.default_rng(0)
    noise = [rng.uniform(-0.4, 0.4, (400, n)) for n in (1, 1, 2, 3)]
    for y in noise:
        for start in range(0, 390, 30):
            n = rng.integers(1, 10)
            y[start : start + n, start % y.shape[1]] = 0.9 * (-1) ** (start // 30)
    clips = table(*noise, noise[1] - 0.05, noise[1], np.zeros(400), np.empty(0))
    bad = table({"name": "bad.wav", "y": np.full(400, np.nan), "as": "FLOAT"})
    clips = pd.concat([clips, bad], ignore_index=True)
    # Any flat top is a finding, so that the detail says how many there are.
    whole = check_clips(clips, clip_fraction=1e-6)
    assert {"clipped", "duplicate", "silent", "nan", "unreadable"} <= set(whole["problem"])
    monkeypatch.setattr("sk_asd.datasets._check._BLOCK", size)
    pd.testing.assert_frame_equal(check_clips(clips, clip_fraction=1e-6), whole)


class TestRealRecordings:
    def test_nothing_is_wrong_with_the_machines(self, real_data):
        """815 clips of 16 kHz, mono, 10 s, some loud, no two equal (their md5 differ)."""
        parts = [load_clips(real_data / name) for name in ("dcase_real", "mimii_m6db")]
        clips = pd.concat(parts, ignore_index=True)
        clips = clips.iloc[::4]  # decoding all takes several seconds
        assert len(check_clips(clips, n_jobs=2, sr=16000)) == 0

    def test_clipped_field_recordings_are_found(self, real_data):
        """Of many clips with a peak at full scale only those with long flat tops are clipped."""
        clips = load_clips(real_data / "general_audio")
        clips = clips[clips.path.str.contains("1-47|1-6|1-8")]
        n_full_scale = sum(np.abs(read_audio(path)[0]).max() > 0.999 for path in clips.path)
        assert n_full_scale >= 10
        assert found(clips, n_jobs=2) == [
            ("1-47709-A-16.flac", "clipped"),
            ("1-47714-A-16.flac", "clipped"),
            ("1-64473-A-45.flac", "clipped"),
        ]
