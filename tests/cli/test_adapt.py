"""``sk-asd adapt``."""

import hashlib
from datetime import datetime

import numpy as np
import pytest

from sk_asd.datasets import load_clips
from sk_asd.datasets._audio import write_audio
from sk_asd.persistence._models import load_model, read_header

SR = 16000


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """Five clips of the fan at another speed, and five of a section that is new."""
    root = tmp_path_factory.mktemp("new")
    rng = np.random.default_rng(1)
    time = np.arange(SR) / SR
    for section, note in (("00", 700), ("01", 900)):
        for i in range(5):
            y = 0.1 * np.sin(2 * np.pi * note * time) + 0.01 * rng.normal(size=SR)
            name = f"section_{section}_source_train_normal_{i:04d}_vel_5.wav"
            write_audio(root / "fan" / "train" / name, y, SR)
    return root


@pytest.mark.parametrize("suffix", ["joblib", "skasd"])
def test_scores_and_header(run, folder, model, new, tmp_path, suffix):
    before = hashlib.sha256(model.read_bytes()).hexdigest()
    out = tmp_path / f"new.{suffix}"
    options = ["--new", "fan/01", "--cache-dir", tmp_path / "cache", "--n-jobs", "1"]
    status, text, err = run("adapt", model, new, "--out", out, *options, "--quiet")
    assert (status, err) == (0, "")
    assert text == f"10 clips, 1 machine, 2 sections learnt: {out}\n"
    assert hashlib.sha256(model.read_bytes()).hexdigest() == before

    old, header = load_model(model)
    adapted, now = load_model(out)
    clips = load_clips(new)
    known = clips[clips["section"] == "00"]
    assert (old.predict(known) == -1).all()
    assert adapted.score_samples(known).mean() > old.score_samples(known).mean()
    assert (adapted.predict(clips[clips["section"] == "01"]) == 1).any()
    assert adapted[-1].training_scores_.size == old[-1].training_scores_.size + 10
    anomalies = load_clips(folder)
    anomalies = anomalies[anomalies["label"] == "anomaly"]
    assert (adapted.predict(anomalies) == -1).all()

    assert now["options"] == header["options"]
    assert now["sections"] == {"fan": ["00", "01"], "valve": ["00"]}
    (entry,) = now["adapted"]
    assert entry["clips"] == 10
    assert entry["sections"] == {"fan": ["00", "01"]}
    assert abs((datetime.now().astimezone() - datetime.fromisoformat(entry["date"])).days) <= 1
    # What was set for this run does not travel.
    assert adapted["feature"].cache_dir is None
    assert adapted["feature"].n_jobs == old["feature"].n_jobs


def test_again_in_place(run, folder, model, new, tmp_path):
    out = tmp_path / "model.skasd"
    out.write_bytes(model.read_bytes())
    assert run("adapt", out, new, "--out", out, "--new", "fan/01", "--quiet")[0] == 0
    status, _, err = run("adapt", out, new, "--out", out, "--quiet")
    assert status == 2
    assert "clips are known already, the first " in err
    assert str(new / "fan" / "train") in err
    assert run("adapt", out, new, "--out", out, "--scores-only", "all", "--quiet")[0] == 0
    entries = read_header(out)["adapted"]
    assert [entry["scores_only"] for entry in entries] == [False, True]
    assert load_model(out)[0][-1].training_scores_.size == 40


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "Group machine='fan', section='01' was not seen in training"),
        (["--new", "fan/02", "fan/01"], "new=[('fan', '02')]: there are no clips"),
        (["--new", "/01"], "expected MACHINE/SECTION, found '/01'"),
        (["--machine", "pump"], "--machine pump: not in"),
        (["--device", "cpu"], "the model has no network"),
        (["--out", "nowhere/x.skasd"], "the folder nowhere does not exist"),
    ],
)
def test_wrong_input(run, model, new, tmp_path, argv, message):
    out = tmp_path / "new.skasd"
    status, _, err = run("adapt", model, new, "--out", out, "--quiet", *argv)
    assert status == 2
    assert message in err
    assert not out.exists()


def test_anomalies_are_refused(run, folder, model, tmp_path):
    status, _, err = run("adapt", model, folder, "--out", tmp_path / "new.skasd", "--quiet")
    assert status == 2
    assert "12 of 44 recordings" in err
    assert "only normal ones can be learnt. Use --split train, or another folder." in err


def test_a_network_stays(run, folder, new, tmp_path):
    model, out = tmp_path / "model.skasd", tmp_path / "new.skasd"
    fit = ["--system", "sc", "--epochs", "1", "--n-frames", "16", "--n-fft", "256"]
    fit += ["--machine", "fan", "--seed", "0"]
    assert run("train", folder, "--out", model, *fit, "--quiet")[0] == 0
    options = ["--new", "fan/01", "--device", "cpu", "--quiet"]
    assert run("adapt", model, new, "--out", out, *options)[0] == 0
    before, after = (load_model(path)[0] for path in (model, out))
    networks = [p["embedder"].net_.module_.state_dict() for p in (before, after)]
    assert all((networks[1][name] == weight).all() for name, weight in networks[0].items())
    assert after["embedder"].device == before["embedder"].device
    assert len(after[-1].detectors_) == len(before[-1].detectors_) + 1
