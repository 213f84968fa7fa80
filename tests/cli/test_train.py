"""``sk-asd train`` and model files."""

import json
import pickle
import re
import shutil
import warnings

import joblib
import pytest

from sk_asd.cli import main
from sk_asd.datasets import load_clips
from sk_asd.persistence import _models
from sk_asd.persistence._models import load_model


def test_training_says_what_it_did(run, folder, tmp_path):
    out_file = tmp_path / "model.skasd"
    status, out, err = run("train", folder, "--system", "pooling", "--out", out_file)
    assert status == 0
    assert out.startswith("pooling trained on 20 clips, 2 machines, 2 sections in ")
    assert out.endswith(f"{out_file}\n")
    assert "training pooling" in err
    assert [p.name for p in tmp_path.iterdir()] == ["model.skasd"]


def test_model_file_holds_a_pipeline_and_its_history(folder, model):
    header = _models.read_header(model)
    assert header["options"] == {"system": "pooling"}
    assert header["sections"] == {"fan": ["00"], "valve": ["00"]}
    assert header["versions"] == _models.versions()
    pipeline = load_model(model)[0]
    clips = load_clips(folder)
    scores = pipeline.score_samples(clips[clips["split"] == "test"])
    assert scores.shape == (24,)


def test_options_reach_the_pipeline(run, folder, tmp_path):
    out_file = tmp_path / "model.skasd"
    options = "--pooling mean+gwrp --r 0.5 --detector gmm --over domain --seed 3 --n-jobs 1"
    features = f"--n-fft 512 --hop-length 256 --n-mels 32 --cache-dir {tmp_path / 'cache'}"
    argv = [*options.split(), *features.split(), "--machine", "fan", "--quiet"]
    # A mixture of one component of the two target clips is all that can be fitted to them.
    status, out, err = run("train", folder, "--system", "pooling", "--out", out_file, *argv)
    assert (status, err) == (0, "")
    assert out.startswith("pooling trained on 10 clips, 1 machine, 1 section")
    pipeline = load_model(out_file)[0]
    feature, pooling, detector = (step for _, step in pipeline.steps)
    assert (feature.n_fft, feature.hop_length, feature.n_mels) == (512, 256, 32)
    assert (tuple(pooling.statistics), pooling.r) == (("mean", "gwrp"), 0.5)
    assert detector.over == "domain"
    assert type(detector.detector).__name__ == "GaussianMixtureDetector"
    assert detector.detector.random_state == 3
    assert list(tmp_path.glob("cache/*"))
    assert feature.cache_dir is None  # the model may be used elsewhere
    assert _models.read_header(out_file)["options"]["pooling"] == ["mean", "gwrp"]


def test_network_system(run, folder, tmp_path):
    out_file = tmp_path / "model.skasd"
    argv = "--feature logmel --n-mels 16 --n-fft 1024 --n-frames 8 --target machine vel --seed 0"
    argv += " --epochs 1 --no-subtract-mean --mixup 0.5"
    status, _, err = run(
        "train", folder, "--system", "sc", "--out", out_file, "--device", "cpu", *argv.split()
    )
    assert status == 0, err
    assert "train_loss" in err  # epochs are shown, but not among the results
    assert "\x1b" not in err  # and without colours where there is no terminal
    pipeline = load_model(out_file)[0]
    embedder = pipeline[1]
    assert (embedder.max_epochs, embedder.n_frames, embedder.random_state) == (1, 8, 0)
    assert embedder.target == ["machine", "vel"]
    assert (embedder.subtract_mean, embedder.mixup) == (False, 0.5)
    assert len(embedder.classes_) == 4
    assert (embedder.verbose, embedder.device) == (0, "auto")

    argv = ["score", out_file, folder, "--out", tmp_path / "s.csv", "--quiet", "--device"]
    status, out, err = run(*argv, "cpu")
    assert (status, err) == (0, "")
    assert out.startswith("24 clips scored")
    status, _, err = run(*argv, "nonsense")
    assert status == 2
    assert "--device nonsense: " in err


def test_multi_head_system(run, folder, tmp_path):
    out_file = tmp_path / "model.skasd"
    argv = "--epochs 1 --n-fft 256 --n-frames 8 --seed 0 --quiet"
    status, _, err = run("train", folder, "--system", "mhcr", "--out", out_file, *argv.split())
    assert (status, err) == (0, "")
    embedder = load_model(out_file)[0]["embedder"]
    assert embedder.heads_["machine"] == "classification"
    assert embedder.heads_["vel"] == "regression"
    status, _, err = run(
        *("train", folder, "--system", "mhcr", "--out", out_file, *argv.split()),
        *("--target", "section", "vel"),
    )
    assert (status, err) == (0, "")
    assert list(load_model(out_file)[0]["embedder"].heads_) == ["section", "vel"]


def test_wav2vec_system(run, folder, tmp_path):
    out_file = tmp_path / "model.skasd"
    argv = "--epochs 1 --n-frames 50 --seed 0 --quiet --target machine"
    status, _, err = run(
        "train", folder, "--system", "sc-wav2vec", "--out", out_file, *argv.split()
    )
    assert (status, err) == (0, "")
    pipeline = load_model(out_file)[0]
    assert type(pipeline["feature"]).__name__ == "Wav2Vec"
    argv = ["score", out_file, folder, "--out", tmp_path / "s.csv", "--quiet"]
    status, out, err = run(*argv)
    assert (status, err) == (0, "")
    assert out.startswith("24 clips scored")


@pytest.mark.parametrize(
    ("system", "argv", "name"),
    [
        ("wsp-nfcdee", "--n-mels 16", "WSPFlowDetector"),
        ("imdn", "--n-mels 16 --n-frames 9", "IMDNDetector"),
        ("aegan-ad", "--n-frames 16 --n-mels 16 --metric input_l1_max", "AEGANDetector"),
        ("ae", "--n-mels 16 --metric mahalanobis", "AutoEncoderDetector"),
        ("mobilenetv2", "--n-mels 16 --n-frames 16", "MobileNetV2Detector"),
    ],
)
def test_systems_with_a_network_per_machine(run, folder, tmp_path, system, argv, name):
    folder = shutil.copytree(folder, tmp_path / "data")
    for path in folder.rglob("*000[13579]_vel*"):
        path.rename(path.with_name(path.name.replace("section_00", "section_01")))
    out_file = tmp_path / "model.skasd"
    argv = f"--epochs 1 --n-fft 512 --seed 0 --quiet --device cpu {argv}".split()
    status, _, err = run("train", folder, "--system", system, "--out", out_file, *argv)
    assert (status, err) == (0, "")
    detectors = load_model(out_file)[0]["detector"].detectors_
    assert [type(d).__name__ for d in detectors.values()] == [name, name]
    assert {(d.device, d.verbose, d.n_epochs_) for d in detectors.values()} == {("auto", 0, 1)}
    scored = ["score", out_file, folder, "--out", tmp_path / "s.csv", "--quiet", "--device", "cpu"]
    status, out, err = run(*scored)
    assert (status, err) == (0, "")
    assert out.startswith("24 clips scored")


def test_one_classifier_for_machines_of_one_section(run, folder, tmp_path):
    out_file = tmp_path / "model.skasd"
    options = "--epochs 1 --n-fft 512 --n-mels 16 --n-frames 16 --seed 0 --quiet"
    argv = ["train", folder, "--system", "mobilenetv2", "--out", out_file, *options.split()]
    status, _, err = run(*argv)
    assert status == 2
    assert "Found 1 class" in err
    status, _, err = run(*argv, "--target", "machine", "section")
    assert (status, err) == (0, "")
    detector = load_model(out_file)[0]["detector"]
    assert detector.classes_ == [("fan", "00"), ("valve", "00")]
    assert detector.device == "auto"


@pytest.mark.parametrize(
    ("system", "argv", "message"),
    [
        ("pooling", ["--epochs", "3"], "--epochs applies to --system sc, .*, not to pooling"),
        ("pooling", ["--target", "joint"], "--target applies to --system sc"),
        ("pooling", ["--budget", "laptop"], "--budget applies to --system sc"),
        ("pooling", ["--device", "cpu"], "--device applies to --system sc"),
        ("pooling", ["--n-frames", "8"], "--n-frames applies to --system sc"),
        ("sc", ["--pooling", "mean"], "--pooling applies to --system pooling, not to sc"),
        ("sc", ["--r", "0.5"], "--r applies to --system pooling"),
        ("imdn", ["--detector", "knn"], "--detector applies to --system pooling, sc, mhcr, sc-w"),
        ("imdn", ["--mixup", "1"], "--mixup applies to --system sc, mhcr, sc-wav2vec, not to imdn"),
        ("pooling", ["--no-subtract-mean"], "--subtract-mean applies to --system sc"),
        ("ae", ["--budget", "report"], "--budget applies to --system .*, not to ae"),
        ("sc", ["--n-mels", "8"], "--n-mels applies to --feature logmel"),
        ("sc", ["--wav2vec", "small"], "--wav2vec applies to --system sc-wav2vec, not to sc"),
        ("sc-wav2vec", ["--n-fft", "512"], "--n-fft applies to .*, not to sc-wav2vec"),
        ("pooling", ["--pooling", "mean+std", "--r", "0.5"], r"not to mean\+std"),
        ("pooling", ["--machine", "pump"], "--machine pump: not in .*; found fan, valve"),
        ("pooling", ["--over", "colour"], "--over colour: no such column; found machine, section"),
        ("sc", ["--target", "vel", "colour"], "--target colour: no such column"),
        ("sc", ["--device", "nonsense"], "--device nonsense: "),
        ("pooling", ["--sr", "8000"], "sample rate 16000 Hz, expected sr=8000"),
    ],
)
def test_options_that_cannot_be(run, folder, tmp_path, system, argv, message):
    out_file = tmp_path / "model.skasd"
    status, out, err = run("train", folder, "--system", system, "--out", out_file, "--quiet", *argv)
    assert (status, out) == (2, "")
    assert err.startswith("sk-asd: error: ")
    assert err.count("\n") == 1
    assert re.search(message, err)
    assert not list(tmp_path.iterdir())


def test_anomalies_among_the_training_clips_are_left_out(run, folder, tmp_path):
    shutil.copytree(folder / "fan", tmp_path / "fan")
    odd = next((tmp_path / "fan" / "test").glob("*anomaly*"))
    odd.rename(tmp_path / "fan" / "train" / odd.name)
    argv = ["train", tmp_path, "--system", "pooling", "--out", tmp_path / "m", "--quiet"]
    status, out, err = run(*argv)
    assert status == 0
    assert out.startswith("pooling trained on 10 clips")
    assert "1 of 11 training clips are labelled as anomalies: left out" in err
    for path in (tmp_path / "fan" / "train").glob("*normal*"):
        path.unlink()
    status, _, err = run(*argv)
    assert status == 2
    assert "All 1 training clips are labelled as anomalies" in err


def test_output_is_checked_before_the_work(run, tmp_path):
    argv = ["train", tmp_path / "nowhere", "--system", "pooling", "--out"]
    status, _, err = run(*argv, tmp_path / "missing" / "model.skasd")
    assert status == 2
    assert "the folder" in err
    assert "missing does not exist" in err
    status, _, err = run(*argv, tmp_path)
    assert status == 2
    assert "is a folder, expected the name of a file" in err


def test_no_training_clips(run, folder, tmp_path):
    shutil.copytree(folder / "fan" / "test", tmp_path / "fan" / "test")
    status, _, err = run("train", tmp_path, "--system", "pooling", "--out", tmp_path / "m")
    assert status == 2
    assert "No clips of split train" in err
    assert "12 of split test" in err


@pytest.mark.parametrize(
    "content", [b"", b"path,score\n", pickle.dumps({"header": "{}"}), b"\x80\x04"]
)
def test_files_that_are_no_models(run, folder, tmp_path, content):
    path = tmp_path / "model.joblib"
    path.write_bytes(content)
    status, _, err = run("score", path, folder, "--out", tmp_path / "s.csv", "--quiet")
    assert status == 2
    assert err == f"sk-asd: error: {path} is no model file of `sk-asd train`.\n"


class Tripwire:
    """Unpickling this leaves a trace."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_foreign_pickles_are_refused_unopened(run, folder, tmp_path):
    joblib.dump({"pipeline": Tripwire(str(tmp_path / "trace"))}, tmp_path / "model.joblib")
    status, _, err = run("score", tmp_path / "model.joblib", folder, "--out", tmp_path / "s.csv")
    assert status == 2
    assert "is no model file" in err
    assert not (tmp_path / "trace").exists()


@pytest.fixture(scope="module")
def pickled(folder, tmp_path_factory):
    """Model file of the pooling system that is a pickle."""
    path = tmp_path_factory.mktemp("pickled") / "model.joblib"
    assert main(["train", str(folder), "--system", "pooling", "--out", str(path), "--quiet"]) == 0
    return path


def write_as_of(version, model, path, damaged=False):
    """Copy a model file as an earlier scikit-learn would have written it."""
    content = joblib.load(model)
    header = json.loads(content["header"])
    header["versions"]["scikit-learn"] = version
    pipeline = Broken() if damaged else content["pipeline"]
    joblib.dump({"header": json.dumps(header), "pipeline": pipeline}, path)


def broken():
    raise AttributeError("no such class")


class Broken:
    def __reduce__(self):
        return (broken, ())


def test_other_versions_are_named(run, folder, pickled, tmp_path):
    path = tmp_path / "old.joblib"
    write_as_of("0.1", pickled, path)
    argv = ["score", path, folder, "--out", tmp_path / "s.csv", "--quiet", "--trust"]
    status, _, err = run(*argv)
    assert status == 0
    here = _models.versions()["scikit-learn"]
    assert err == (
        f"sk-asd: warning: {path} was written with scikit-learn 0.1 (here {here}): its scores may "
        "differ. Train anew to be sure.\n"
    )
    write_as_of("0.1", pickled, path, damaged=True)
    status, _, err = run(*argv)
    assert status == 2
    assert f"it was written with scikit-learn 0.1 (here {here})" in err


def test_damaged_model(pickled, tmp_path):
    path = tmp_path / "model.joblib"
    path.write_bytes(pickled.read_bytes()[:2000])
    with pytest.raises(ValueError, match="the file is damaged"):
        _models.load_model(path)


def test_sound_model_loads_without_a_word(model, pickled, capsys):
    for path, kind in ((model, 2), (pickled, "sk_asd model 1")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pipeline, header = _models.load_model(path)
        assert header["format"] == kind
        assert hasattr(pipeline, "score_samples")
    assert capsys.readouterr().err == ""
