"""``sk-asd export``."""

import json

import numpy as np
import onnxruntime
import pytest

from sk_asd.cli import _export
from sk_asd.datasets import load_clips
from sk_asd.datasets._audio import read_audio
from sk_asd.metrics import anomaly_score
from sk_asd.persistence._models import load_model


@pytest.mark.slow
def test_scores_of_the_graph(run, folder, model, tmp_path, monkeypatch):
    monkeypatch.setattr(_export, "N_COMPARED", 5)
    path = tmp_path / "model.onnx"
    status, out, err = run("export", model, "--out", path, "--clips", folder, "--quiet")
    assert (status, err) == (0, "")
    assert out.startswith(f"{path} written, 2 groups; scores of 5 clips differ by ")
    clips = load_clips(folder)
    session = onnxruntime.InferenceSession(str(path))
    groups = json.loads(session.get_modelmeta().custom_metadata_map["groups"])
    feed = {
        "waveform": np.stack([read_audio(path)[0] for path in clips["path"]]),
        "group": np.array([[g["machine"] for g in groups].index(m) for m in clips["machine"]]),
    }
    (found,) = session.run(None, feed)
    expected = anomaly_score(load_model(model)[0], clips)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_compared", [1, 5, 7, 99])
def test_compared_clips_are_spread_over_all(folder, monkeypatch, n_compared):
    monkeypatch.setattr(_export, "N_COMPARED", n_compared)
    clips = load_clips(folder)
    test = clips[clips["split"] == "test"]
    found = _export._some(folder, None)
    assert len(found) == min(n_compared, len(test))
    assert found["path"].is_unique
    ends = [found["path"].iloc[0], found["path"].iloc[-1]]
    assert ends == [test["path"].iloc[0], test["path"].iloc[0 if n_compared == 1 else -1]]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--machine", "pump"], "--machine pump: not in the model, which knows fan, valve."),
        (["--clips", "nowhere"], "nowhere"),
        (["--clips", "others"], "others: no recordings of fan, valve."),
    ],
)
def test_wrong_input_is_one_line(run, model, write_tone, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "others" / "pump" / "test").mkdir(parents=True)
    write_tone(tmp_path / "others/pump/test/section_00_source_test_normal_0000.wav")
    status, out, err = run("export", model, "--out", "m.onnx", *argv, "--quiet")
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "m.onnx").exists()


def test_folder_is_looked_at_first(run, model, tmp_path):
    status, _, err = run("export", "no.skasd", "--out", tmp_path / "no" / "m.onnx", "--quiet")
    assert status == 2
    assert "no does not exist" in err
