"""Features in memory-mapped files."""

import contextlib
import io
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from sk_asd.datasets._audio import write_audio
from sk_asd.features import STFT, LogMel, _base

SMALL = {"n_fft": 256, "hop_length": 128}


@pytest.fixture
def waves():
    return np.random.default_rng(0).uniform(-0.5, 0.5, size=(40, 2000)).astype(np.float32)


@pytest.fixture
def clips(waves, tmp_path):
    paths = [tmp_path / "clips" / f"{i:04d}.wav" for i in range(len(waves))]
    for path, wave in zip(paths, waves):
        write_audio(path, wave, 16000, subtype="FLOAT")
    return pd.DataFrame({"path": [str(path) for path in paths], "section": "00"})


@pytest.fixture
def decoded(monkeypatch):
    """List of the files that have been decoded."""
    paths = []
    read_audio = _base.read_audio

    def read(path, **params):
        paths.append(path)
        return read_audio(path, **params)

    monkeypatch.setattr(_base, "read_audio", read)
    return paths


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_second_run_reads_back(clips, tmp_path, decoded):
    expected = STFT(**SMALL).fit_transform(clips).values
    decoded.clear()
    cache = tmp_path / "deep" / "cache"
    first = STFT(cache_dir=cache, **SMALL).fit(clips)
    second = STFT(cache_dir=str(cache), n_jobs=1, **SMALL).fit(clips)
    decoded.clear()  # to fit takes a look at some
    first = first.transform(clips)
    assert len(decoded) == len(clips)
    second = second.transform(clips)
    assert len(decoded) == len(clips)
    for features in (first, second):
        assert isinstance(features.values.base, np.memmap)
        assert not features.values.flags.writeable
        assert features.section.values.tolist() == ["00"] * 40
        np.testing.assert_array_equal(features.values, expected)
    (name,) = files_in(cache)
    assert name.startswith("stft-")
    assert name.endswith(".npy")
    np.testing.assert_array_equal(np.load(cache / name), expected)


def test_waveforms_in_memory(waves, tmp_path):
    plain = LogMel(n_mels=16, **SMALL)
    cached = LogMel(n_mels=16, cache_dir=tmp_path, **SMALL)
    table = pd.DataFrame({"audio": list(waves), "sr": 16000})
    for X in (waves, table):
        expected = plain.fit_transform(X)
        for _ in range(2):
            np.testing.assert_array_equal(cached.fit_transform(X), expected)
    assert len(files_in(tmp_path)) == 1
    changed = waves.copy()
    changed[39, 1999] += 0.01
    expected = plain.fit_transform(changed)
    np.testing.assert_array_equal(cached.fit_transform(changed), expected)
    assert len(files_in(tmp_path)) == 2


def test_key(clips, tmp_path):
    """Whatever changes the values has a file of its own."""
    cache = tmp_path / "cache"
    variants = [
        STFT(**SMALL),
        LogMel(n_mels=16, **SMALL),
        LogMel(n_mels=16, top_db=None, **SMALL),
        STFT(n_fft=256, hop_length=130),
        STFT(power=2.0, **SMALL),
        STFT(window="hamming", **SMALL),
        STFT(window=np.hanning(256), **SMALL),
        STFT(window=lambda n: np.linspace(0, 1, n), **SMALL),
        STFT(center=False, **SMALL),
        STFT(duration=0.125, **SMALL),
        STFT(duration=0.0625, on_length="crop", **SMALL),
    ]
    for _ in range(2):
        for i, extractor in enumerate(variants, start=1):
            extractor.set_params(cache_dir=None)
            expected = extractor.fit_transform(clips)
            extractor.set_params(cache_dir=cache)
            np.testing.assert_array_equal(extractor.fit_transform(clips), expected)
            assert len(files_in(cache)) >= i
    assert len(files_in(cache)) == len(variants)
    STFT(cache_dir=cache, **SMALL).fit_transform(clips.iloc[::-1])
    STFT(cache_dir=cache, **SMALL).fit_transform(clips.iloc[:5])
    assert len(files_in(cache)) == len(variants) + 2


def test_a_changed_file_is_read_again(clips, waves, tmp_path):
    extractor = STFT(cache_dir=tmp_path / "cache", **SMALL)
    extractor.fit_transform(clips)
    path = clips["path"].iloc[3]
    write_audio(path, -2 * waves[3], 16000, subtype="FLOAT")
    os.utime(path, ns=(1, 1))
    expected = STFT(**SMALL).fit_transform(clips)
    np.testing.assert_array_equal(extractor.fit_transform(clips), expected)


def _zip(file, values):
    content = io.BytesIO()
    np.savez(content, a=values)
    file.write_bytes(content.getvalue())


def _in_place_of_the_file(make):
    def damage(file, values):
        file.unlink()
        make(file)

    return damage


def _pipe_behind_a_link(file):
    pipe = file.parent.parent / "pipe"
    os.mkfifo(pipe)
    file.symlink_to(pipe)


def _flip(at):
    def damage(file, values):
        content = bytearray(file.read_bytes())
        content[at] ^= 1
        file.write_bytes(content)

    return damage


DAMAGES = {
    "truncated": lambda file, values: os.truncate(file, file.stat().st_size - 100),
    "longer": lambda file, values: os.truncate(file, file.stat().st_size + 4),
    "empty": lambda file, values: file.write_bytes(b""),
    "garbage": lambda file, values: file.write_bytes(os.urandom(5000)),
    "zeros": lambda file, values: file.write_bytes(bytes(file.stat().st_size)),
    "zip": _zip,
    "other shape": lambda file, values: np.save(file, values[:3]),
    "same values, another shape": lambda file, values: np.save(file, values.swapaxes(0, 1)),
    "other type": lambda file, values: np.save(file, values.astype(np.float64)),
    "other order": lambda file, values: np.save(file, np.asfortranarray(values)),
    "no checksum": np.save,
    "objects": lambda file, values: np.save(file, values[:3].astype(object), allow_pickle=True),
    "header": _flip(20),
    "checksum": _flip(-1),
    "folder": _in_place_of_the_file(lambda file: file.mkdir()),
    "pipe": _in_place_of_the_file(os.mkfifo),
    "pipe behind a link": _in_place_of_the_file(_pipe_behind_a_link),
    "link to nothing": _in_place_of_the_file(lambda file: file.symlink_to(file.parent / "gone")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_broken_cache_is_computed_again(clips, tmp_path, damage):
    cache = tmp_path / "cache"
    extractor = STFT(cache_dir=cache, **SMALL)
    expected = np.array(extractor.fit_transform(clips))
    (file,) = cache.iterdir()
    content = file.read_bytes()
    DAMAGES[damage](file, expected)
    np.testing.assert_array_equal(extractor.fit_transform(clips), expected)
    assert files_in(cache) == [file.name]
    assert file.read_bytes() == content


def test_features_of_other_clips_under_the_name(clips, tmp_path):
    cache = tmp_path / "cache"
    extractor = STFT(cache_dir=cache, **SMALL)
    expected = np.array(extractor.fit_transform(clips))
    (file,) = cache.iterdir()
    extractor.fit_transform(clips[::-1])
    (other,) = set(cache.iterdir()) - {file}
    file.write_bytes(other.read_bytes())
    np.testing.assert_array_equal(extractor.fit_transform(clips), expected)


def test_a_folder_with_something_in_it_is_left_alone(clips, tmp_path):
    cache = tmp_path / "cache"
    extractor = STFT(cache_dir=cache, **SMALL)
    extractor.fit_transform(clips)
    (file,) = cache.iterdir()
    file.unlink()
    (file / "mine").mkdir(parents=True)
    with pytest.raises(OSError, match="cache_dir=.* cannot be written: .*not empty"):
        extractor.fit_transform(clips)


def test_failures_leave_no_file(clips, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    extractor = STFT(cache_dir=cache, **SMALL).fit(clips)
    os.truncate(clips["path"].iloc[-1], 1000)
    with pytest.raises(ValueError, match=r"0039\.wav"):
        extractor.transform(clips)
    assert files_in(cache) == []
    os.remove(clips["path"].iloc[-1])
    with pytest.raises(FileNotFoundError, match=r"No such sound file: .*0039\.wav"):
        extractor.transform(clips)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(_base, "read_audio", interrupt)
    with pytest.raises(KeyboardInterrupt):
        extractor.transform(clips.iloc[:30])
    assert files_in(cache) == []


def test_folder_that_cannot_be_written(clips, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(OSError, match=r"cache_dir='.*file.*' cannot be written"):
            STFT(cache_dir=folder, **SMALL).fit_transform(clips)


def test_a_full_disk_is_named(clips, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def full(path):
        yield "/dev/full"

    monkeypatch.setattr("sk_asd.features._cache.replacing", full)
    with pytest.raises(OSError, match="cache_dir=.*No space left on device"):
        STFT(cache_dir=tmp_path / "cache", **SMALL).fit_transform(clips)
    assert files_in(tmp_path / "cache") == []


@pytest.mark.slow
def test_two_processes_at_once(clips, tmp_path):
    code = """
import sys, pathlib
import numpy as np, pandas as pd
from sk_asd.features import LogMel

folder = pathlib.Path(sys.argv[1])
clips, expected = pd.read_pickle(folder / "clips.pkl"), np.load(folder / "expected.npy")
extractor = LogMel(n_mels=16, n_fft=256, hop_length=128, cache_dir=folder / "cache", n_jobs=2)
print("ready", flush=True)
sys.stdin.readline()
for n in range(1, 41):  # a new file each time, of which both processes are in need
    features = extractor.fit_transform(clips[:n])
    np.testing.assert_array_equal(features.values, expected[:n])
"""
    clips.to_pickle(tmp_path / "clips.pkl")
    np.save(tmp_path / "expected.npy", LogMel(n_mels=16, **SMALL).fit_transform(clips).values)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], text=True, **pipes)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert len(files_in(tmp_path / "cache")) == 40


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("name", ["LogMel", "STFT"])
def test_memory_stays_bounded(tmp_path, name):
    """2,000 clips of ten seconds to a cache: 0.3 GB of log-mel, 2.6 GB of STFT."""
    code = """
import sys
import numpy as np, pandas as pd
from sk_asd import features
from sk_asd.datasets._audio import write_audio

name, folder = sys.argv[1:]
rng = np.random.default_rng(0)
for i in range(20):
    write_audio(f"{folder}/{i}.wav", rng.uniform(-0.5, 0.5, 160000), 16000)
clips = pd.DataFrame({"path": [f"{folder}/{i % 20}.wav" for i in range(2000)]})
features = getattr(features, name)(cache_dir=folder).fit_transform(clips)
assert features.shape == (2000, {"LogMel": 128, "STFT": 1025}[name], 313)
assert features.values[-1].any()
# Of this program alone: ru_maxrss keeps what the process that started it had.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) / 2**20)
"""
    arguments = [sys.executable, "-c", code, name, str(tmp_path)]
    result = subprocess.run(arguments, capture_output=True, text=True, check=True)
    gigabytes = float(result.stdout)
    for file in tmp_path.iterdir():
        file.unlink()
    assert gigabytes < 1.0
