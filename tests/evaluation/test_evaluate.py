"""Evaluations called from Python."""

import functools
import pickle
import warnings
from pathlib import Path

import filelock
import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.stats import hmean
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline

from sk_asd.cli import main
from sk_asd.datasets import load_clips, make_machine_sounds
from sk_asd.detectors import AutoEncoderDetector, KNNDetector
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble, _score_ensemble
from sk_asd.evaluation import Evaluation, _evaluate, _units, evaluate
from sk_asd.features import LogMel, TimePooling
from sk_asd.metrics import read_submission
from sk_asd.systems import make_pooling, make_system

SOUNDS = {"n_train": 8, "n_test": 10, "n_target_train": 3, "duration": 0.6, "random_state": 0}


def feature():
    return LogMel(n_fft=512, n_mels=16)


def pooled(detector=None, **options):
    """A Pipeline of one's own."""
    detector = GroupedDetector(KNNDetector() if detector is None else detector)
    steps = [("mel", feature()), ("pool", TimePooling()), ("detector", detector)]
    return Pipeline(steps).set_params(**options)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Development data in the layout of 2022, of two machines; not to be written into."""
    root = tmp_path_factory.mktemp("data")
    make_machine_sounds(("fan", "valve"), sections=3, **SOUNDS, root=root)
    return root


@pytest.fixture(scope="module")
def clips(root):
    return load_clips(root)


def total(result, system=None):
    rows = result.metrics[result.metrics["machine"] == "total"]
    return rows["hmean"].item() if system is None else rows.set_index("system")["hmean"][system]


class TestTables:
    def test_side_by_side_as_one_by_one_and_by_command_line(self, root, clips, tmp_path):
        both = evaluate({"mine": pooled(), "pooling": make_pooling(feature=feature())}, clips)
        assert both.systems == ["mine", "pooling"]
        for name, system in (("mine", pooled()), ("pooling", make_pooling(feature=feature()))):
            alone = evaluate({name: system}, clips)
            rows = both.scores[both.scores["system"] == name].reset_index(drop=True)
            pd.testing.assert_frame_equal(rows, alone.scores)
            assert total(both, name) == total(alone)
        argv = [str(root), "--system", "pooling", "--n-fft", "512", "--n-mels", "16"]
        argv += ["--explain", "0", "--out", str(tmp_path / "run"), "--quiet"]
        assert main(["run", *argv]) == 0
        text = {"section": str}
        scores = pd.read_csv(tmp_path / "run" / "scores.csv", dtype=text)
        rows = both.scores[both.scores["system"] == "pooling"].reset_index(drop=True)
        np.testing.assert_array_equal(rows["score"], scores["score"])
        np.testing.assert_array_equal(rows["decision"], scores["decision"])
        metrics = pd.read_csv(tmp_path / "run" / "metrics.csv", dtype=text)
        expected = both.metrics[both.metrics["system"] == "pooling"].reset_index(drop=True)
        pd.testing.assert_frame_equal(metrics, expected, check_dtype=False)

    def test_scores_are_those_of_a_fit_by_hand(self, clips):
        result = evaluate(pooled(), clips)
        assert isinstance(result, Evaluation)
        for machine, rows in clips.groupby("machine"):
            system = pooled().fit(rows[rows["split"] == "train"])
            test = rows[rows["split"] == "test"]
            found = result.scores.set_index("path").loc[test["path"]]
            np.testing.assert_allclose(found["score"], system.score_samples(test))
            np.testing.assert_array_equal(found["decision"], system.predict(test))
            model = result.model("Pipeline", machine)
            np.testing.assert_allclose(model.score_samples(test), found["score"])
        assert len(result.choices) == 0

    def test_one_system_for_all(self, clips):
        result = evaluate(pooled(), clips, scope="all")
        train, test = (clips[clips["split"] == s] for s in ("train", "test"))
        expected = pooled().fit(train).score_samples(test)
        np.testing.assert_allclose(result.scores["score"], expected)
        assert result.model("Pipeline") is result.model("Pipeline", "fan")
        again = pickle.loads(pickle.dumps(result))
        pd.testing.assert_frame_equal(again.scores, result.scores)

    def test_a_function_makes_a_system_for_each_machine(self, clips):
        asked = []

        def make(machine):
            asked.append(machine)
            return make_system("pooling", machine, feature=feature())

        evaluate({"own": make}, clips)
        evaluate({"own": make}, clips, scope="all")
        assert asked == ["fan", "valve", None]

    def test_sounds_in_memory_without_section_machine_and_domain(self):
        clips = make_machine_sounds("fan", **SOUNDS)
        bare = clips[["audio", "sr", "split", "label"]]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = evaluate(pooled(), bare)
        assert set(result.scores["machine"]) == {"machine"}
        assert set(result.scores["section"]) == {"00"}
        row = result.metrics[result.metrics["machine"] == "total"].iloc[0]
        test = clips[clips["split"] == "test"]
        expected = roc_auc_score(test["label"] == "normal", result.scores["score"])
        assert row["auc"] == pytest.approx(expected)

    def test_other_libraries(self, clips):
        forest = IsolationForest(n_estimators=10, random_state=0)
        result = evaluate({"forest": pooled(forest)}, clips)
        assert np.isfinite(result.scores["score"]).all()
        assert set(result.scores["decision"]) == {-1, 1}

    def test_without_labels(self, clips):
        result = evaluate(pooled(), clips.drop(columns="label"))
        assert len(result.metrics) == 0
        assert len(result.scores) == 60
        with pytest.raises(ValueError, match="There are no metrics to report"):
            result.report("x.html")

    def test_anomalies_among_training_clips_are_left_out(self, clips):
        odd = clips.copy()
        rows = odd.index[(odd["split"] == "train") & (odd["machine"] == "fan")][:2]
        odd.loc[rows, "label"] = "anomaly"
        with pytest.warns(UserWarning, match="2 of 48 training clips are labelled as anomalies"):
            result = evaluate(pooled(), odd)
        np.testing.assert_allclose(
            result.scores["score"], evaluate(pooled(), clips.drop(rows)).scores["score"]
        )

    @pytest.mark.slow
    def test_report_and_files_of_the_challenge(self, clips, tmp_path):
        result = evaluate({"mine": pooled(), "other": make_pooling(feature=feature())}, clips)
        text = result.report(tmp_path / "r.html", explain=1).read_text()
        assert "mine, protocol B" in text
        assert "other, protocol B" in text
        assert "Nearest normal clip" in text
        with pytest.raises(ValueError, match=r"system must be one of \['mine', 'other'\]"):
            result.write_submission(tmp_path / "files")
        files = result.write_submission(tmp_path / "files", "mine")
        assert len(files) == 2 * 2 * 3
        assert {path.parent.name for path in files} == {"dev_data"}


class TestChoices:
    def test_own_grid_of_the_last_step_trains_the_front_once(self, clips):
        class Counted(TransformerMixin, BaseEstimator):
            fits = 0

            def fit(self, X, y=None):
                type(self).fits += 1
                return self

            def transform(self, X):
                return X

            def __sklearn_is_fitted__(self):
                return True

        mine = pooled()
        mine.steps.insert(2, ("counted", Counted()))
        grid = {"detector__detector__n_neighbors": [1, 2, 3], "detector__by": ["section"]}
        result = evaluate({"mine": mine}, clips, protocol="A", scope="all", choices=grid)
        assert Counted.fits == 1
        figures = {}
        for k in (1, 2, 3):
            other = pooled(KNNDetector(n_neighbors=k), detector__by="section")
            figures[k] = total(evaluate(other, clips, scope="all"))
        figures[None] = total(evaluate(pooled(), clips, scope="all"))
        assert total(result) == pytest.approx(max(figures.values()))
        chosen = result.choices.set_index("choice")["value"]
        assert figures[chosen["detector__detector__n_neighbors"]] >= total(result) - 1e-9 or (
            figures[None] == total(result)
        )

    def test_own_grid_of_other_steps(self, clips):
        grid = [{"pool__r": [0.5, 1.0], "pool__statistics": [("gwrp",)]}]
        result = evaluate(pooled(), clips, protocol="A", choices=grid)
        figures = [
            evaluate(pooled(pool__statistics=("gwrp",), pool__r=r), clips) for r in (0.5, 1.0)
        ]
        by_machine = [
            r.metrics[r.metrics["section"] == "hmean"].set_index("machine")["hmean"]
            for r in (*figures, evaluate(pooled(), clips), result)
        ]
        for machine in ("fan", "valve"):
            assert by_machine[-1][machine] == max(table[machine] for table in by_machine[:-1])

    def test_an_oracle_is_never_below_fixed_settings(self, clips):
        def make():
            ensemble = ScoreEnsemble(
                [
                    ("mel", make_pooling(feature=feature(), detector="knn")),
                    ("ae", make_ae()),
                ],
                weights=[0.73, 0.27],
            )
            return ensemble

        def make_ae():
            detector = AutoEncoderDetector(max_epochs=1, random_state=0)
            return Pipeline(
                [("feature", feature()), ("detector", GroupedDetector(detector, by="machine"))]
            )

        fixed = evaluate({"both": make()}, clips)
        oracle = evaluate({"both": make()}, clips, protocol="A")
        assert total(oracle) >= total(fixed)
        kinds = set(oracle.choices["choice"])
        assert {"weight of mel", "weight of ae", "detector of mel", "metric of ae"} == kinds
        # The model that is kept is the one that was chosen.
        for machine, rows in clips[clips["split"] == "test"].groupby("machine"):
            model = oracle.model("both", machine)
            found = oracle.scores.set_index("path")["score"][rows["path"]]
            np.testing.assert_allclose(model.score_samples(rows), found)
            training = model.training_scores_
            assert model.offset_ == pytest.approx(np.quantile(training, 0.1))

    def test_labels_of_evaluation_data_choose_nothing(self, clips):
        """What is reported on development data is the same whether they are known or not."""
        rows = clips[clips["machine"] == "fan"].copy()
        rows["data"] = np.where(rows["section"] == "02", "eval_data", "dev_data")
        unknown = rows.copy()
        unknown.loc[(rows["data"] == "eval_data") & (rows["split"] == "test"), "label"] = None
        turned = rows.copy()
        mask = (rows["data"] == "eval_data") & (rows["split"] == "test")
        turned.loc[mask, "label"] = rows.loc[mask, "label"].map(
            {"normal": "anomaly", "anomaly": "normal"}
        )
        found = [evaluate(pooled(), table, protocol="A") for table in (rows, unknown, turned)]
        for other in found[1:]:
            pd.testing.assert_frame_equal(found[0].choices, other.choices)
            pd.testing.assert_series_equal(found[0].scores["score"], other.scores["score"])
        assert set(found[0].metrics["data"]) == {"dev_data", "eval_data"}
        assert set(found[1].metrics["data"]) == {"dev_data"}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"protocol": "D"}, r"protocol must be one of \['A', 'B', 'C'\], got 'D'"),
            ({"scope": "section"}, r"scope must be one of \['machine', 'all'\] or None"),
            ({"choices": {"pool__r": [1]}}, "choices= are for protocol=A and protocol=C"),
            ({"protocol": "C"}, "fan has labelled test clips of 00, 01, 02, and none of 03 to 05"),
            ({"client": "tcp://h:1"}, "client= needs folder="),
        ],
    )
    def test_what_makes_no_sense(self, clips, options, message):
        with pytest.raises(ValueError, match=message):
            evaluate(pooled(), clips, **options)

    @pytest.mark.parametrize(
        ("systems", "error", "message"),
        [
            ("pooing", ValueError, "There is no system 'pooing'; known are"),
            ({"a/b": pooled()}, ValueError, "Names of systems are names of files, too; got 'a/b'"),
            ({}, ValueError, "No systems to evaluate"),
            ({"x": 3}, TypeError, "x: expected a system, its name or a function, got 3"),
            ({"x": lambda machine: 3}, TypeError, "x: expected an unfitted system, got 3"),
            ({"x": IsolationForest}, TypeError, "x: expected"),
        ],
    )
    def test_what_is_no_system(self, clips, systems, error, message):
        with pytest.raises(error, match=message):
            evaluate(systems, clips)

    def test_choices_of_an_ensemble_are_one_dict(self, clips):
        ensemble = ScoreEnsemble([("a", pooled()), ("b", pooled())])
        with pytest.raises(TypeError, match="choices of the ensemble ScoreEnsemble must be one"):
            evaluate(ensemble, clips, protocol="A", choices=[{"weights": [(1, 0)]}])
        result = evaluate(ensemble, clips, protocol="A", choices={"weights": [(1, 0), (0, 1)]})
        assert set(result.choices["value"]) <= {0.0, 0.5, 1.0}

    def test_nothing_to_choose(self, clips):
        system = pooled(IsolationForest())
        with pytest.raises(ValueError, match="protocol=A has nothing to choose for Pipeline"):
            evaluate(system, clips, protocol="A")

    def test_what_is_no_clip_table(self, clips):
        with pytest.raises(TypeError, match="clips must be a clip table"):
            evaluate(pooled(), np.zeros((4, 100)))
        with pytest.raises(ValueError, match="no column split"):
            evaluate(pooled(), clips.drop(columns="split"))
        with pytest.raises(ValueError, match="There are no training clips"):
            evaluate(pooled(), clips[clips["split"] == "test"])
        lost = (clips["machine"] == "fan") & (clips["section"] == "02")
        left = clips[~(lost & (clips["split"] == "train"))]
        with pytest.raises(ValueError, match="no training clips of section 02 of the machine fan"):
            evaluate(pooled(), left)


class TestFolder:
    def test_goes_on_where_it_was_interrupted(self, clips, tmp_path, capsys):
        class Stops(KNNDetector):
            def fit(self, X, y=None):
                raise KeyboardInterrupt

        def make(broken, machine):
            detector = Stops() if broken and machine == "valve" else KNNDetector()
            return pooled(detector)

        run = functools.partial(evaluate, clips=clips, folder=tmp_path / "x", settings={"a": 1})
        with pytest.raises(KeyboardInterrupt):
            run({"own": functools.partial(make, True)})
        assert (tmp_path / "x" / "parts" / "own" / "fan.csv").exists()
        result = run({"own": functools.partial(make, False)}, verbose=1)
        said = capsys.readouterr().err
        assert "1 of 2 units are done already" in said
        assert "fan, own: training" not in said
        whole = evaluate({"own": pooled()}, clips)
        np.testing.assert_array_equal(result.scores["score"], whole.scores["score"])
        test = clips[(clips["split"] == "test") & (clips["machine"] == "fan")]
        found = result.model("own", "fan").score_samples(test)
        np.testing.assert_allclose(found, whole.scores["score"][: len(test)])
        assert not (tmp_path / "x" / "memory" / "own" / "fan").exists()

    def test_other_systems_are_refused(self, clips, tmp_path):
        evaluate({"own": pooled()}, clips, folder=tmp_path / "x")
        other = pooled(KNNDetector(n_neighbors=2))
        message = r"fan, own: detector__detector__n_neighbors 1 \(here 2\)"
        with pytest.raises(ValueError, match=message):
            evaluate({"own": other}, clips, folder=tmp_path / "x")
        with pytest.raises(ValueError, match="scope"):
            evaluate({"own": pooled()}, clips, scope="all", folder=tmp_path / "x")
        (tmp_path / "y").mkdir()
        (tmp_path / "y" / "precious").write_text("x")
        with pytest.raises(ValueError, match=r"folder=.*y: it is not empty"):
            evaluate({"own": pooled()}, clips, folder=tmp_path / "y")

    def test_two_at_once(self, clips, tmp_path):
        evaluate({"own": pooled()}, clips, folder=tmp_path / "x")
        with (
            filelock.FileLock(tmp_path / "x" / ".lock"),
            pytest.raises(ValueError, match="another evaluation is at work there"),
        ):
            evaluate({"own": pooled()}, clips, folder=tmp_path / "x")

    def test_a_full_disk(self, clips, tmp_path, monkeypatch):
        write = Path.write_bytes

        def full(path, content):
            if path.name.startswith(".tmp") and path.suffix == ".skasd":
                raise OSError(28, "No space left on device", str(path))
            return write(path, content)

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=r"Cannot write .*fan.skasd: No space left on device"):
            evaluate({"own": pooled()}, clips, folder=tmp_path / "x")
        assert not list((tmp_path / "x").rglob("*.skasd"))
        monkeypatch.undo()
        result = evaluate({"own": pooled()}, clips, folder=tmp_path / "x")
        assert len(result.scores) == 60

    def test_a_system_that_cannot_be_saved(self, clips, tmp_path):
        class Own(KNNDetector):
            """Its state is no data."""

            _state = ("function_",)

            def fit(self, X, y=None):
                super().fit(X)
                self.function_ = lambda: 0
                return self

        system = {"own": pooled(Own())}
        fan = clips[clips["machine"] == "fan"]
        with pytest.warns(UserWarning, match="fan, own: no model file is written"):
            first = evaluate(system, fan, folder=tmp_path / "x")
        again = evaluate(system, fan, folder=tmp_path / "x")
        np.testing.assert_array_equal(first.scores["score"], again.scores["score"])

    def test_members_of_an_ensemble_are_fitted_once(self, clips, tmp_path, monkeypatch):
        """By workers, one by one, or by a run that was killed after one; the whole finds them."""
        fan = clips[clips["machine"] == "fan"]
        ensemble = ScoreEnsemble([("a", pooled()), ("b", make_pooling(feature=feature()))])
        alone = evaluate({"own": ensemble}, fan)

        def stop(unit, clips, folder, progress):
            raise KeyboardInterrupt

        given = {"systems": {"own": ensemble}, "clips": fan, "folder": tmp_path / "x"}
        work = _units.work
        monkeypatch.setattr(
            _evaluate, "work", lambda unit, *args: (work if unit.member else stop)(unit, *args)
        )
        monkeypatch.setattr(_evaluate, "effective_n_jobs", lambda n_jobs: 2)
        with joblib.parallel_config("sequential"), pytest.raises(KeyboardInterrupt):
            evaluate(**given)
        monkeypatch.undo()
        asked = []
        fit_member = _score_ensemble.fit_member
        monkeypatch.setattr(
            _score_ensemble, "fit_member", lambda *args: asked.append(args) or fit_member(*args)
        )
        again = evaluate(**given)
        assert asked == []
        np.testing.assert_array_equal(again.scores["score"], alone.scores["score"])
        assert not list((tmp_path / "x" / "memory").rglob("*.pkl"))

    @pytest.mark.slow
    def test_workers(self, clips, tmp_path):
        alone = evaluate({"a": pooled(), "b": pooled()}, clips)
        for folder in (None, tmp_path / "x"):
            several = evaluate({"a": pooled(), "b": pooled()}, clips, n_jobs=2, folder=folder)
            np.testing.assert_allclose(several.scores["score"], alone.scores["score"], rtol=1e-6)


@pytest.mark.slow
class TestChallenge:
    """A tree as that of 2022, with labels."""

    @pytest.fixture(scope="class")
    def clips(self, tmp_path_factory):
        root = tmp_path_factory.mktemp("2022")
        machines = ("fan", "valve", "bearing")
        make_machine_sounds(machines, sections=["00", "01", "02"], **SOUNDS, root=root)
        more = root / "more"
        make_machine_sounds(machines, sections=["03", "04", "05"], **SOUNDS, root=more)
        (more / "dev_data").rename(root / "eval_data")
        more.rmdir()
        return load_clips(root)

    def test_protocols(self, clips, tmp_path):
        found = {}
        for protocol in "ABC":
            folder = tmp_path / protocol
            found[protocol] = evaluate(
                {"own": make_pooling(feature=feature())}, clips, protocol=protocol, folder=folder
            )
            self.check_files(found[protocol], clips, folder / "challenge")

        def of(protocol, data):
            rows = found[protocol].metrics
            rows = rows[(rows["machine"] == "total") & (rows["data"] == data)]
            return rows["hmean"].item()

        assert of("A", "dev_data") >= of("B", "dev_data")
        assert set(found["C"].metrics["data"]) == {"eval_data"}
        # C chooses by the sections that A chooses by.
        pd.testing.assert_series_equal(found["A"].choices["value"], found["C"].choices["value"])
        assert of("C", "eval_data") == of("A", "eval_data")

    def check_files(self, result, clips, folder):
        """The official figures, computed from the written files alone."""
        truth = clips.assign(name=[Path(path).name for path in clips["path"]])
        for data in set(result.metrics["data"]):
            numbers = []
            for machine in ("bearing", "fan", "valve"):
                rows = truth[(truth["machine"] == machine) & (truth["split"] == "test")]
                inside = [data in Path(path).parts for path in rows["path"]]
                for section, part in rows[inside].groupby("section"):
                    file = folder / data / f"anomaly_score_{machine}_section_{section}_test.csv"
                    scores = pd.read_csv(file, header=None, index_col=0)[1][part["name"]]
                    odd = (part["label"] == "anomaly").to_numpy()
                    for domain in ("source", "target"):
                        kept = odd | (part["domain"] == domain).to_numpy()
                        numbers.append(roc_auc_score(odd[kept], scores[kept]))
                    numbers.append(roc_auc_score(odd, scores, max_fpr=0.1))
            table = result.metrics[result.metrics["data"] == data]
            official = table[table["machine"] == "total"]["hmean"].item()
            assert official == pytest.approx(hmean(numbers), rel=1e-9)
            rows = truth[[data in Path(path).parts for path in truth["path"]]]
            read = read_submission(folder / data, rows)
            found = result.scores.set_index("path").loc[rows.loc[read.index, "path"]]
            np.testing.assert_array_equal(read["decision"], found["decision"])
