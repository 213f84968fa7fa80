"""Small folders of recordings with planted anomalies."""

import numpy as np
import pytest

from sk_asd.cli import main
from sk_asd.datasets._audio import write_audio

SR = 16000


def make_folder(root, machines=("fan", "valve"), n_train=8, n_test=3):
    """Write a DCASE folder: each machine hums on its own note, an anomaly whistles."""
    rng = np.random.default_rng(0)
    time = np.arange(SR) / SR
    for k, machine in enumerate(machines):
        for domain, factor in (("source", 1.0), ("target", 1.1)):
            plan = [("train", "normal", n_train if domain == "source" else 2)]
            plan += [("test", label, n_test) for label in ("normal", "anomaly")]
            for split, label, count in plan:
                for i in range(count):
                    y = 0.1 * np.sin(2 * np.pi * 300 * (k + 1) * factor * time)
                    y += 0.01 * rng.normal(size=SR)
                    if label == "anomaly":
                        y += 0.1 * np.sin(2 * np.pi * 3000 * time)
                    name = f"section_00_{domain}_{split}_{label}_{i:04d}_vel_{i % 2}.wav"
                    write_audio(root / machine / split / name, y, SR)
    return root


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Folder of two machines; tests must not write into it."""
    return make_folder(tmp_path_factory.mktemp("data") / "dev_data")


@pytest.fixture(scope="session")
def model(folder, tmp_path_factory):
    """Model file of the pooling system."""
    path = tmp_path_factory.mktemp("model") / "model.skasd"
    assert main(["train", str(folder), "--system", "pooling", "--out", str(path), "--quiet"]) == 0
    return path


@pytest.fixture(scope="session")
def scores(folder, model, tmp_path_factory):
    """Scores of the test clips as csv."""
    path = tmp_path_factory.mktemp("scores") / "scores.csv"
    assert main(["score", str(model), str(folder), "--out", str(path), "--quiet"]) == 0
    return path


@pytest.fixture
def run(capsys):
    """Return a function that runs the command line and returns status, stdout and stderr."""

    def run(*argv):
        try:
            status = main([str(a) for a in argv])
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
