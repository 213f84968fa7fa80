import os
import stat

import numpy as np
import pytest
import soundfile as sf
from numpy.testing import assert_allclose

from sk_asd.datasets._audio import (
    LyingHeaderError,
    audio_blocks,
    audio_info,
    audio_suffixes,
    read_audio,
    write_audio,
)


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


def forged(path, at, value):
    """Overwrite a part of a file."""
    content = bytearray(path.read_bytes())
    content[at : at + len(value)] = value
    path.write_bytes(content)


def flac_that_says(path, n_samples):
    content = path.read_bytes()
    fields = int.from_bytes(content[18:26], "big") >> 36 << 36 | n_samples
    forged(path, 18, fields.to_bytes(8, "big"))


class TestHeadersThatLie:
    """They cost neither time nor memory, and the file is named."""

    @pytest.fixture
    def blocks(self, monkeypatch):
        """Sizes of what is asked of the decoder."""
        sizes = []
        read = sf.SoundFile.read

        def noted(self, frames=-1, **params):
            sizes.append(frames * self.channels)
            return read(self, frames, **params)

        monkeypatch.setattr(sf.SoundFile, "read", noted)
        return sizes

    def test_more_than_the_file_can_hold(self, tmp_path, noise, blocks):
        path = tmp_path / "lie.flac"
        write_audio(path, noise, 16000)
        flac_that_says(path, 2**36 - 1)
        for read in (audio_info, read_audio, lambda path: list(audio_blocks(path))):
            with pytest.raises(LyingHeaderError, match=r"lie\.flac is damaged: .* 68719476735"):
                read(path)
        assert blocks == []

    def test_a_moderate_lie(self, tmp_path, noise, blocks):
        path = tmp_path / "lie.flac"
        write_audio(path, noise, 16000)
        flac_that_says(path, 60_000_000)
        assert audio_info(path).frames == 60_000_000
        with pytest.raises(ValueError, match=r"lie\.flac"):
            read_audio(path)
        assert len(blocks) == 1
        assert max(blocks) <= 2**20

    def test_mp3(self, tmp_path, noise):
        path = tmp_path / "lie.mp3"
        sf.write(path, np.tile(noise, 10), 16000)
        content = path.read_bytes()
        at = max(content.find(b"Xing"), content.find(b"Info"))
        assert at > 0
        forged(path, at + 8, b"\xff" * 4)
        with pytest.raises(LyingHeaderError, match=r"lie\.mp3 is damaged: its header promises"):
            audio_info(path)
        forged(path, at + 8, (2000).to_bytes(4, "big"))
        with pytest.raises(ValueError, match=r"lie\.mp3 is truncated"):
            read_audio(path)

    @pytest.mark.parametrize("rate", [0, 2**31, 2**32 - 1])
    def test_rates_of_wav(self, tmp_path, noise, rate):
        path = tmp_path / "rate.wav"
        write_audio(path, noise, 16000)
        forged(path, 24, rate.to_bytes(4, "little"))
        with pytest.raises(ValueError, match=r"rate\.wav"):
            audio_info(path)

    def test_many_channels(self, tmp_path, blocks):
        path = tmp_path / "many.wav"
        sf.write(path, np.zeros((4000, 1000)), 16000)
        assert len(read_audio(path, channel=999)[0]) == 4000
        assert max(blocks) <= 2**20
        forged(path, 22, b"\xff\xff")
        with pytest.raises(ValueError, match=r"many\.wav"):
            read_audio(path)

    @pytest.mark.parametrize("suffix", [".wav", ".aiff", ".au", ".caf", ".w64", ".rf64"])
    def test_sizes_of_chunks(self, tmp_path, noise, suffix):
        """Whatever stands where a size does: what is there is read, or the file named."""
        path = tmp_path / f"size{suffix}"
        write_audio(path, noise, 16000, subtype="PCM_16")
        whole = path.read_bytes()
        start = whole.index(noise_bytes(path, noise))
        n_read = n_named = 0
        for at in range(4, start - 3):
            path.write_bytes(whole)
            forged(path, at, b"\x7f\xff\xff\xff")
            try:
                n_read += len(read_audio(path)[0]) <= len(whole)
            except ValueError as error:
                n_named += path.name in str(error)
        assert n_read + n_named == start - 7
        assert n_named > 0


def noise_bytes(path, noise):
    """How samples are stored in a file of 16 bits."""
    order = ">i2" if path.suffix in (".aiff", ".au", ".caf") else "<i2"
    values, _ = sf.read(path, dtype="int16")
    return values[:50].astype(order).tobytes()


def test_blocks_are_the_file(tmp_path):
    y = np.random.default_rng(0).uniform(-1, 1, (400_000, 3)).astype(np.float32)
    write_audio(tmp_path / "a.wav", y, 16000, subtype="FLOAT")
    blocks = list(audio_blocks(tmp_path / "a.wav"))
    assert len(blocks) == 2
    np.testing.assert_array_equal(np.concatenate(blocks), y)
    for start, frames in ((0, -1), (7, 399_000), (399_999, 5)):
        part, _ = read_audio(tmp_path / "a.wav", channel=2, start=start, frames=frames)
        stop = None if frames < 0 else start + frames
        np.testing.assert_array_equal(part, y[start:stop, 2])
    write_audio(tmp_path / "empty.wav", y[:0], 16000)
    (empty,) = audio_blocks(tmp_path / "empty.wav")
    assert empty.shape == (0, 3)
