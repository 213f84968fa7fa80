"""``sk-asd run``: evaluation data, ensembles and protocols."""

import functools
import os

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline

from sk_asd import systems
from sk_asd.datasets import load_clips, make_machine_sounds
from sk_asd.domains import DomainClassifier, DomainNormalizedDetector
from sk_asd.ensemble import ScoreEnsemble
from sk_asd.evaluation._choices import DETECTORS
from sk_asd.evaluation._protocols import PROTOCOLS
from sk_asd.features import LogMel, TimePooling
from sk_asd.metrics import dcase_score, dcase_scores
from sk_asd.persistence._models import load_model, read_header
from sk_asd.systems import make_pooling

SOUNDS = {"n_train": 8, "n_test": 8, "n_target_train": 3, "duration": 0.6, "random_state": 0}
BARE = ["--explain", "0"]  # a report without pictures of single clips
FEATURES = ["--n-fft", "512", "--n-mels", "16", *BARE]
POOLING = ["--system", "pooling", *FEATURES]
BY = ("machine", "section")


@pytest.fixture(scope="session")
def both(tmp_path_factory):
    """One machine with development and evaluation data, and the ground truth of the latter."""
    root = tmp_path_factory.mktemp("both")
    make_machine_sounds("fan", sections=["00"], **SOUNDS, root=root / "data")
    make_machine_sounds("fan", sections=["03"], **SOUNDS, root=root / "more")
    os.rename(root / "more" / "dev_data", root / "data" / "eval_data")
    truth = {"data": [], "domain": []}
    for i, path in enumerate(sorted((root / "data" / "eval_data" / "fan" / "test").iterdir())):
        name = f"section_03_{i:04d}.wav"
        truth["data"].append(f"{name},{int('_anomaly_' in path.name)}")
        truth["domain"].append(f"{name},{int('_target_' in path.name)}")
        path.rename(path.with_name(name))
    for kind, rows in truth.items():
        file = root / f"ground_truth_{kind}" / "ground_truth_fan_section_03_test.csv"
        file.parent.mkdir()
        file.write_text("\n".join(rows) + "\n")
    return root / "data"


@pytest.fixture
def ground_truth(both):
    """Options that name the files of the organisers."""
    return ["--ground-truth", *sorted(both.parent.glob("ground_truth_*"))]


@pytest.fixture
def small(monkeypatch):
    """Make all submissions ensembles of two or three pooled spectrograms."""

    @functools.wraps(systems.make_submission)  # the options that it has
    def make_submission(number, machine, *, weights=None, random_state=None, **options):
        members = [
            (name, make_pooling(feature=LogMel(n_fft=512, n_mels=16), r=r))
            for name, r in (("mean", 1.0), ("ranks", 0.7), ("peaks", 0.3))
        ]
        if number == 1:
            tell = DomainClassifier(GaussianNB(), by=BY, min_auc=0.5, random_state=0)
            front = ("feature", LogMel(n_fft=512, n_mels=16)), ("pooling", TimePooling())
            tell = Pipeline([*front, ("classifier", tell)])
            members = [(n, DomainNormalizedDetector(m, tell, by=BY)) for n, m in members]
        return ScoreEnsemble(members, weights, by=BY, threshold="gamma")

    monkeypatch.setattr(systems, "make_submission", make_submission)
    return make_submission


def read(path):
    return pd.read_csv(path, dtype={"section": str, "label": str, "domain": str})


def split(clips):
    return (clips[clips["split"] == s].reset_index(drop=True) for s in ("train", "test"))


class TestEvaluationData:
    def test_trained_on_both_and_scored(self, run, both, tmp_path):
        out = tmp_path / "run"
        status, text, err = run("run", both, *POOLING, "--out", out, "--quiet")
        assert (status, err) == (0, "")
        assert read_header(out / "models" / "pooling" / "fan.skasd")["sections"] == {
            "fan": ["00", "03"]
        }
        scores = read(out / "scores.csv")
        assert scores.groupby(["data", "section"]).size().to_dict() == {
            ("dev_data", "00"): 8,
            ("eval_data", "03"): 8,
        }
        for data, section in (("dev_data", "00"), ("eval_data", "03")):
            assert sorted(p.name for p in (out / "challenge" / data).iterdir()) == [
                f"anomaly_score_fan_section_{section}_test.csv",
                f"decision_result_fan_section_{section}_test.csv",
            ]
        # Nothing is known about the evaluation clips, and section 00 alone is not that of 2022.
        assert set(read(out / "metrics.csv")["data"]) == {"dev_data"}
        assert "eval_data: official metrics" not in text
        assert not (out / "comparison.csv").exists()
        assert "AITHU report" not in (out / "report.html").read_text()

    def test_nothing_learns_which_folder_a_clip_is_from(self, run, both, tmp_path):
        out = tmp_path / "run"
        argv = [*FEATURES, "--feature", "logmel", "--n-frames", "8", "--epochs", "1"]
        argv = ["run", both, "--system", "sc", *argv, "--out", out, "--quiet"]
        assert run(*argv)[0] == 0
        model, _ = load_model(out / "models" / "sc" / "all.skasd")
        classes = [str(label) for label in model["embedder"].classes_]
        assert len(classes) > 1
        assert not [label for label in classes if "_data" in label]

    def test_ground_truth_may_come_later(self, run, both, ground_truth, tmp_path):
        out = tmp_path / "run"
        argv = ["run", both, *POOLING, "--out", out]
        assert run(*argv, "--quiet")[0] == 0
        status, text, err = run(*argv, *ground_truth)
        assert status == 0
        assert "1 of 1 units are done already" in err
        assert "pooling, protocol B, eval_data: official metrics in percent" in text
        metrics, scores = read(out / "metrics.csv"), read(out / "scores.csv")
        for data, rows in scores.groupby("data"):
            expected = dcase_scores(rows, rows["score"])
            found = metrics[metrics["data"] == data].reset_index(drop=True)
            pd.testing.assert_frame_equal(found[expected.columns], expected, check_dtype=False)
        report = (out / "report.html").read_text()
        assert "<h3>pooling, protocol B, dev_data</h3>" in report
        assert "<h3>pooling, protocol B, eval_data</h3>" in report

    def test_a_part_of_a_data_set_is_development_data(self, run, both, tmp_path):
        out = tmp_path / "run"
        assert run("run", both / "dev_data", *POOLING, "--out", out, "--quiet")[0] == 0
        assert set(read(out / "scores.csv")["data"]) == {"dev_data"}

    def test_test_clips_without_training_clips(self, run, both, tmp_path):
        data = tmp_path / "data"
        for folder in ("dev_data/fan", "eval_data/fan/test"):
            (data / folder).parent.mkdir(parents=True)
            os.symlink(both / folder, data / folder)
        status, _, err = run("run", data, *POOLING, "--out", tmp_path / "run", "--quiet")
        assert status == 2
        assert "There are no training clips of section 03 of the machine fan" in err
        assert not (tmp_path / "run").exists()

    def test_no_labels_at_all(self, run, both, tmp_path):
        out = tmp_path / "run"
        status, text, _ = run("run", both / "eval_data", *POOLING, "--out", out, "--quiet")
        assert status == 0
        assert "No label is known: no metrics, no report." in text
        assert len(read(out / "scores.csv")) == 8
        assert not (out / "metrics.csv").exists()


class TestEnsembles:
    @pytest.mark.parametrize("system", ["submission-1", "submission-2"])
    def test_equal_to_an_ensemble_that_is_fitted_whole(
        self, run, both, small, ground_truth, tmp_path, system
    ):
        out = tmp_path / "run"
        argv = ["run", both, "--system", system, *BARE, "--out", out, *ground_truth]
        status, text, err = run(*argv)
        assert status == 0, err
        train, test = split(load_clips(both))
        expected = small(int(system[-1]), "fan").fit(train)
        scores = read(out / "scores.csv")
        np.testing.assert_allclose(scores["score"], expected.score_samples(test), rtol=1e-6)
        np.testing.assert_array_equal(scores["decision"], expected.predict(test))
        np.testing.assert_allclose(scores["threshold"], expected.offset_, rtol=1e-6)
        # The model is that ensemble, members and all.
        model, header = load_model(out / "models" / system / "fan.skasd")
        assert header["options"]["system"] == system
        np.testing.assert_allclose(model.score_samples(test), scores["score"], rtol=1e-6)
        assert model.memory is None
        if system == "submission-2":
            again = clone(model).fit(train)
            np.testing.assert_allclose(again.offset_, expected.offset_, rtol=1e-6)
        assert list(model.named_estimators_) == ["mean", "ranks", "peaks"]
        if system[-1] == "1":
            assert any(model.estimators_[0].domain_classifier_[-1].active_.values())
        weights = read(out / "choices.csv")
        assert weights["choice"].tolist() == [f"weight of {n}" for n in ("mean", "ranks", "peaks")]
        np.testing.assert_allclose(weights["value"], 1 / 3)
        assert set(weights["protocol"]) == {"B"}
        assert f"{system}, protocol B: weights" in text

        # And `sk-asd score` takes it.
        argv = [out / "models" / system / "fan.skasd", both, "--out", tmp_path / "s.csv"]
        assert run("score", *argv, "--n-jobs", "1", "--quiet")[0] == 0
        again = read(tmp_path / "s.csv")
        np.testing.assert_allclose(again["score"], scores["score"], rtol=1e-6)
        np.testing.assert_array_equal(again["decision"], scores["decision"])

    def test_one_domain_alone_is_standardised_without_a_classifier(
        self, run, small, tmp_path, monkeypatch
    ):
        make_machine_sounds("fan", **{**SOUNDS, "n_target_train": 0}, root=tmp_path / "data")
        out = tmp_path / "run"
        argv = [
            "run",
            tmp_path / "data",
            "--system",
            "submission-1",
            *BARE,
            "--out",
            out,
            "--quiet",
        ]
        assert run(*argv)[::2] == (0, "")
        train, test = split(load_clips(tmp_path / "data"))
        expected = small(1, "fan").fit(train)
        scores = read(out / "scores.csv")["score"]
        np.testing.assert_allclose(scores, expected.score_samples(test), rtol=1e-6)
        model, _ = load_model(out / "models" / "submission-1" / "fan.skasd")
        assert model.estimators_[0].domain_classifier_ is None
        np.testing.assert_allclose(scores, model.score_samples(test), rtol=1e-6)

    def test_in_parallel(self, run, both, tmp_path):
        for n_jobs in (1, 2):
            argv = [*POOLING, "--out", tmp_path / str(n_jobs), "--n-jobs", n_jobs, "--quiet"]
            assert run("run", both, *argv)[0] == 0
        a, b = (read(tmp_path / n / "scores.csv") for n in "12")
        np.testing.assert_allclose(a["score"], b["score"], rtol=1e-6)


class TestProtocols:
    def best(self, rows, scores):
        return dcase_score(rows.assign(split="test"), scores)

    def test_oracle_chooses_the_detector(self, run, both, tmp_path):
        figures = {}
        for name in ("knn", "lof", "cosine", "mahalanobis"):
            out = tmp_path / name
            argv = [both, *POOLING, "--detector", name, "--out", out, "--quiet"]
            assert run("run", *argv)[0] == 0
            scores = read(out / "scores.csv")
            known = scores[scores["label"].notna()]
            figures[name] = self.best(known, known["score"])
        out = tmp_path / "oracle"
        status, text, err = run("run", both, *POOLING, "--protocol", "A", "--out", out, "--quiet")
        assert (status, err) == (0, "")
        choice = read(out / "choices.csv")
        assert choice["choice"].tolist() == ["detector"]
        chosen = choice["value"].item()
        assert figures[chosen] == max(figures.values())
        expected, found = (read(tmp_path / name / "scores.csv") for name in (chosen, "oracle"))
        np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-6)
        np.testing.assert_allclose(found["threshold"], expected["threshold"], rtol=1e-6)
        model, _ = load_model(out / "models" / "pooling" / "fan.skasd")
        _, test = split(load_clips(both))
        np.testing.assert_allclose(model.score_samples(test), found["score"], rtol=1e-6)

        # Every output says that it is an oracle.
        assert text.startswith(f"pooling, protocol A ({PROTOCOLS['A']})\n")
        assert "pooling, protocol A, dev_data: official metrics in percent" in text
        for name in ("scores", "metrics", "choices"):
            assert set(read(out / f"{name}.csv")["protocol"]) == {"A"}
        report = (out / "report.html").read_text()
        assert "<dt>Protocol</dt><dd>A, oracle: chosen by the labels of the test clips" in report
        assert "<h3>pooling, protocol A, dev_data</h3>" in report

    def test_oracle_chooses_the_metric(self, run, both, tmp_path):
        argv = ["--system", "ae", *FEATURES, "--epochs", "1"]
        out = tmp_path / "run"
        assert run("run", both, *argv, "--protocol", "A", "--out", out, "--quiet")[0] == 0
        scores = read(out / "scores.csv")
        known = scores["label"].notna()
        chosen = read(out / "choices.csv")["value"].item()
        model, _ = load_model(out / "models" / "ae" / "fan.skasd")
        train, test = split(load_clips(both))
        np.testing.assert_allclose(model.score_samples(test), scores["score"], rtol=1e-5)
        features = model[:-1].transform(test)
        figures = {}
        for name in ("mse", "mahalanobis", "mahalanobis_of_mean"):
            figure = model[-1].with_metric(name).score_samples(features)
            figures[name] = self.best(scores[known], figure[known])
        assert figures[chosen] == max(figures.values())
        assert model[-1].detector.metric == chosen
        assert set(model[-1].offsets_.values()) == set(scores["threshold"])
        assert len(model[-1].training_scores_) == len(train)

    def test_oracle_chooses_the_weights(self, run, both, small, tmp_path):
        argv = [both, "--system", "submission-2", *BARE, "--protocol", "A", "--quiet"]
        assert run("run", *argv, "--out", tmp_path / "run")[0] == 0
        choices = read(tmp_path / "run" / "choices.csv").set_index("choice")["value"]
        weights = choices[[c for c in choices.index if c.startswith("weight")]].astype(float)
        weights = weights.to_numpy()
        assert np.allclose(weights * 10, np.round(weights * 10))
        train, test = split(load_clips(both))
        known = test["label"].notna()
        detectors = {
            f"{what.removeprefix('detector of ')}__detector__detector": DETECTORS[name]()
            for what, name in choices.items()
            if what.startswith("detector")
        }
        assert len(detectors) == 3

        def scores(weights, detectors):
            ensemble = small(2, "fan", weights=weights).set_params(**detectors)
            return ensemble.fit(train).score_samples(test)

        expected = scores(weights, detectors)
        best = self.best(test[known], expected[known])
        for setting in [(1 / 3,) * 3, (1, 0, 0), (0, 1, 0), (0, 0, 1)]:
            for chosen in (detectors, {}):
                assert self.best(test[known], scores(setting, chosen)[known]) <= best + 1e-9
        found = read(tmp_path / "run" / "scores.csv")["score"]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        model, _ = load_model(tmp_path / "run" / "models" / "submission-2" / "fan.skasd")
        np.testing.assert_allclose(model.weights, weights)

    def test_chosen_here_reported_there(self, run, both, small, ground_truth, tmp_path):
        argv = [
            both,
            "--system",
            "submission-2",
            *BARE,
            "--protocol",
            "C",
            *ground_truth,
            "--quiet",
        ]
        out = tmp_path / "run"
        status, text, err = run("run", *argv, "--out", out)
        assert (status, err) == (0, "")
        # What is chosen is what the oracle chooses that sees the development data alone.
        oracle = [both, "--system", "submission-2", *BARE, "--protocol", "A", "--quiet"]
        assert run("run", *oracle, "--out", tmp_path / "oracle")[0] == 0
        a, b = (read(tmp_path / name / "choices.csv")["value"] for name in ("run", "oracle"))
        np.testing.assert_array_equal(a, b)
        metrics = read(out / "metrics.csv")
        assert metrics["section"].tolist() == ["03", "hmean", "hmean"]
        assert set(metrics["data"]) == {"eval_data"}
        assert set(read(out / "scores.csv")["section"]) == {"00", "03"}
        assert text.startswith(f"submission-2, protocol C ({PROTOCOLS['C']})\n")
        report = (out / "report.html").read_text()
        assert "fan 03" in report
        assert "fan 00" not in report

    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            (
                [*POOLING, "--protocol", "C"],
                "fan has labelled test clips of 00, and none of 03 to 05.",
            ),
            (
                ["--system", "imdn", "--protocol", "A"],
                "--protocol A has nothing to choose for imdn",
            ),
            (
                [*POOLING, "--detector", "knn", "--protocol", "A"],
                "--detector is what --protocol A chooses: give one only.",
            ),
            (
                ["--system", "ae", "--metric", "mse", "--protocol", "C"],
                "--metric is what --protocol C chooses",
            ),
            (
                ["--system", "submission-2", "--n-fft", "512"],
                "--n-fft applies to other systems, not to submission-2.",
            ),
            (
                ["--system", "submission-4", "--wav2vec", "x.pt"],
                "--wav2vec applies to other systems, not to submission-4.",
            ),
            (["--system", "pooling", "--epochs", "2"], "--epochs applies to --system"),
            ([*POOLING, "--over", "colour"], "--over colour: no such column"),
            ([*POOLING, "--machine", "pump"], "--machine pump: not in"),
        ],
    )
    def test_what_makes_no_sense(self, run, both, tmp_path, argv, message):
        status, text, err = run("run", both, *argv, "--out", tmp_path / "run", "--quiet")
        assert (status, text) == (2, "")
        assert message in err
        assert err.count("\n") == 1
        assert not (tmp_path / "run").exists()

    def test_an_oracle_needs_labels(self, run, both, tmp_path):
        argv = [*POOLING, "--protocol", "A", "--out", tmp_path / "run", "--quiet"]
        status, _, err = run("run", both / "eval_data", *argv)
        assert status == 2
        assert "--protocol A chooses by the labels of the test clips, of which fan has none" in err


def without_anomalies(root, machine):
    for path in (root / "dev_data" / machine / "test").glob("*_anomaly_*"):
        path.unlink()


class TestIncompleteMachines:
    @pytest.fixture
    def data(self, tmp_path):
        make_machine_sounds(("fan", "valve"), **SOUNDS, root=tmp_path / "data")
        return tmp_path / "data"

    @pytest.mark.parametrize("protocol", ["A", "B"])
    def test_one_without_anomalies_does_not_stop_the_others(self, run, data, tmp_path, protocol):
        without_anomalies(data, "valve")
        argv = [*POOLING, "--protocol", protocol, "--out", tmp_path / "run", "--quiet"]
        status, text, err = run("run", data, *argv)
        assert status == 0
        lines = [line for line in err.splitlines() if "An AUC needs both classes" in line]
        assert sum("Their figures are missing" in line for line in lines) == 1
        assert sum("valve, pooling: nothing is chosen" in line for line in lines) == (
            protocol == "A"
        )
        metrics = pd.read_csv(tmp_path / "run" / "metrics.csv").set_index("machine")["hmean"]
        assert metrics["valve"].isna().all()
        assert metrics["total"] == pytest.approx(metrics["fan"].iloc[-1])
        assert f"{100 * metrics['total']:.2f}" in text
        scores = pd.read_csv(tmp_path / "run" / "scores.csv")
        assert set(scores["machine"]) == {"fan", "valve"}
        assert (tmp_path / "run" / "report.html").exists()
        if protocol == "A":
            choices = pd.read_csv(tmp_path / "run" / "choices.csv").set_index("machine")
            assert list(choices.index) == ["fan"]

    def test_none_with_anomalies(self, run, data, tmp_path):
        for machine in ("fan", "valve"):
            without_anomalies(data, machine)
        status, text, err = run("run", data, *POOLING, "--out", tmp_path / "run", "--quiet")
        assert status == 0
        assert err.count("No figures of dev_data: An AUC needs both classes") == 1
        assert "No section has both classes: no metrics, no report." in text
        assert (tmp_path / "run" / "scores.csv").exists()
        assert not (tmp_path / "run" / "metrics.csv").exists()

    def test_evaluation_data_without_anomalies(self, run, data, tmp_path):
        make_machine_sounds("fan", **SOUNDS, root=tmp_path / "more")
        (tmp_path / "more" / "dev_data").rename(data / "eval_data")
        for path in (data / "eval_data" / "fan" / "test").glob("*_anomaly_*"):
            path.unlink()
        status, _, err = run("run", data, *POOLING, "--out", tmp_path / "run", "--quiet")
        assert status == 0
        assert "No figures of eval_data" in err
        assert set(pd.read_csv(tmp_path / "run" / "metrics.csv")["data"]) == {"dev_data"}

    def test_a_tree_without_domains(self, run, data, tmp_path):
        """The layout that the README names, by the default rules."""
        for kind in ("normal", "anomaly"):
            (data / "tree" / "fan" / "test" / kind).mkdir(parents=True)
        for split in ("train", "test"):
            for i, path in enumerate(sorted((data / "dev_data" / "fan" / split).glob("*.wav"))):
                kind = "anomaly" if "_anomaly_" in path.name else "normal"
                target = data / "tree" / "fan" / split / kind / f"{i}.wav"
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
        status, text, err = run("run", data / "tree", *POOLING, "--out", tmp_path / "run")
        assert status == 0
        assert "No test clip has a domain: figures by the rules of 2020" in text
        metrics = pd.read_csv(tmp_path / "run" / "metrics.csv")
        assert list(metrics.columns[5:8]) == ["auc", "pauc", "mean"]
        assert "DCASE Task 2, 2020" in (tmp_path / "run" / "report.html").read_text()
        argv = [tmp_path / "run" / "scores.csv", data / "tree", "--quiet"]
        status, again, err = run("evaluate", *argv)
        assert (status, err) == (0, "")
        assert again.startswith("No test clip has a domain")
        assert run("evaluate", *argv, "--rules", "2020")[1] == again.split("\n", 1)[1]
        status, _, err = run("evaluate", *argv, "--rules", "2022")
        assert status == 2
        assert "rules=2020 need none" in err
