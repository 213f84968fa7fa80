"""Archives that try to leave the folder they are unpacked into."""

import io
import stat
import tarfile
import zipfile

import pytest

from sk_asd.datasets._download import unpack

N_HOSTILE, N_BROKEN = 300, 300
UP = ["..", "../..", "../../..", "a/../..", "./..", ".. /..", "..."]
EVIL = ["evil.wav", "dev_fan/evil.wav", "target/evil.wav"]


@pytest.fixture
def place(tmp_path):
    """A folder to unpack into, deep in a tree where nothing else may change."""
    folder = tmp_path / "outer" / "home" / "scratch"
    folder.mkdir(parents=True)
    (tmp_path / "outer" / "home" / "precious.wav").write_text("kept")
    return folder


def outside(folder):
    """All that is around a folder, with the content of files."""
    outer = folder.parents[1]
    found = {}
    for path in sorted(outer.rglob("*")):
        if folder not in path.parents:
            found[path] = path.read_bytes() if path.is_file() else None
    return found


def hostile_names(rng, absolute):
    up, evil = UP[rng.integers(len(UP))], EVIL[rng.integers(len(EVIL))]
    slash = ("/", "\\", "//")[rng.integers(3)]
    yield from (
        *(f"{up}{slash}{evil}", f"fan{slash}{up}{slash}{up}{slash}{evil}"),
        *(f"{absolute}/{evil}", f"/{absolute}/{evil}", f"C:{slash}{evil}", f"~{slash}{evil}"),
        *(f"fan\0/{up}/{evil}", f"file://{absolute}/{evil}", f"fan/{evil}/", ""),
    )


def hostile_zip(rng, absolute):
    """Some good members, and among them some that want to be elsewhere."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        names = list(hostile_names(rng, absolute))
        for _ in range(rng.integers(1, 4)):
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = names[rng.integers(len(names))]
            kind = (0, stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFBLK)
            info.external_attr = (kind[rng.integers(len(kind))] | 0o777) << 16
            info.create_system = int(rng.integers(4))
            zipped.writestr(info, str(absolute / "evil.wav"))
            zipped.writestr(f"fan/train/{rng.integers(3)}.wav", b"good")
    return buffer.getvalue()


def attempt(content, place):
    """Unpack; what goes wrong must be said with the archive's name."""
    archive = place.parent / "archive.zip"
    archive.write_bytes(content)
    try:
        unpack(archive, place)
    except (OSError, ValueError) as error:
        told = str(error)
        assert "archive.zip" in told or str(place) in told, told
        return False
    finally:
        archive.unlink(missing_ok=True)
    return True


def clear(place):
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_want_to_be_elsewhere(place, rng):
    before = outside(place)
    for _ in range(N_HOSTILE):
        attempt(hostile_zip(rng, place.parents[1]), place)
        assert outside(place) == before
        assert not any(path.is_symlink() or path.is_fifo() for path in place.rglob("*"))
        clear(place)


def test_broken_archives(place, rng):
    """Bytes changed anywhere, most of them in the directory of the archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for i, method in enumerate((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)):
            # Not named by text: that would add the time of day, and no run could be repeated.
            member = zipfile.ZipInfo(f"fan/train/{i}.wav")
            zipped.writestr(member, rng.bytes(50) + bytes(200), method)
    before, whole = outside(place), 0
    for _ in range(N_BROKEN):
        content = bytearray(buffer.getvalue())
        for _ in range(rng.integers(1, 4)):
            start = 0 if rng.random() < 0.4 else content.find(b"PK\1\2")
            content[int(rng.integers(start, len(content)))] = int(rng.integers(256))
        if rng.random() < 0.1:
            del content[int(rng.integers(len(content))) :]
        whole += attempt(bytes(content), place)
        assert outside(place) == before
        clear(place)
    assert 0 < whole < N_BROKEN


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_archive_is_no_archive_of_the_challenge(place, mode):
    """Those are zip; nothing of anything else is written."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name in ("../../evil.wav", f"{place.parents[1]}/evil.wav", "fan/good.wav"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("fan/link")
        link.type, link.linkname = tarfile.SYMTYPE, str(place.parents[1])
        tar.addfile(link)
    before = outside(place)
    assert not attempt(buffer.getvalue(), place)
    assert outside(place) == before
    assert list(place.iterdir()) == []


def test_a_link_that_waits_in_the_folder_is_not_followed_out_of_the_archive(place):
    """A member below a member that is a link: refused before anything is written."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        info = zipfile.ZipInfo("fan")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(info, str(place.parents[1]))
        zipped.writestr("fan/evil.wav", b"evil")
    before = outside(place)
    assert not attempt(buffer.getvalue(), place)
    assert outside(place) == before
    assert list(place.iterdir()) == []
