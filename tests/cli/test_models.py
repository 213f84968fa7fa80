"""Model files of the command line."""

import json
import os
from pathlib import Path

import joblib
import pytest
from safetensors import safe_open

import sk_asd
from sk_asd import _versions
from sk_asd.cli import main
from sk_asd.cli._models import check_model
from sk_asd.datasets import make_machine_sounds
from sk_asd.detectors import KNNDetector
from sk_asd.persistence._models import load_model, read_header


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_machine_sounds("fan", n_train=6, n_test=4, duration=1.0, root=root, random_state=0)
    return str(root / "dev_data")


def test_both_kinds_of_model(tmp_path, data, capsys):
    scores = {}
    for suffix in ("joblib", "skasd"):
        model, out = str(tmp_path / f"m.{suffix}"), str(tmp_path / f"{suffix}.csv")
        train = ["train", data, "--system", "pooling", "--r", "0.8", "--out", model, "--quiet"]
        assert main(train) == 0
        capsys.readouterr()
        assert main(["score", model, data, "--out", out, "--quiet"]) == 0
        said = capsys.readouterr().err
        assert ("m.joblib is a pickle: loading it can run code" in said) == (suffix == "joblib")
        scores[suffix] = Path(out).read_text()
    assert scores["joblib"] == scores["skasd"]
    joblib_model = str(tmp_path / "m.joblib")
    assert main(["score", joblib_model, data, "--out", out, "--quiet", "--trust"]) == 0
    assert capsys.readouterr().err == ""
    with safe_open(tmp_path / "m.skasd", "numpy") as file:
        header = json.loads(file.metadata()["sk_asd"])
    assert header["options"] == {"system": "pooling", "r": 0.8}
    assert header["sections"] == {"fan": ["00"]}
    assert header["estimator"]["steps"]["feature"] == "LogMel"


def test_names_without_a_suffix_are_safe(tmp_path, data):
    model = tmp_path / "model"
    main(["train", data, "--system", "pooling", "--out", str(model), "--quiet"])
    assert type(sk_asd.load(model)).__name__ == "Pipeline"
    assert read_header(model)["options"] == {"system": "pooling"}


def test_models_of_save(tmp_path, data, capsys):
    """They know nothing of options and sections, and will do."""
    model, bare, out = (str(tmp_path / name) for name in ("m.skasd", "bare.skasd", "s.csv"))
    main(["train", data, "--system", "pooling", "--out", model, "--quiet"])
    sk_asd.save(sk_asd.load(model), bare)
    assert main(["score", bare, data, "--out", out, "--quiet"]) == 0
    Path(model).write_bytes(Path(model).read_bytes()[:500])
    capsys.readouterr()
    assert main(["score", model, data, "--out", out, "--quiet"]) == 2
    assert "or is truncated (500 bytes)" in capsys.readouterr().err


class Bomb:
    """Unpickling this leaves a trace."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


@pytest.mark.parametrize("name", ["model.skasd", "model", "model.bin"])
def test_a_pickle_with_another_name_is_not_loaded(name, tmp_path, capsys):
    header = {"format": "sk_asd model 1", "versions": _versions.versions()}
    header |= {"options": {}, "sections": {}}
    file, bomb = tmp_path / name, Bomb(tmp_path / "trace")
    joblib.dump({"header": json.dumps(header), "pipeline": bomb}, file)
    command = ["score", str(file), str(tmp_path), "--out", str(tmp_path / "x.csv"), "--quiet"]
    assert main(command) == 2
    assert "it seems to be a pickle" in capsys.readouterr().err
    with pytest.raises(ValueError, match="it seems to be a pickle"):
        load_model(file)
    assert not (tmp_path / "trace").exists()
    load_model(file.rename(tmp_path / "model.joblib"))  # it would have gone off
    assert (tmp_path / "trace").exists()


def test_a_safe_file_with_the_name_of_a_pickle(tmp_path, capsys):
    file = tmp_path / "model.joblib"
    sk_asd.save(KNNDetector(), file)
    assert type(load_model(file)[0]) is KNNDetector
    assert capsys.readouterr().err == ""


def test_networks_of_transformers_need_a_pickle():
    for wav2vec in (None, "small", "a/wav2vec.pt", "b.safetensors"):
        check_model("m.skasd", {} if wav2vec is None else {"wav2vec": wav2vec})
    with pytest.raises(ValueError, match=r"--out m.skasd: .* give a name that ends in .joblib"):
        check_model("m.skasd", {"wav2vec": "facebook/wav2vec2-base"})
    check_model("m.joblib", {"wav2vec": "facebook/wav2vec2-base"})
