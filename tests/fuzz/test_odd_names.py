"""A thousand odd file names, links and loops: nothing is written but what was asked for."""

import io
import os
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sk_asd.cli import main
from sk_asd.datasets import check_clips, load_clips
from sk_asd.datasets._audio import write_audio
from sk_asd.metrics import read_submission
from sk_asd.metrics._score_file import read_scores

N_NAMES = 1000
SR = 16000
PIECES = [
    *("\n", "\r", "\r\n", "\t", "\x1b[31m", "\x7f", "\x01", "\u2028", "\x85", "\u202e", "\ufeff"),
    *(
        " ",
        "  ",
        "\u00a0",
        "e\u0301",
        "é",
        "ß",
        "İ",
        "ﬀ",
        "音",
        "🔊",
        "👩‍🔧",
        "٣",
        "²",
        "\U0010ffff",
    ),
    *(
        "..",
        ".",
        "...",
        "~",
        "-",
        "--",
        "-rf",
        "--help",
        "..\\..\\",
        "C:",
        "\\",
        "\\n",
        "%s",
        "%00",
    ),
    *(
        "{}",
        "{0}",
        "$(touch x)",
        "`x`",
        "$HOME",
        "*",
        "?",
        "[a]",
        "'",
        '"',
        ",",
        ";",
        "|",
        "&",
        "<",
    ),
    *("NA", "nan", "None", "null", "1e9", "0x1f", "=1+1", "@", "#", "!", "section_00", "id_0"),
    *("train", "test", "normal", "anomaly", "CON", "nul", ".wav", ".tmp_"),
]
# Bytes that are no text in UTF-8, as file systems of long ago have them.
NO_TEXT = [b"\xff", b"\xe9", b"\xc3", b"\xed\xa0\x80"]


def odd_name(rng, i):
    """A name without a slash, of at most 255 bytes, that no other number has."""
    pieces = rng.choice(len(PIECES), size=rng.integers(1, 6))
    stem = "".join(PIECES[j] for j in pieces)
    stem = (f"{stem}{i}", f"{i}{stem}")[rng.integers(2)]
    name = os.fsencode(stem)
    if rng.random() < 0.05:
        name += NO_TEXT[rng.integers(len(NO_TEXT))]
    if rng.random() < 0.05:
        name = (name * 255)[:240] + str(i).encode()
        name = os.fsencode(name.decode("utf-8", "ignore"))
    suffix = (b".wav", b".wav", b".wav", b".WAV", b".flac")[rng.integers(5)]
    name = name[: 255 - len(suffix)] + suffix
    return b"x" + name[:254] if name.startswith(b".") else name


@pytest.fixture
def plant(tmp_path, rng):
    """A plant's folder in the middle of other files; a thousand odd names in it."""
    root = tmp_path / "outer" / "data"
    time, names = np.arange(SR // 10) / SR, {}
    for i in range(N_NAMES):
        split, label = [("train", "normal"), ("test", "normal"), ("test", "anomaly")][i % 3]
        name = os.path.join(os.fsencode(root), b"fan", split.encode(), label.encode())
        os.makedirs(name, exist_ok=True)
        name = os.fsdecode(os.path.join(name, odd_name(rng, i)))
        y = 0.1 * np.sin(2 * np.pi * {"normal": 300, "anomaly": 3000}[label] * time)
        y += 0.01 * rng.normal(size=len(time))
        with open(name, "wb") as file:
            sf.write(file, y, SR, format="FLAC" if name.endswith(".flac") else "WAV")
        names[name] = split, label
    assert len(names) == N_NAMES
    (tmp_path / "outer" / "other").mkdir()
    write_audio(tmp_path / "outer" / "other" / "precious.wav", y[::-1], SR)
    (tmp_path / "outer" / "other" / "precious.csv").write_text("kept")
    return root, names


def below(folder):
    """All files below a folder, with their content and what links point to."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = os.path.join(place, name)
            content = os.readlink(path) if os.path.islink(path) else None
            if content is None and os.path.isfile(path):
                with open(path, "rb") as file:
                    content = file.read()
            found[path] = content
    return found


def test_odd_names_from_check_to_evaluation(plant, tmp_path, capsys, monkeypatch):
    root, names = plant
    before = below(tmp_path / "outer")
    monkeypatch.chdir(root)

    clips = load_clips(root)
    assert dict(zip(clips["path"], zip(clips["split"], clips["label"]))) == names
    assert check_clips(clips).empty

    # At another rate than expected, every recording is a finding: a line each, whatever the name.
    assert main(["check", str(root), "--sr", "8000", "--quiet"]) == 1
    text = capsys.readouterr().out
    assert len(text.split("\n")) == len(["head", *names, "", "sum", ""])
    assert all(character.isprintable() for character in text.replace("\n", ""))

    out = tmp_path / "out"
    out.mkdir()
    # What is printed holds the names of these, too.
    model, scores = (str(out / os.fsdecode(name)) for name in (b"m\xff.skasd", b"s\xff\x1b.csv"))
    system = ["--system", "pooling", "--n-fft", "256", "--n-mels", "8", "--detector", "knn"]
    assert main(["train", str(root), *system, "--out", model, "--quiet"]) == 0
    others = ["--dcase", str(out / "dcase"), "--cache-dir", str(out / "cache")]
    assert main(["score", model, str(root), "--out", scores, "--quiet", *others]) == 0
    table = read_scores(scores)
    tests = [os.path.relpath(name, root) for name in names if names[name][0] == "test"]
    assert sorted(table["path"]) == sorted(tests)
    assert main(["evaluate", scores, str(root), "--rules", "2020", "--quiet"]) == 0
    assert "100.00" in capsys.readouterr().out

    assert below(tmp_path / "outer") == before
    assert {path.name for path in tmp_path.iterdir()} == {"outer", "out"}
    written = {Path(model).name, Path(scores).name, "dcase", "cache"}
    assert {path.name for path in out.iterdir()} == written
    submitted = read_submission(out / "dcase", clips)["score"]
    found = table.set_index("path")["score"]
    paths = [os.path.relpath(path, root) for path in clips["path"][submitted.index]]
    np.testing.assert_array_equal(submitted, found[paths])


def test_links_and_pipes(plant, tmp_path, capsys):
    """Loops end, what is no file is said to be none, and files are found where links lead."""
    root, names = plant
    test = root / "fan" / "test" / "normal"
    (test / "self.wav").symlink_to("self.wav")
    (test / "nowhere.wav").symlink_to("/nonexistent/x.wav")
    (test / "folder.wav").symlink_to(tmp_path / "outer" / "other")
    (test / "null.wav").symlink_to(os.devnull)
    (test / "outside.wav").symlink_to(tmp_path / "outer" / "other" / "precious.wav")
    os.mkfifo(test / "pipe.wav")
    for k in range(3):  # loops through each other: paths without end
        (root / f"loop{k}").symlink_to(root)
        (test / f"up{k}").symlink_to(root / "fan")
    (root / "round").mkdir()
    (root / "round" / "about").symlink_to(root / "round")
    (root / "elsewhere").symlink_to(tmp_path / "outer" / "other")
    before = below(tmp_path / "outer")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clips = within(300, load_clips, root, on_unknown="warn")
    links = {path: Path(path).name for path in clips["path"] if path not in names}
    assert set(names) <= set(clips["path"])
    # Each file once for each way to it that is no circle.
    other = ["outside.wav", "precious.wav", "precious.wav"]
    expected = sorted(["nowhere.wav", "null.wav", "pipe.wav", "self.wav", *other])
    assert sorted(links.values()) == expected

    findings = within(300, check_clips, clips)
    unreadable = findings[findings["problem"] == "unreadable"]
    expected = ["nowhere.wav", "null.wav", "pipe.wav", "self.wav"]
    assert sorted(Path(path).name for path in unreadable["path"]) == expected
    for path, detail in zip(unreadable["path"], unreadable["detail"]):
        assert path in detail
    assert within(300, main, ["check", str(root), "--quiet"]) == 1
    # Nor is any of them replaced by what is written.
    for name in ("pipe.wav", "null.wav"):
        argv = ["train", str(root), "--system", "pooling", "--out", str(test / name)]
        assert within(300, main, argv) == 2
        assert "is a pipe or device, expected the name of a file" in capsys.readouterr().err
    assert below(tmp_path / "outer") == before


def within(seconds, function, *args, **kwargs):
    """Call a function that must not hang."""
    result = []
    thread = threading.Thread(target=lambda: result.append(function(*args, **kwargs)), daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"{function.__name__} hangs"
    return result[0]


def test_a_terminal_that_lacks_the_letters(plant, monkeypatch):
    root, names = plant
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert main(["check", str(root), "--sr", "8000", "--quiet"]) == 1
    assert len(shown.getvalue().split(b"\n")) == len(["head", *names, "", "sum", ""])
    assert sys.stdout.errors == "strict"


def test_machines_of_odd_names(tmp_path, rng, capsys, monkeypatch):
    """A whole run: its files are named after machines."""
    pytest.importorskip("jinja2")
    machines = ["<img src=x onerror=alert(1)>", "-rf\n%s{}ü🔊"]
    root = tmp_path / "data"
    time = np.arange(SR // 10) / SR
    for machine in machines:
        for split, label, hertz in (
            *(("train", "normal", 300),) * 4,
            *(("test", "normal", 300), ("test", "anomaly", 3000)) * 2,
        ):
            folder = root / machine / split
            folder.mkdir(parents=True, exist_ok=True)
            n = len(list(folder.iterdir()))
            y = 0.1 * np.sin(2 * np.pi * hertz * time) + 0.01 * rng.normal(size=len(time))
            write_audio(folder / f"section_00_source_{split}_{label}_{n:04d}.wav", y, SR)
    before = below(root)
    out = tmp_path / "run"
    argv = ["run", str(root), "--system", "pooling", "--n-fft", "256", "--n-mels", "8"]
    assert main([*argv, "--out", str(out), "--quiet"]) == 0
    assert below(root) == before
    assert {path.name for path in tmp_path.iterdir()} == {"data", "run"}
    models = {path.name for path in (out / "models" / "pooling").glob("*.skasd")}
    assert models == {f"{machine}.skasd" for machine in machines}
    report = (out / "report.html").read_text()
    assert machines[0] not in report
    assert "&lt;img src=x onerror=alert(1)&gt;" in report
    assert "\n-rf\\n%s{}ü🔊 " in capsys.readouterr().out
