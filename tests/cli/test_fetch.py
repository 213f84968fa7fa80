"""``sk-asd fetch``, from a folder that a local server serves as Zenodo does."""

import functools
import hashlib
import json
import subprocess
import sys
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

NAMES = ["train/section_00_source_train_normal_0000_x_1.wav", "test/section_00_target_test.csv"]
NAMES += [f"test/section_00_target_test_anomaly_{i:04d}_x_2.wav" for i in range(3)]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Address of a mirror that has the development data of one fan."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    root = tmp_path / "mirror"
    archive = root / "records" / "6355122" / "files" / "dev_fan.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as zipped:
        for name in NAMES:
            zipped.writestr(f"fan/{name}", name)
    record = root / "api" / "records" / "6355122"
    record.parent.mkdir(parents=True)
    checksum = f"md5:{hashlib.md5(archive.read_bytes()).hexdigest()}"
    files = [{"key": "dev_fan.zip", "checksum": checksum}]
    record.write_text(json.dumps({"metadata": {"license": {"id": "cc-by-4.0"}}, "files": files}))
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_fetch_and_look(run, mirror, tmp_path):
    home = tmp_path / "home"
    argv = ["fetch", 2022, "--machine", "fan", "--data-home", home, "--base-url", mirror]
    status, out, err = run(*argv)
    assert status == 0, err
    assert out == (
        f"dev_fan.zip: licence cc-by-4.0\n4 clips, 1 machine, 1 section: {home / 'dcase2022'}\n"
    )
    assert f"fetching into {home / 'dcase2022'}" in err
    assert "conditions of use: https://zenodo.org/records/6355122" in err

    # Again, from what is there; nobody answers at that address.
    argv[-1] = "http://127.0.0.1:9"
    assert run(*argv, "--quiet") == (0, out, "")

    status, listed, _ = run("fetch", 2022, "--list", "--data-home", home)
    rows = [line.split() for line in listed.splitlines()]
    assert rows[0] == ["year", "machine", "dev", "train", "eval"]
    assert ["2022", "fan", "here", "yes", "yes"] in rows
    assert ["2022", "valve", "yes", "yes", "yes"] in rows
    assert len(rows) == 1 + 7

    # What it leaves is what the other commands read.
    status, out, _ = run("check", home / "dcase2022", "--quiet")
    assert status == 1  # these are no sounds
    assert "dev_data/fan/test/section_00_target_test_anomaly_0000_x_2.wav" in out


def test_list_of_all_years(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SK_ASD_DATA_HOME", str(tmp_path))
    status, out, err = run("fetch", "--list")
    assert (status, err) == (0, "")
    rows = [line.split() for line in out.splitlines()[1:]]
    assert ["2020", "ToyConveyor", "yes", "yes", "yes"] in rows
    assert ["2023", "fan", "yes", "-", "-"] in rows
    assert ["2025", "ToyPet", "-", "yes", "yes"] in rows
    assert sorted({row[0] for row in rows}) == ["2020", "2021", "2022", "2023", "2024", "2025"]
    _, out, _ = run("fetch", "--list", "--machine", "ToyConveyor", "Vacuum")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        ["2020", "ToyConveyor"],
        ["2023", "Vacuum"],
    ]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "fetch needs a YEAR, or --list"),
        (["2022"], "--machine is missing: all, or some of ToyCar, ToyTrain, bearing, fan"),
        (["2023"], "valve, ToyDrone, ToyNscale"),
        (["2019"], "No archives of DCASE Task 2 of year 2019; there are those of 2020"),
        (["2022", "--machine", "fann"], "No archive of machine 'fann'"),
        (["--list", "--machine", "fann"], "Nothing of fann; --list alone shows"),
        (["2022", "--machine", "fan", "--subset", "test"], "invalid choice: 'test'"),
        (["twenty", "--machine", "fan"], "invalid int value: 'twenty'"),
    ],
)
def test_wrong_usage(run, tmp_path, monkeypatch, argv, message):
    monkeypatch.setenv("SK_ASD_DATA_HOME", str(tmp_path))
    status, out, err = run("fetch", *argv)
    assert (status, out) == (2, "")
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_missing_archive_is_one_line(run, mirror, tmp_path):
    argv = ["--data-home", tmp_path / "home", "--base-url", mirror, "--quiet"]
    status, out, err = run("fetch", 2022, "--machine", "valve", *argv)
    assert (status, out) == (2, "")
    assert err.startswith("sk-asd: error: ")
    assert err.count("\n") == 1
    assert "no checksum of dev_valve.zip; it lists dev_fan.zip" in err


def test_help_loads_nothing_heavy():
    code = (
        "from sk_asd.cli import main\ntry: main(['fetch', '--help'])\nexcept SystemExit: pass\n"
        "import sys\nheavy = {'torch', 'sklearn', 'pandas', 'numpy', 'pooch', 'requests'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "--subset" in done.stdout
