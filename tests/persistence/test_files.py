"""Files that are damaged, of other kinds, of other versions, or larger than allowed."""

import hashlib
import json
import os
import resource
import subprocess
import sys
import warnings
import zipfile

import joblib
import numpy as np
import pytest
import safetensors.numpy

import sk_asd
from sk_asd import _versions
from sk_asd.detectors import KNNDetector
from sk_asd.utils.estimator_checks import make_inputs


@pytest.fixture(scope="module")
def embeddings():
    return make_inputs("embeddings")[0]


@pytest.fixture(scope="module")
def detector(embeddings):
    return KNNDetector().fit(embeddings)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.skasd"


@pytest.fixture
def file(detector, path):
    sk_asd.save(detector, path)
    return path


def rewrite(path, **header):
    """Write a file anew with other entries in its header."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    old = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["sk_asd"])
    arrays = safetensors.numpy.load(content)
    text = json.dumps({**old, **header})
    path.write_bytes(safetensors.numpy.save(arrays, {"sk_asd": text}))


def test_an_old_file_survives_a_failed_save(file, detector, monkeypatch):
    before = file.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        sk_asd.save(detector, file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_files_of_other_kinds(path, detector):
    with pytest.raises(FileNotFoundError, match=r"model\.skasd"):
        sk_asd.load(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"model\.skasd was not written by .*: it is empty"):
        sk_asd.load(path)
    joblib.dump(detector, path)
    with pytest.raises(ValueError, match="it seems to be a pickle, as joblib writes them"):
        sk_asd.load(path)
    path.write_text("path,score\n")
    with pytest.raises(ValueError, match="it begins with b'path"):
        sk_asd.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", "{}")
    with pytest.raises(ValueError, match="as an earlier sk_asd wrote them.* must be trained again"):
        sk_asd.load(path)
    path.write_bytes(safetensors.numpy.save({"x": np.zeros(3)}))
    with pytest.raises(ValueError, match="not written by sk_asd.save, or is damaged: it has no"):
        sk_asd.load(path)
    with pytest.raises(IsADirectoryError):
        sk_asd.load(path.parent)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="is no regular file"):
        sk_asd.load(path)


@pytest.mark.filterwarnings("ignore:.*was written with:UserWarning")
def test_truncated_and_changed_bytes(file, detector, embeddings):
    content = file.read_bytes()
    expected = detector.score_samples(embeddings)
    for n in np.linspace(1, len(content) - 1, 40, dtype=int):
        file.write_bytes(content[:n])
        with pytest.raises(ValueError, match=r"model\.skasd"):
            sk_asd.load(file)
    refused = 0
    for n in np.linspace(0, len(content) - 1, 120, dtype=int):
        file.write_bytes(content[:n] + bytes([content[n] ^ 0x55]) + content[n + 1 :])
        try:
            loaded = sk_asd.load(file)
        except ValueError as error:
            assert str(file) in str(error)  # noqa: PT017
            refused += 1
        else:  # letters of the header that say how it came about
            np.testing.assert_array_equal(loaded.score_samples(embeddings), expected)
    assert refused > 90


def test_versions(file, embeddings, detector):
    here = _versions.versions()
    old = {**here, "sk_asd": "0.0.9", "torch": "1.0+cu126", "python": "3.11.0"}
    rewrite(file, versions=old)
    expected = rf"written with sk_asd 0.0.9 \(here {here['sk_asd']}\), torch 1.0\+cu126 \(here"
    with pytest.warns(UserWarning, match=expected) as caught:
        loaded = sk_asd.load(file)
    assert len(caught) == 1
    np.testing.assert_array_equal(
        loaded.score_samples(embeddings), detector.score_samples(embeddings)
    )
    rewrite(file, sha256="0")
    with pytest.raises(ValueError, match=r"Cannot load .* it was written with sk_asd 0.0.9"):
        sk_asd.load(file)
    rewrite(file, format=3)
    with pytest.raises(ValueError, match=r"has format 3 of sk_asd 0.0.9; this .* reads format 2"):
        sk_asd.load(file)


def test_builds_for_another_device_are_the_same_version(file):
    here = _versions.versions()
    rewrite(file, versions={**here, "torch": here["torch"].split("+")[0] + "+cu126", "new": "1"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sk_asd.load(file)


# Sizes


def test_max_bytes(file, path):
    size = file.stat().st_size
    with pytest.raises(ValueError, match=rf"has {size} bytes, more than max_bytes={size - 1}"):
        sk_asd.load(file, max_bytes=size - 1)
    sk_asd.load(file, max_bytes=20 * size)
    with pytest.raises(ValueError, match="it takes more memory than .* max_bytes"):
        sk_asd.load(path, max_bytes=size + 100)


def forge(path, tree, arrays, **header):
    """Write a file as :func:`sk_asd.save` would, with contents written by hand."""
    arrays = {**arrays, "estimator.json": np.frombuffer(json.dumps(tree).encode(), np.uint8)}
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name!r} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8))
    about = {"format": 2, "versions": _versions.versions(), "estimator": {}}
    about |= {"sha256": digest.hexdigest(), **header}
    path.write_bytes(safetensors.numpy.save(arrays, {"sk_asd": json.dumps(about)}))
    return path


def described(name, state=None, **params):
    """A tree of one object."""
    return {
        "root": {"ref": 0},
        "objects": [{"class": name, "params": params, "state": state or {}}],
        "places": {},
    }


PEAK = """
import resource, sys, sk_asd, sk_asd.persistence._decode
from sk_asd.detectors import KNNDetector
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
try: sk_asd.load(sys.argv[1], max_bytes=1 << 27)
except ValueError as error: print(error, file=sys.stderr)
else: print("loaded", file=sys.stderr)
print(peak() - before)
"""


def memory_of(path):
    """Megabytes that loading takes, and what it says."""
    done = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True)
    return int(done.stdout), done.stderr


def networks(**changes):
    """An autoencoder whose network is not what its weights are."""
    architecture = {"n_inputs": 8, "latent_dim": 2, "width": 4, **changes}
    pairs = [[key, value] for key, value in architecture.items()]
    net = {"dict": [["weights", [{"dict": []}, {"dict": []}]], ["history", []]]}
    state = {"_architecture": {"dict": pairs}, "net_": net, "n_features_in_": 8}
    return described("sk_asd.detectors.AutoEncoderDetector", state)


@pytest.mark.parametrize(
    "kind",
    [
        "width",
        *(pytest.param(k, marks=pytest.mark.slow) for k in ("depth", "table", "trees", "texts")),
    ],
)
def test_small_files_do_not_take_much_memory(path, kind):
    arrays = {"big": np.zeros(1 << 17)}
    if kind == "width":
        tree = networks(width=10**6)
    elif kind == "depth":
        tree = networks(depth=10**9)
    elif kind == "table":
        column = {"array": "big"}
        tree = described("sk_asd.detectors.KNNDetector")
        tree["root"] = {"table": [list(range(5000)), column, [column] * 5000]}
    elif kind == "trees":
        one = {"tree": ["KDTree", {"array": "square"}, 1, "EuclideanDistance64"]}
        arrays = {"square": np.zeros((1 << 13, 16))}
        tree = described("sk_asd.detectors.KNNDetector")
        tree["root"] = [one] * 2000
    else:
        tree = described("sk_asd.detectors.KNNDetector")
        tree["root"] = {"items": ["text", [100_000], ["a" * 100_000] + [""] * 99_999]}
    forge(path, tree, arrays)
    assert path.stat().st_size < 3e6
    grown, said = memory_of(path)
    assert "model.skasd" in said
    assert grown < 300


def test_text_is_bounded(path, monkeypatch):
    monkeypatch.setattr("sk_asd.persistence._file._MAX_TEXT", 10_000)
    forge(path, {"root": [0] * 5000, "objects": []}, {})
    with pytest.raises(ValueError, match="its description has .* bytes, 10000 are allowed"):
        sk_asd.load(path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs address-space limits")
def test_a_header_longer_than_the_file(path):
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{" + bytes(100))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="or is truncated"):
        sk_asd.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
