"""Fetching from a local server that misbehaves as real ones do."""

import hashlib
import json
import re
import shutil
import stat
import zipfile
from collections import namedtuple
from pathlib import Path

import pandas as pd
import pytest
from zenodo import DEV, DEV_FILES, EVAL, EVAL_FILES, LICENCE, NOISE, TRAIN, TRAIN_FILES, archive_of

from sk_asd.datasets import _download, load_clips
from sk_asd.datasets._archives import SUBSETS, find_archives, machines_of, years
from sk_asd.datasets._download import naming_folder


def names(clips):
    return {Path(path).name for path in clips["path"]}


def files_below(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_development_data(fetch, zenodo, tmp_path, capsys):
    clips = fetch()
    home = tmp_path / "dcase2022"
    assert files_below(home) == {f"dev_data/{n}" for n in DEV_FILES} | {"dev_data/fan/dev_fan.json"}
    assert (home / "dev_data" / next(iter(DEV_FILES))).read_bytes() == NOISE
    pd.testing.assert_frame_equal(clips, load_clips(home / "dev_data" / "fan"))
    assert clips["m-n"].tolist() == ["W", "X", "W", "X"]
    # The licence: returned, printed and kept beside the data.
    assert clips.attrs["licences"] == {"dev_fan.zip": LICENCE}
    assert f"dev_fan.zip: licence {LICENCE}" in capsys.readouterr().out
    source = json.loads((home / "dev_data" / "fan" / "dev_fan.json").read_text())
    assert source["licence"] == LICENCE
    assert source["checksum"] == zenodo.checksums[DEV]
    assert source["record"] == "https://zenodo.org/records/6355122"


def test_what_is_there_is_not_downloaded_again(fetch, zenodo, capsys):
    first = fetch()
    zenodo.log.clear()
    capsys.readouterr()
    again = fetch()
    assert zenodo.log == []
    pd.testing.assert_frame_equal(first, again)
    assert again.attrs["licences"] == {"dev_fan.zip": LICENCE}
    assert LICENCE in capsys.readouterr().out
    fetch(verbose=False)
    assert capsys.readouterr() == ("", "")


def test_three_subsets_in_one_folder_stay_apart(fetch, zenodo, tmp_path):
    everything = fetch("all")
    assert names(everything) == {
        n.split("/")[-1] for n in (*DEV_FILES, *TRAIN_FILES, *EVAL_FILES) if n.endswith(".wav")
    }
    assert set(everything.attrs["licences"]) == {p.rsplit("/", 1)[-1] for p in (DEV, TRAIN, EVAL)}
    zenodo.log.clear()
    train, test = fetch("train"), fetch("eval")
    assert zenodo.log == []
    assert names(train) == {"section_03_source_train_normal_0000_vel_1.wav"}
    assert names(test) == {"section_03_0000.wav", "section_03_0001.wav"}
    # An attribute that only the training clips have neither makes a column here nor a float there.
    assert train["vel"].tolist() == [1]
    assert train["vel"].dtype == "int64"
    assert "vel" not in test
    assert set(test["split"]) == {"test"}
    assert test["label"].isna().all()
    folders = {p.parent.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.wav")}
    assert folders == {
        f"dcase2022/{part}/fan/{split}"
        for part in ("dev_data", "eval_data")
        for split in ("train", "test")
    }


def test_training_data_come_to_evaluation_data(fetch):
    fetch("eval")
    assert names(fetch("train")) == {"section_03_source_train_normal_0000_vel_1.wav"}


def test_ground_truth_is_joined(fetch, tmp_path):
    table = tmp_path / "ground_truth_fan_section_03_test.csv"
    table.write_text("section_03_0000.wav,0\nsection_03_0001.wav,1\n")
    assert fetch("eval", ground_truth=table)["label"].tolist() == ["normal", "anomaly"]


def test_domains_have_folders_in_2021(fetch, zenodo):
    wav = "fan/source_test/section_03_source_test_0000.wav"
    path = "records/4884786/files/eval_data_fan_test.zip"
    zenodo.put(path, archive_of({wav: b"x"}))
    with pytest.raises(ValueError, match=r"fan/source_test and fan/target_test; its folders are"):
        fetch("eval", year=2021)
    zenodo.put(path, archive_of({wav: b"x", wav.replace("source", "target"): b"y"}))
    assert fetch("eval", year=2021)["domain"].tolist() == ["source", "target"]


def test_data_put_there_by_hand_are_taken(fetch, zenodo, tmp_path):
    for name, content in DEV_FILES.items():
        path = tmp_path / "dcase2022" / "dev_data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    clips = fetch()
    assert zenodo.log == []
    assert len(clips) == 4
    assert clips.attrs["licences"] == {"dev_fan.zip": "not recorded"}


def test_an_archive_put_there_by_hand_is_unpacked(fetch, zenodo, tmp_path):
    downloads = tmp_path / "dcase2022" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / "dev_fan.zip").write_bytes(zenodo.files[DEV])
    assert len(fetch()) == 4
    assert zenodo.count(DEV) == 0
    assert not downloads.exists()


def test_files_of_others_are_left_as_they_are(fetch, tmp_path):
    folder = tmp_path / "dcase2022" / "dev_data" / "fan"
    own = folder / "train" / "section_00_source_train_normal_0000_m-n_W.wav"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"own")
    assert len(fetch()) == 3  # own training clip, fetched test clips
    assert own.read_bytes() == b"own"
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    (folder / "train" / "notes.txt").write_text("own")
    with pytest.raises(OSError, match="without recordings; move it away"):
        fetch()
    assert (folder / "train" / "notes.txt").read_text() == "own"


def test_stopped_between_two_folders(fetch, zenodo, tmp_path):
    fetch()
    shutil.rmtree(tmp_path / "dcase2022" / "dev_data" / "fan" / "train")
    assert len(fetch()) == 4
    assert zenodo.count(DEV) == 2


def test_killed_while_unpacking(fetch, tmp_path):
    home = tmp_path / "dcase2022"
    half = home / "downloads" / ".dev_fan" / "fan" / "train"
    half.mkdir(parents=True)
    (half / "section_00_source_train_normal_0009.wav").write_bytes(b"half")
    assert len(fetch()) == 4
    assert not (home / "downloads").exists()


def test_not_there_and_not_to_be_downloaded(fetch, zenodo):
    with pytest.raises(FileNotFoundError, match=r"Not in .*dcase2022: the data of dev_fan\.zip"):
        fetch(download_if_missing=False)
    assert zenodo.log == []


@pytest.mark.parametrize("source", ["argument", "environment", "default"])
def test_data_home(fetch, tmp_path, monkeypatch, source):
    home = tmp_path / "home"
    monkeypatch.delenv("SK_ASD_DATA_HOME", raising=False)
    if source == "environment":
        monkeypatch.setenv("SK_ASD_DATA_HOME", str(home))
    elif source == "default":
        monkeypatch.setattr("pooch.os_cache", lambda project: home)
    clips = fetch(data_home=str(home) if source == "argument" else None)
    assert Path(clips["path"][0]).parents[3] == home / "dcase2022"


# Bad lines


def test_broken_line_is_resumed(fetch, zenodo):
    zenodo.plan[DEV] = ["cut 70000", "cut 70000"]
    assert len(fetch(n_retries=1)) == 4  # every piece is progress
    first, second, third = zenodo.ranges(DEV)
    assert first is None
    assert second == "bytes=65536-"  # whole pieces of 64 KiB
    assert third == "bytes=131072-"


def test_broken_line_is_resumed_by_the_next_call(fetch, zenodo, tmp_path):
    zenodo.plan[DEV] = ["cut 70000"]
    with pytest.raises(ConnectionError, match=r"dev_fan\.zip.*65,536 bytes are kept; run again"):
        fetch(n_retries=0)
    part = tmp_path / "dcase2022" / "downloads" / "dev_fan.zip.part"
    assert part.read_bytes() == zenodo.files[DEV][:65536]
    assert not (tmp_path / "dcase2022" / "dev_data").exists()
    assert len(fetch()) == 4
    assert zenodo.ranges(DEV) == [None, "bytes=65536-"]


def test_server_without_ranges_starts_anew(fetch, zenodo):
    zenodo.plan[DEV] = ["cut 70000", "no ranges"]
    assert len(fetch()) == 4
    assert zenodo.ranges(DEV) == [None, "bytes=65536-"]


def test_complete_part_needs_nothing_more(fetch, zenodo, tmp_path):
    downloads = tmp_path / "dcase2022" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / "dev_fan.zip.part").write_bytes(zenodo.files[DEV])
    assert len(fetch(n_retries=0)) == 4
    assert zenodo.count(DEV) == 1


def test_part_longer_than_the_file_is_dropped(fetch, zenodo, tmp_path):
    downloads = tmp_path / "dcase2022" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / "dev_fan.zip.part").write_bytes(b"x" * (len(zenodo.files[DEV]) + 1))
    assert len(fetch()) == 4
    assert zenodo.ranges(DEV)[-1] is None


def test_truncated_on_the_server(fetch, zenodo):
    zenodo.plan[DEV] = ["cut 70000"] + ["cut 0"] * 9
    with pytest.raises(ConnectionError, match="65,536 bytes are kept"):
        fetch(n_retries=2)
    assert zenodo.count(DEV) == 3  # the second is the first without progress


def test_failing_server_is_asked_again(fetch, zenodo, monkeypatch):
    waits = []
    monkeypatch.setattr(_download.time, "sleep", waits.append)
    zenodo.plan[DEV] = ["500", "503", "429"]
    zenodo.plan["api/records/6355122"] = ["502"]
    assert len(fetch(delay=0.5)) == 4
    assert waits == [0.5, 0.5, 1.0, 7]  # doubled; the last as the server asked


def test_failing_server(fetch, zenodo):
    zenodo.plan[DEV] = ["500"] * 9
    with pytest.raises(ConnectionError, match=r"Cannot get .*dev_fan\.zip.*: HTTP 500"):
        fetch(n_retries=2)
    assert zenodo.count(DEV) == 3


def test_missing_on_the_server(fetch, zenodo):
    zenodo.plan[DEV] = ["404"]
    with pytest.raises(FileNotFoundError, match=r"dev_fan\.zip.*HTTP 404.*moved or withdrawn"):
        fetch()
    assert zenodo.count(DEV) == 1


def test_refused_by_the_server(fetch, zenodo):
    zenodo.plan[DEV] = ["403"]
    with pytest.raises(OSError, match=r"HTTP 403 Forbidden\. The server refuses"):
        fetch()
    assert zenodo.count(DEV) == 1


def test_no_network(fetch):
    url = "http://127.0.0.1:9"  # the port of nobody
    with pytest.raises(ConnectionError, match=f"Cannot get {url}/api/records/6355122"):
        fetch(base_url=url, n_retries=1)


@pytest.mark.parametrize("answer", ["<html>", "[]"])
def test_page_instead_of_a_record(fetch, zenodo, answer):
    zenodo.plan["api/records/6355122"] = [f"say {answer}"]
    with pytest.raises(OSError, match=r"api/records/6355122 is no JSON object"):
        fetch()


# Checksums


def test_wrong_checksum(fetch, zenodo, tmp_path):
    zenodo.checksums[DEV] = "md5:" + "0" * 32
    with pytest.raises(ValueError, match=r"(?s)dev_fan\.zip.*does not match.*Deleted"):
        fetch()
    assert files_below(tmp_path) == set()
    zenodo.put(DEV, zenodo.files[DEV])
    assert len(fetch()) == 4


def test_record_without_the_archive(fetch, zenodo):
    del zenodo.checksums[DEV]
    zenodo.checksums["records/6355122/files/other.zip"] = "md5:0"
    with pytest.raises(ValueError, match=r"no checksum of dev_fan\.zip; it lists other\.zip"):
        fetch()


def test_pinned_checksum_is_worth_more_than_the_record(fetch, zenodo):
    path = "records/3678171/files/dev_data_fan.zip"
    zenodo.put(path, archive_of({"fan/train/normal_id_00_00000000.wav": b"forged"}))
    with pytest.raises(ValueError, match="649bdfc06263ae7a838963f43b6641e6"):
        fetch(year=2020)


def test_pinned_archive_needs_no_record(fetch, zenodo, monkeypatch):
    files = {
        "fan/train/normal_id_00_00000000.wav": b"x",
        "fan/test/anomaly_id_00_00000000.wav": b"y",
    }
    content = archive_of(files)
    zenodo.put("records/3678171/files/dev_data_fan.zip", content)
    zenodo.plan["api/records/3678171"] = ["500"] * 9
    (archive,) = find_archives(2020, "fan", "dev")
    archive = archive._replace(md5=hashlib.md5(content).hexdigest())
    monkeypatch.setattr("sk_asd.datasets._fetch.find_archives", lambda *args: [archive])
    clips = fetch(year=2020)
    assert clips["label"].tolist() == ["anomaly", "normal"]
    assert clips.attrs["licences"] == {"dev_data_fan.zip": "CC BY-NC-SA 4.0"}


# Archives


def member(name, kind=stat.S_IFREG, **attributes):
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # as it is: the constructor would tidy it up
    info.external_attr = (kind | 0o644) << 16
    for key, value in attributes.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    ("evil", "fault"),
    [
        (member("../evil.wav"), "climbs out"),
        (member("fan/train/../../../evil.wav"), "climbs out"),
        (member("fan\\..\\..\\evil.wav"), "climbs out"),
        (member("/tmp/evil.wav"), "absolute"),
        (member("\\evil.wav"), "absolute"),
        (member("C:\\evil.wav"), "absolute"),
        (member("fan/evil.wav", stat.S_IFLNK), "link"),
        (member("fan/evil.wav", stat.S_IFIFO), "neither file nor folder"),
        (member("fan/train/a\0.wav"), "no proper name"),
    ],
    ids=lambda value: value.filename if isinstance(value, zipfile.ZipInfo) else "",
)
def test_unsafe_archive_is_refused_before_anything_is_written(
    fetch, zenodo, tmp_path, monkeypatch, evil, fault
):
    zenodo.put(DEV, archive_of({**DEV_FILES, evil: b"/etc/passwd"}))
    written = []
    monkeypatch.setattr(zipfile.ZipFile, "extractall", lambda *args: written.append(args))
    home = tmp_path / "deep" / "down" / "home"
    with pytest.raises(ValueError, match=rf"dev_fan\.zip is not unpacked: its member .* {fault}"):
        fetch(data_home=home)
    assert written == []
    assert files_below(tmp_path) == {"deep/down/home/dcase2022/downloads/dev_fan.zip"}


def test_encrypted_archive(fetch, zenodo):
    content = bytearray(archive_of(DEV_FILES))
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag in the directory at the end
    zenodo.put(DEV, bytes(content))
    with pytest.raises(ValueError, match="is encrypted"):
        fetch()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-30],
        lambda content: b"<html>" + content[6:50],
        lambda content: content.replace(NOISE, NOISE[:-1] + bytes([NOISE[-1] ^ 1])),
    ],
    ids=["truncated", "no archive", "flipped bit"],
)
def test_broken_archive_is_deleted_and_named(fetch, zenodo, tmp_path, spoil):
    good = zenodo.files[DEV]
    zenodo.put(DEV, spoil(good))  # with the right checksum of the wrong file
    with pytest.raises(ValueError, match=r"dev_fan\.zip is broken and was deleted"):
        fetch()
    assert files_below(tmp_path) == set()
    zenodo.put(DEV, good)
    assert len(fetch()) == 4


def test_archive_of_something_else(fetch, zenodo, tmp_path):
    zenodo.put(DEV, archive_of({"pump/train/section_00_source_train_normal_0000.wav": b"x"}))
    with pytest.raises(ValueError, match=r"fan/train and fan/test; its folders are pump, pump/tr"):
        fetch()
    assert not (tmp_path / "dcase2022" / "dev_data").exists()


@pytest.mark.parametrize("prefix", ["data/2022/", ""], ids=["deeper", "flat"])
def test_other_folders_around_the_machine(fetch, zenodo, tmp_path, prefix):
    old = "fan/" if not prefix else ""
    files = {prefix + name.removeprefix(old): content for name, content in DEV_FILES.items()}
    zenodo.put(DEV, archive_of(files))
    fetch()
    assert files_below(tmp_path / "dcase2022" / "dev_data") > set(DEV_FILES)


def test_unknown_names_are_kept_with_a_warning(fetch, zenodo):
    zenodo.put(EVAL, archive_of({**EVAL_FILES, "fan/test/strange.wav": b"x"}))
    with pytest.warns(UserWarning, match=r"1 recordings fit no known layout.*strange\.wav"):
        clips = fetch("eval")
    assert len(clips) == 3


# Disk


def test_too_little_space_for_the_download(fetch, zenodo, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**6, 10**6 - 5000, 5000))
    needed = f"{2 * len(zenodo.files[DEV]):,}"
    message = rf"Too little space.*dev_fan\.zip.*: {needed} bytes needed, 5,000 free.*downloads"
    with pytest.raises(OSError, match=message):
        fetch()
    assert files_below(tmp_path) == set()


def test_too_little_space_to_unpack(fetch, zenodo, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    free = iter([10**9, 5000])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 0, next(free)))
    needed = f"{sum(map(len, DEV_FILES.values())):,}"
    with pytest.raises(OSError, match=rf"dev_fan\.zip: {needed} bytes needed, 5,000 free"):
        fetch()
    # The archive waits for space.
    assert files_below(tmp_path) == {"dcase2022/downloads/dev_fan.zip"}
    monkeypatch.undo()
    assert len(fetch()) == 4
    assert zenodo.count(DEV) == 1


def test_disk_that_fills_up_meanwhile(tmp_path):
    with (
        pytest.raises(OSError, match=rf"No space left on device \([\d,]+ bytes free\).*{tmp_path}"),
        naming_folder(tmp_path),
    ):
        raise OSError(_download.errno.ENOSPC, "No space left on device")


def test_folder_that_cannot_be_made(fetch, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        fetch(data_home=tmp_path / "file")


# What there is


def test_unknown_year(fetch):
    with pytest.raises(ValueError, match=r"of year 2019; there are those of 2020, 2021, .*2025"):
        fetch(year=2019)


def test_unknown_machine(fetch):
    with pytest.raises(ValueError, match=r"machine 'fann'.*dev: ToyCar, .*valve; train: "):
        fetch(machine="fann")
    with pytest.raises(ValueError, match=r"'fan', subset 'eval', in DCASE 2023.*eval: .*bandsaw"):
        fetch("eval", year=2023)
    with pytest.raises(ValueError, match="machine is empty"):
        fetch(machine=[])


def test_unknown_subset(fetch):
    with pytest.raises(ValueError, match="subset must be dev, train, eval or all, got 'test'"):
        fetch("test")


def test_archives_of_all_years():
    """Figures counted in the organisers' download lists."""
    archives = [a for year in years() for a in find_archives(year, "all", "all")]
    assert len(archives) == 3 * (6 + 7 + 7 + 7) + 7 + 2 * 9 + 7 + 2 * 8
    assert len({(a.record, a.name) for a in archives}) == len(archives)
    assert len({a.record for a in archives}) == 3 * len(years())
    for archive in archives:
        assert archive.machine in archive.name
        assert archive.machine in machines_of(archive.year, archive.subset)
        assert (archive.md5 is not None) == (archive.year in (2020, 2023))
    md5 = [a.md5 for a in archives if a.md5]
    assert len(set(md5)) == len(md5) == 18 + 21
    assert all(re.fullmatch("[0-9a-f]{32}", value) for value in md5)
    assert {a.name for a in archives if a.name.endswith("_r2.zip")} == {
        "eval_data_3DPrinter_train_r2.zip",
        "eval_data_RoboticArm_train_r2.zip",
    }


def test_all_subsets_that_there_are():
    assert [a.subset for a in find_archives(2022, "fan", "all")] == list(SUBSETS)
    assert [a.subset for a in find_archives(2023, "fan", "all")] == ["dev"]
    assert [a.subset for a in find_archives(2023, "Vacuum", "all")] == ["train", "eval"]
    assert len(find_archives(2022, ["fan", "valve", "fan"], "dev")) == 2
