import os
import stat

import numpy as np
import pytest
import soundfile as sf
from numpy.testing import assert_allclose

from sk_asd.datasets._audio import audio_info, audio_suffixes, read_audio, write_audio


@pytest.fixture
def noise():
    return np.random.default_rng(0).uniform(-0.9, 0.9, 1600).astype(np.float32)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff", ".WAV"])
def test_write_then_read(tmp_path, noise, suffix):
    path = tmp_path / "new" / "folder" / f"clip{suffix}"
    write_audio(path, noise, 22050)
    y, sr = read_audio(path)
    assert sr == 22050
    assert y.dtype == np.float32
    assert y.shape == noise.shape
    assert_allclose(y, noise, atol=2**-15)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file is left


def test_float_samples_survive_unchanged(tmp_path, noise):
    write_audio(tmp_path / "clip.wav", 3 * noise, 16000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(str(tmp_path / "clip.wav"))[0], 3 * noise)


def test_part_of_a_clip(tmp_path, noise):
    path = tmp_path / "clip.flac"
    write_audio(path, noise, 16000)
    whole, _ = read_audio(path)
    np.testing.assert_array_equal(read_audio(path, start=100, frames=50)[0], whole[100:150])
    np.testing.assert_array_equal(read_audio(path, start=1500)[0], whole[1500:])
    np.testing.assert_array_equal(read_audio(path, start=1500, frames=500)[0], whole[1500:])
    assert len(read_audio(path, start=1600)[0]) == 0
    for start in (-1, 1601):
        with pytest.raises(ValueError, match=rf"1600 samples; cannot start at sample {start}\."):
            read_audio(path, start=start)


def test_channels(tmp_path, noise):
    path = tmp_path / "two.wav"
    write_audio(path, np.stack([noise, -0.5 * noise], axis=1), 16000)
    first, _ = read_audio(path)
    second, _ = read_audio(path, channel=1)
    assert_allclose(first, noise, atol=2**-15)
    assert_allclose(second, -0.5 * noise, atol=2**-15)
    assert first.flags.c_contiguous
    for channel in (2, -1):
        with pytest.raises(ValueError, match=rf"two.wav has 2 channel.*no channel {channel}"):
            read_audio(path, channel=channel)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such sound file: .*absent\.wav"):
        read_audio(tmp_path / "absent.wav")
    with pytest.raises(IsADirectoryError, match="found a folder"):
        read_audio(tmp_path)


def test_file_without_permission(tmp_path, noise, monkeypatch):
    path = tmp_path / "secret.wav"
    write_audio(path, noise, 16000)

    def refuse(*args, **kwargs):
        raise sf.LibsndfileError(2)

    monkeypatch.setattr(sf, "SoundFile", refuse)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    with pytest.raises(PermissionError, match=r"No permission .*secret\.wav"):
        read_audio(path)


@pytest.mark.parametrize("content", [b"", b"this is no sound", b"RIFF\x00\x00\x00\x00WAVEfmt "])
def test_corrupt_file(tmp_path, content):
    path = tmp_path / "broken.wav"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"Cannot read .*broken\.wav \({len(content)} bytes\): \w+"
    ):
        read_audio(path)
    with pytest.raises(ValueError, match=r"broken\.wav"):
        audio_info(path)


@pytest.mark.parametrize("suffix", [".wav", ".aiff"])
def test_truncated_file_is_an_error_although_libsndfile_shortens_it(tmp_path, noise, suffix):
    path = tmp_path / f"cut{suffix}"
    write_audio(path, noise, 16000)
    path.write_bytes(path.read_bytes()[:-400])  # 200 samples of 16 bits
    assert sf.info(path).frames == 1400  # what a naive reader sees
    with pytest.raises(ValueError, match=rf"cut{suffix} is truncated: .* 200 more samples"):
        read_audio(path)
    assert audio_info(path) == (16000, 1400, 1, 200)


@pytest.mark.parametrize("kind", ["RF64", "W64", "AU", "SVX"])
def test_truncated_files_of_other_kinds(tmp_path, noise, kind):
    """RF64 and W64 hold what is too long for a wav file."""
    path = tmp_path / f"cut.{kind.lower()}"
    sf.write(path, noise, 16000, subtype="PCM_16", format=kind)
    assert audio_info(path) == (16000, 1600, 1, 0)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match=r"cut\.\w+ is truncated: .* 200 more samples"):
        read_audio(path)
    assert audio_info(path) == (16000, 1400, 1, 200)


def test_wav_cut_after_its_header(tmp_path, noise):
    path = tmp_path / "head.wav"
    write_audio(path, noise, 16000)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"data") + 8])
    with pytest.raises(ValueError, match=r"head\.wav is truncated: .* 1600 more samples"):
        read_audio(path)


def test_truncated_flac(tmp_path, noise):
    path = tmp_path / "cut.flac"
    write_audio(path, np.tile(noise, 20), 16000)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match=r"cut\.flac .*(lost sync|truncated)"):
        read_audio(path)


def test_streamed_wav_without_size_is_whole(tmp_path, noise):
    path = tmp_path / "piped.wav"
    write_audio(path, noise, 16000)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = b"\xff\xff\xff\xff"  # as ffmpeg leaves it when it writes to a pipe
    path.write_bytes(content)
    assert len(read_audio(path)[0]) == 1600
    assert audio_info(path) == (16000, 1600, 1, 0)


def test_streamed_flac_without_length(tmp_path, noise):
    """The decoder finds no place in it."""
    path = tmp_path / "piped.flac"
    write_audio(path, noise, 16000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # 36 bits
    content[22:26] = bytes(4)
    path.write_bytes(content)
    for read in (read_audio, audio_info):
        with pytest.raises(ValueError, match=r"piped\.flac .* does not say how many samples"):
            read(path)


def test_info(tmp_path, write_tone):
    path = write_tone(tmp_path / "two.flac", n_samples=480, sr=48000, n_channels=2)
    assert audio_info(path) == (48000, 480, 2, 0)


def test_suffixes():
    assert {".wav", ".flac", ".ogg", ".aiff", ".aif"} <= audio_suffixes()
    assert not {".raw", ".csv", ".txt", ".npy", ".zip", ""} & audio_suffixes()


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, noise):
    path = tmp_path / "clip.flac"
    write_audio(path, noise, 16000)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="subtype"):
        write_audio(path, noise, 16000, subtype="FLOAT")  # flac knows no such samples
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("through_a_link", [False, True])
def test_pipes_are_left_alone(tmp_path, noise, through_a_link):
    path = tmp_path / "pipe.wav"
    os.mkfifo(path)
    if through_a_link:
        path, target = tmp_path / "link.wav", path
        path.symlink_to(target)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match=rf"found a pipe or device: .*{path.name}"):
        write_audio(path, noise, 16000)
    assert sorted(tmp_path.iterdir()) == before
    assert stat.S_ISFIFO((tmp_path / "pipe.wav").stat().st_mode)


def test_written_file_has_the_usual_permissions(tmp_path, noise):
    write_audio(tmp_path / "clip.wav", noise, 16000)
    (tmp_path / "plain").touch()
    modes = {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert len(modes) == 1


def test_unknown_suffix(tmp_path, noise):
    with pytest.raises(ValueError, match=r"'\.xyz' is no suffix of a sound format"):
        write_audio(tmp_path / "clip.xyz", noise, 16000)
