"""``sk-asd run``: whole evaluations in miniature."""

import contextlib
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
import pytest
import torch

from sk_asd.cli import main
from sk_asd.datasets import load_clips, make_machine_sounds
from sk_asd.evaluation._folder import differences
from sk_asd.features import LogMel
from sk_asd.metrics import dcase_scores
from sk_asd.systems import make_pooling
from sk_asd.systems._report_results import REPORT_RESULTS
from sk_asd.utils._normal_threshold import normal_threshold

SOUNDS = {"n_train": 6, "n_test": 4, "n_target_train": 2, "duration": 0.6, "random_state": 0}
FEATURES = ["--n-fft", "512", "--n-mels", "16", "--explain", "0"]
POOLING = ["--system", "pooling", *FEATURES]
SC = ["--system", "sc", "--feature", "logmel", *FEATURES, "--n-frames", "8", "--epochs", "1"]


@pytest.fixture(scope="session")
def dev(tmp_path_factory):
    """Two machines with the sections of the development data of 2022; not to be written into."""
    root = tmp_path_factory.mktemp("dev")
    make_machine_sounds(("fan", "valve"), sections=3, **SOUNDS, root=root / "data")
    return root / "data"


def read(path):
    return pd.read_csv(path, dtype={"section": str, "label": str, "domain": str})


def done(out):
    """Everything in a run, without its lock, and without seals, which stand beside their files."""
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    return {name for name in found if not name.endswith(".seal")} - {".lock", ".owner"}


@pytest.fixture(scope="module")
def finished(dev, tmp_path_factory):
    """A finished run of pooling, and what it printed."""
    out, text = tmp_path_factory.mktemp("finished") / "run", io.StringIO()
    with contextlib.redirect_stdout(text):
        assert main(["run", str(dev), *POOLING, "--out", str(out), "--quiet"]) == 0
    return out, text.getvalue()


class TestOneRun:
    def test_files(self, finished):
        out, _ = finished
        challenge = {
            f"challenge/dev_data/{kind}_{machine}_section_{section}_test.csv"
            for kind in ("anomaly_score", "decision_result")
            for machine in ("fan", "valve")
            for section in ("00", "01", "02")
        }
        assert done(out) == challenge | {
            *("scores.csv", "metrics.csv", "comparison.csv", "manifest.json", "report.html"),
            *(f"models/pooling/{machine}.skasd" for machine in ("fan", "valve")),
            *(f"parts/pooling/{m}.{end}" for m in ("fan", "valve") for end in ("csv", "json")),
        }

    def test_scores_are_those_of_one_model_a_machine(self, dev, finished):
        table = read(finished[0] / "scores.csv")
        clips = load_clips(dev)
        test = clips[clips["split"] == "test"].reset_index(drop=True)
        assert [str(dev / path) for path in table["path"]] == test["path"].tolist()
        assert set(table["data"]) == {"dev_data"}
        for machine, rows in test.groupby("machine"):
            train = clips[(clips["split"] == "train") & (clips["machine"] == machine)]
            system = make_pooling(feature=LogMel(n_fft=512, n_mels=16)).fit(train)
            scores = system.score_samples(rows)
            np.testing.assert_allclose(table["score"][rows.index], scores, rtol=1e-9)
            for section, part in rows.groupby("section"):
                known = system[-1].training_scores_[(train["section"] == section).to_numpy()]
                limit = normal_threshold(known, 0.1, "gamma")
                np.testing.assert_allclose(table["threshold"][part.index], limit, rtol=1e-9)
        np.testing.assert_array_equal(table["decision"] == 1, table["score"] >= table["threshold"])

    def test_models_decide_as_the_run_did(self, run, dev, finished, tmp_path):
        model = finished[0] / "models" / "pooling" / "valve.skasd"
        argv = [model, dev, "--machine", "valve", "--out", tmp_path / "s.csv", "--quiet"]
        assert run("score", *argv)[0] == 0
        table, again = read(finished[0] / "scores.csv"), read(tmp_path / "s.csv")
        table = table[table["machine"] == "valve"].reset_index(drop=True)
        for column in ("score", "threshold"):
            np.testing.assert_allclose(again[column], table[column], rtol=1e-9)
        np.testing.assert_array_equal(again["decision"], table["decision"])

    def test_metrics(self, finished):
        out, text = finished
        scores, metrics = read(out / "scores.csv"), read(out / "metrics.csv")
        expected = dcase_scores(scores.assign(split="test"), scores["score"])
        pd.testing.assert_frame_equal(metrics[expected.columns], expected, check_dtype=False)
        total = 100 * expected["hmean"].iloc[-1]
        assert f"{total:.2f}" in text
        assert f"{total:.2f}" in (out / "report.html").read_text()

    def test_every_table_names_the_protocol(self, finished):
        out, text = finished
        assert text.startswith("pooling, protocol B (fixed settings)\n")
        assert "pooling, protocol B, dev_data: official metrics in percent\n" in text
        for name in ("scores", "metrics"):
            assert set(read(out / f"{name}.csv")["protocol"]) == {"B"}
        assert "pooling here (B)" in read(out / "comparison.csv").columns
        report = (out / "report.html").read_text()
        assert "<h3>pooling, protocol B, dev_data</h3>" in report
        assert "<dt>Protocol</dt><dd>B, fixed settings</dd>" in report
        assert json.loads((out / "manifest.json").read_text())["parameters"]["protocol"] == "B"

    def test_the_most_abnormal_clips_are_explained(self, run, dev, finished):
        """Whatever number is asked for when a finished run is given again."""
        out, report = finished[0], finished[0] / "report.html"
        assert "Nearest normal clip" not in report.read_text()
        status, _, err = run("run", dev, *POOLING, "--out", out, "--quiet", "--explain", "1")
        assert (status, err) == (0, "")
        assert report.read_text().count("<audio") == 2 * 2  # each with its nearest normal one
        assert run("run", dev, *POOLING, "--out", out, "--quiet", "--explain", "-1")[0] == 2

    def test_figures_of_the_report_stand_beside(self, finished):
        out, text = finished
        table = read(out / "comparison.csv").set_index("machine")
        assert list(table.index) == ["fan", "valve", "total"]
        printed = REPORT_RESULTS[10]["hmean"]["submission-1"]
        column = table["submission-1 in the report (A)"]
        assert column[["fan", "valve"]].tolist() == [printed["fan"], printed["valve"]]
        assert column["total"] == pytest.approx(2 / (1 / printed["fan"] + 1 / printed["valve"]))
        metrics = read(out / "metrics.csv").query("section == 'hmean'").set_index("machine")
        np.testing.assert_allclose(table["pooling here (B)"], 100 * metrics["hmean"])
        for place in (text, (out / "report.html").read_text()):
            assert "beside the AITHU report" in place
            assert f"{printed['valve']:.2f}" in place

    def test_manifest(self, dev, finished):
        manifest = json.loads((finished[0] / "manifest.json").read_text())
        assert manifest["parameters"] == {
            **{"systems": ["pooling"], "protocol": "B", "rules": "2022"},
            **{"scope": {"pooling": "machine"}, "seed": 0, "n-fft": 512, "n-mels": 16},
        }
        assert manifest["recordings"] == str(dev)
        assert [manifest["data"][machine]["clips"] for machine in ("fan", "valve")] == [30, 30]
        assert manifest["versions"]["sk_asd"]

    def test_again_nothing_is_trained(self, run, dev, finished):
        out, text = finished
        before = {name: (out / name).stat().st_mtime_ns for name in done(out)}
        status, again, err = run("run", dev, *POOLING, "--out", out)
        assert (status, again) == (0, text)
        assert "2 of 2 units are done already" in err
        assert "training" not in err
        kept = [name for name in before if name.startswith(("models", "parts", "manifest"))]
        assert len(kept) == 7
        assert all((out / name).stat().st_mtime_ns == before[name] for name in kept)


class TestResume:
    @pytest.mark.slow
    def test_killed_in_the_second_machine(self, run, dev, tmp_path):
        """SIGKILL in the middle of an epoch."""
        script = f"""
import sys, time, torch
torch.set_num_threads({torch.get_num_threads()})
from sk_asd.cli import _run, main
build = _run.build
def slow(system, options, machine):
    pipeline = build(system, options, machine)
    if machine == "valve":
        pipeline["embedder"].set_params(callbacks=[Hold()])
    return pipeline
from skorch.callbacks import Callback
class Hold(Callback):
    def on_batch_end(self, net, **kwargs):
        print("after a batch", file=sys.__stdout__, flush=True)
        time.sleep(600)
_run.build = slow
main(sys.argv[1:])
"""
        out = tmp_path / "run"
        argv = ["run", dev, *SC, "--scope", "machine", "--out", out, "--quiet"]
        command = [sys.executable, "-c", script, *map(str, argv)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "after a batch\n"
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        parts = {f"parts/sc/fan.{end}" for end in ("csv", "json")}
        assert done(out) == {"manifest.json", "models/sc/fan.skasd", *parts}
        before = (out / "models" / "sc" / "fan.skasd").stat().st_mtime_ns

        status, text, err = run(*argv)
        assert (status, err) == (0, "")
        assert (out / "models" / "sc" / "fan.skasd").stat().st_mtime_ns == before
        argv[argv.index(out)] = tmp_path / "whole"
        assert run(*argv)[:2] == (0, text.replace(str(out), str(tmp_path / "whole")))
        whole = (tmp_path / "whole" / "scores.csv").read_text()
        assert (out / "scores.csv").read_text() == whole

    def test_a_model_without_scores_is_not_trained_again(self, run, dev, finished, tmp_path):
        out = tmp_path / "run"
        shutil.copytree(finished[0], out)
        (out / "parts" / "pooling" / "fan.csv").unlink()
        before = (out / "models" / "pooling" / "fan.skasd").stat().st_mtime_ns
        status, _, err = run("run", dev, *POOLING, "--out", out)
        assert status == 0
        assert "fan, pooling: scoring" in err
        assert "training" not in err
        assert (out / "models" / "pooling" / "fan.skasd").stat().st_mtime_ns == before
        assert (out / "scores.csv").read_text() == (finished[0] / "scores.csv").read_text()

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
    def test_a_disk_that_takes_no_more(self, run, dev, finished, tmp_path, monkeypatch, code):
        out = tmp_path / "run"
        argv = ["run", dev, *POOLING, "--out", out, "--quiet"]
        write, calls = Path.write_bytes, []

        def fail_at_the_second(path, content):
            if path.suffix == ".skasd":
                calls.append(path)
            if len(calls) > 1:
                write(path, b"half of it")
                raise OSError(code, os.strerror(code), str(path))
            write(path, content)

        monkeypatch.setattr(Path, "write_bytes", fail_at_the_second)
        status, text, err = run(*argv)
        assert (status, text) == (2, "")
        assert err == (
            f"sk-asd: error: Cannot write {out / 'models' / 'pooling' / 'valve.skasd'}: "
            f"{os.strerror(code)}. What is finished is kept: the same command goes on from there.\n"
        )
        parts = {f"parts/pooling/fan.{end}" for end in ("csv", "json")}
        assert done(out) == {"manifest.json", "models/pooling/fan.skasd", *parts}
        before = (out / "models" / "pooling" / "fan.skasd").stat().st_mtime_ns
        monkeypatch.undo()
        assert run(*argv)[0] == 0
        assert (out / "models" / "pooling" / "fan.skasd").stat().st_mtime_ns == before
        assert (out / "scores.csv").read_text() == (finished[0] / "scores.csv").read_text()

    def test_a_folder_that_cannot_be_made(self, run, dev, tmp_path):
        (tmp_path / "file").write_text("x")
        status, text, err = run("run", dev, *POOLING, "--out", tmp_path / "file" / "x", "--quiet")
        assert (status, text) == (2, "")
        assert err.startswith(f"sk-asd: error: Cannot write {tmp_path / 'file' / 'x'}: ")
        assert err.count("\n") == 1

    def test_late_files_that_cannot_be_written(self, run, dev, finished, tmp_path, monkeypatch):
        out = tmp_path / "run"
        shutil.copytree(finished[0], out)
        replace = os.replace

        def refuse(old, new):
            if str(new).endswith("report.html"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(new))
            replace(old, new)

        monkeypatch.setattr(os, "replace", refuse)
        status, _, err = run("run", dev, *POOLING, "--out", out, "--quiet")
        assert status == 2
        assert f"Cannot write {out / 'report.html'}: Permission denied." in err
        assert (out / "report.html").read_text() == (finished[0] / "report.html").read_text()

    def test_two_at_once(self, run, dev, finished):
        with filelock.FileLock(finished[0] / ".lock"):
            status, _, err = run("run", dev, *POOLING, "--out", finished[0], "--quiet")
        assert status == 2
        assert f"--out {finished[0]}: another evaluation is at work there." in err


class TestRefusedFolders:
    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--n-mels", "8"], "n-mels 16 (here 8)"),
            (["--seed", "1"], "seed 0 (here 1)"),
            (["--r", "0.5"], "r not given (here 0.5)"),
            (["--machine", "fan"], "it has the machine valve (not asked for here)"),
            (["--protocol", "A"], "protocol B (here A)"),
        ],
    )
    def test_other_parameters(self, run, dev, finished, more, message):
        before = {name: (finished[0] / name).stat().st_mtime_ns for name in done(finished[0])}
        status, text, err = run("run", dev, *POOLING, *more, "--out", finished[0], "--quiet")
        assert (status, text) == (2, "")
        assert f"--out {finished[0]} holds another evaluation: " in err
        assert message in err
        assert {n: (finished[0] / n).stat().st_mtime_ns for n in done(finished[0])} == before

    def test_a_run_in_which_nothing_was_done_is_none(self, run, dev, tmp_path):
        out = tmp_path / "run"
        argv = ["run", dev, *POOLING, "--out", out, "--quiet"]
        assert run(*argv, "--duration", "0.00001")[0] == 2
        assert done(out) == {"manifest.json"}
        assert run(*argv)[0] == 0
        assert "duration" not in json.loads((out / "manifest.json").read_text())["parameters"]

    def test_other_recordings(self, run, dev, finished, tmp_path):
        data = tmp_path / "data"
        shutil.copytree(dev, data)  # times of modification are kept
        argv = [*POOLING, "--out", finished[0], "--quiet"]
        assert run("run", data, *argv)[0] == 0
        clip = next((data / "dev_data" / "fan" / "train").iterdir())
        os.utime(clip, ns=(0, 0))
        status, _, err = run("run", data, *argv)
        assert (status, err.count("recordings of fan have changed")) == (2, 1)
        clip.unlink()
        status, _, err = run("run", data, *argv)
        assert (status, err.count("30 recordings of fan (here 29)")) == (2, 1)
        assert run("run", dev, *argv)[0] == 0

    def test_a_cache_and_workers_do_not_matter(self, run, dev, finished, tmp_path):
        more = ["--cache-dir", tmp_path / "cache", "--n-jobs", "2", "--quiet"]
        status, text, err = run("run", dev, *POOLING, "--out", finished[0], *more)
        assert (status, text, err) == (0, finished[1], "")

    def test_other_labels_where_they_choose(self):
        old = {"parameters": {}, "data": {"fan": {"files": "x", "labels": "1"}}}
        new = {"parameters": {}, "data": {"fan": {"files": "x", "labels": "2"}}}
        assert differences(old, new) == ["labels of fan have changed"]

    def test_other_versions_warn(self, run, dev, finished, tmp_path):
        out = tmp_path / "run"
        shutil.copytree(finished[0], out)
        manifest = json.loads((out / "manifest.json").read_text())
        manifest["versions"]["torch"] = "0.1"
        (out / "manifest.json").write_text(json.dumps(manifest))
        status, _, err = run("run", dev, *POOLING, "--out", out, "--quiet")
        assert status == 0
        assert f"{out} was begun with torch 0.1 (here " in err

    def test_something_else(self, run, dev, tmp_path):
        (tmp_path / "precious.txt").write_text("x")
        status, _, err = run("run", dev, *POOLING, "--out", tmp_path, "--quiet")
        assert status == 2
        assert "it is not empty" in err
        (tmp_path / "manifest.json").write_text("[]")
        status, _, err = run("run", dev, *POOLING, "--out", tmp_path, "--quiet")
        assert status == 2
        assert "manifest.json is no manifest of an evaluation" in err
        assert done(tmp_path) == {"precious.txt", "manifest.json"}
