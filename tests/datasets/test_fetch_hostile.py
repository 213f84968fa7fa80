"""Fetching from a server, or an archive, that means harm."""

import io
import json
import re
import stat
import struct
import zipfile

import pytest
from zenodo import DEV, archive_of

from sk_asd.cli import main
from sk_asd.datasets import _download
from sk_asd.datasets._download import unpack


def files_below(folder):
    return {p for p in folder.rglob("*") if p.is_file()}


RECORD = "api/records/6355122"
CHECKSUM = "md5:" + "0" * 32
ESCAPES = "\x1b[2J\x07\nsk-asd: error: \u202e"


def entry(**changes):
    return {"files": [{"key": "dev_fan.zip", "checksum": CHECKSUM, "size": 100} | changes]}


@pytest.mark.parametrize(
    "record",
    [
        {"files": None},
        {"files": {"key": "dev_fan.zip", "checksum": CHECKSUM}},
        {"files": "dev_fan.zip"},
        {"files": [ESCAPES]},
        {"files": [None]},
        {"files": [{"checksum": CHECKSUM}]},
        {"files": [{"key": ["dev_fan.zip"]}]},
        {"files": 7},
        {},
        entry(checksum=None),
        entry(checksum=["md5"]),
        entry(checksum=ESCAPES),
        entry(checksum="md5:xyz"),
        entry(size=-1),
        entry(size=0),
        entry(size=float("nan")),
        entry(size=float("inf")),
        entry(size=1e3),
        entry(size=True),
        entry(size="100"),
        entry(size=2**80),
        entry(key=ESCAPES),
        {"files": [{"key": f"{ESCAPES}{i}"} for i in range(1000)]},
    ],
)
def test_malformed_records(fetch, zenodo, tmp_path, record):
    """One line, nothing that moves the cursor, and no archive is fetched."""
    zenodo.plan[RECORD] = [f"say {json.dumps(record)}"]
    with pytest.raises(ValueError, match="Record https://zenodo.org/records/6355122") as caught:
        fetch()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert zenodo.count(DEV) == 0
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        (None, "not named"),
        ([], "not named"),
        ({"license": 7}, "not named"),
        ({"license": {"id": ["x"]}}, "not named"),
        ({"license": "cc-by"}, "cc-by"),
        ({"license": {"title": "a\x1b[2Jb"}}, "a\\x1b[2Jb"),
        ({"license": {"id": "a\nb"}, "title": {}}, "a\\nb"),
    ],
)
def test_metadata(fetch, zenodo, capsys, metadata, licence):
    record = zenodo.record("6355122") | {"metadata": metadata}
    zenodo.plan[RECORD] = [f"say {json.dumps(record)}"]
    assert fetch().attrs["licences"] == {"dev_fan.zip": licence}
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable()


def test_a_record_without_end(fetch, zenodo, monkeypatch):
    monkeypatch.setattr(_download, "_LARGEST_JSON", 1000)
    zenodo.plan[RECORD] = ["say " + "[" * 100_000]
    with pytest.raises(OSError, match="has more than 1,000 bytes"):
        fetch()


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "{", "NaN", "null"])
def test_a_record_that_is_none(fetch, zenodo, content):
    zenodo.plan[RECORD] = [f"say {content}"]
    with pytest.raises(OSError, match="is no JSON object"):
        fetch()


@pytest.mark.parametrize("path", [RECORD, DEV])
@pytest.mark.parametrize("target", ["?again", "file:///etc/passwd", "http://[", "ftp://x/"])
def test_redirects(run_fetch, zenodo, path, target):
    zenodo.plan[path] = [f"go /{path}?again" if target == "?again" else f"go {target}"] * 40
    status, out, err = run_fetch()
    assert (status, out) == (2, "")
    assert err.startswith("sk-asd: error: Cannot get http")
    assert err.count("\n") == 1


@pytest.fixture
def run_fetch(zenodo, tmp_path, capsys):
    def run():
        argv = ["fetch", "2022", "--machine", "fan", "--data-home", str(tmp_path), "--quiet"]
        status = main([*argv, "--base-url", zenodo.url])
        return status, *capsys.readouterr()

    return run


def with_size(zenodo, size):
    record = zenodo.record("6355122")
    record["files"][0]["size"] = size
    zenodo.plan[RECORD] = [f"say {json.dumps(record)}"] * 9


def test_a_file_of_another_size(fetch, zenodo, tmp_path):
    whole = len(zenodo.files[DEV])
    with_size(zenodo, whole)
    assert len(fetch()) == 4


@pytest.mark.parametrize("change", [-1, 1, -100_000])
def test_a_length_that_is_not_that_of_the_record(fetch, zenodo, tmp_path, change):
    with_size(zenodo, len(zenodo.files[DEV]) + change)
    expected = len(zenodo.files[DEV]) + change
    with pytest.raises(OSError, match=rf"bytes or more, expected {expected:,}"):
        fetch()
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("promise", ["-5", "many", "0x10"])
def test_a_length_that_is_no_number(fetch, zenodo, promise):
    """As if there were none: all comes, and is checked as ever."""
    zenodo.plan[DEV] = [f"promise {promise}"] * 9
    assert len(fetch(n_retries=0)) == 4


def test_a_length_beyond_measure(fetch, zenodo):
    zenodo.plan[DEV] = ["promise 99999999999999999999999"] * 9
    with pytest.raises(OSError, match=r"Cannot get http.*dev_fan\.zip"):
        fetch(n_retries=0)


def test_a_length_beyond_the_limit(fetch, zenodo, tmp_path):
    """It is refused before anything is written."""
    zenodo.plan[DEV] = ["promise 99999999999999"] * 9
    with pytest.raises(OSError, match=r"has 99,999,999,999,999 bytes or more, expected at most"):
        fetch(n_retries=0)
    assert files_below(tmp_path) == set()


def test_a_file_that_grows_beyond_all_limits(fetch, zenodo, monkeypatch, tmp_path):
    monkeypatch.setattr(_download, "LARGEST", 150_000)
    with pytest.raises(OSError, match=r"has .* bytes or more, expected at most 150,000"):
        fetch()


def test_more_than_was_promised_is_not_written(tmp_path, monkeypatch):
    """Without a length in the header, bytes are counted."""
    import requests

    class Response:
        status_code, headers, url, reason, ok = 200, {}, "http://x/", "OK", True

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def iter_content(self, size):
            while True:
                yield bytes(1000)

    monkeypatch.setattr(requests, "get", lambda *args, **kwargs: Response())
    with pytest.raises(OSError, match="has 11,000 bytes or more, expected 10,500"):
        _download.download("http://x/", tmp_path / "part", size=10_500, n_retries=0, delay=0)
    assert (tmp_path / "part").stat().st_size == 10_000


# Archives


def member(name, **attributes):
    info = zipfile.ZipInfo(name)
    info.filename = info.orig_filename = name
    for key, value in attributes.items():
        setattr(info, key, value)
    return info


def try_to_unpack(tmp_path, content):
    archive, folder = tmp_path / "archive.zip", tmp_path / "in"
    archive.write_bytes(content)
    folder.mkdir()
    with pytest.raises(ValueError, match=r"archive\.zip is (not unpacked|broken)") as caught:
        unpack(archive, folder)
    assert str(caught.value).isprintable()
    return str(caught.value), folder


def bomb(size):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr(member("a.wav", compress_type=zipfile.ZIP_DEFLATED), bytes(size))
    return buffer.getvalue()


def test_a_bomb(tmp_path):
    message, folder = try_to_unpack(tmp_path, bomb(20_000_000))
    assert "declares 20,000,000 bytes in an archive of" in message
    assert not list(folder.iterdir())


def test_silence_is_no_bomb(tmp_path):
    (tmp_path / "a.zip").write_bytes(bomb(900_000))
    (tmp_path / "in").mkdir()
    unpack(tmp_path / "a.zip", tmp_path / "in")
    assert (tmp_path / "in" / "a.wav").stat().st_size == 900_000


def test_members_that_share_their_bytes(tmp_path):
    """The sizes that are declared count, however often the same bytes are named."""
    content = bytearray(bomb(900_000))
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entries = bytes(content[start:end]) * 50
    tail = bytearray(content[end:])
    struct.pack_into("<HHI", tail, 8, 50, 50, len(entries))
    message, folder = try_to_unpack(tmp_path, bytes(content[:start]) + entries + bytes(tail))
    assert "declares 45,000,000 bytes" in message
    assert not list(folder.iterdir())


@pytest.mark.parametrize("declared", [10, 500_000])
def test_a_member_larger_than_it_declares(tmp_path, declared):
    """No more than that is written."""
    content = bytearray(bomb(900_000))
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.index(signature) + place, declared)
    _, folder = try_to_unpack(tmp_path, bytes(content))
    assert all(path.stat().st_size <= declared for path in folder.iterdir())


def test_limits_of_number_and_size(tmp_path, monkeypatch):
    content = archive_of({f"{i}.wav": b"12345" for i in range(5)})
    monkeypatch.setattr(_download, "_MOST_MEMBERS", 4)
    message, folder = try_to_unpack(tmp_path, content)
    assert "declares 5 members, expected at most 4" in message
    monkeypatch.undo()
    folder.rmdir()
    monkeypatch.setattr(_download, "_LARGEST_MEMBER", 4)
    assert "declares 5 bytes in a member, expected at most 4" in try_to_unpack(tmp_path, content)[0]


@pytest.mark.parametrize(
    ("name", "attributes", "message"),
    [
        ("a/" * 3000 + "b.wav", {}, "lies in more than 16 folders"),
        ("\x1b[2J.wav", {}, "has no proper name"),
        ("a\nb.wav", {}, "has no proper name"),
        ("\u202ewav.a", {}, "has no proper name"),
        ("x" * 300 + ".wav", {}, "broken|File name too long"),
        ("a.wav", {"compress_type": zipfile.ZIP_LZMA}, "compressed in an unusual way"),
        ("a.wav", {"compress_type": zipfile.ZIP_BZIP2}, "compressed in an unusual way"),
        ("a.wav", {"external_attr": (stat.S_IFLNK | 0o777) << 16}, "is a link"),
    ],
)
def test_members_that_are_refused(tmp_path, name, attributes, message):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr(member(name, **attributes), b"content")
    found, folder = try_to_unpack(tmp_path, buffer.getvalue())
    assert re.search(message, found)
    assert not list(folder.rglob("*.wav"))


def test_a_file_that_is_a_folder_too(tmp_path):
    _, folder = try_to_unpack(tmp_path, archive_of({"a": b"file", "a/b.wav": b"in it"}))
    assert not (folder / "a" / "b.wav").exists()
