"""``sk-asd run --scheduler``, and ensembles on joblib's dask backend."""

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import weakref

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from joblib.parallel import ThreadingBackend
from sklearn.base import BaseEstimator, OutlierMixin, clone

from sk_asd._versions import versions
from sk_asd.cli import _scheduler
from sk_asd.cli._run import with_absolute_paths
from sk_asd.cli._train import build
from sk_asd.datasets import make_machine_sounds
from sk_asd.detectors import GaussianMixtureDetector, KNNDetector, MahalanobisDetector
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
from sk_asd.evaluation import _cluster
from sk_asd.evaluation._folder import EvaluationFolder
from sk_asd.evaluation._units import Unit
from sk_asd.systems._registry import BUILDERS
from sk_asd.utils._parallel import _call, task

SOUNDS = {"n_train": 6, "n_test": 4, "n_target_train": 2, "duration": 0.6, "random_state": 0}
FEATURES = ["--n-fft", "512", "--n-mels", "16", "--explain", "0"]
POOLING = ["--system", "pooling", *FEATURES]
AUTOENCODER = ["--system", "ae", *FEATURES, "--epochs", "1"]


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    """Two machines; not to be written into."""
    root = tmp_path_factory.mktemp("dev")
    make_machine_sounds(("fan", "valve"), sections=2, **SOUNDS, root=root)
    return root


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two processes."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster


def read(out):
    return pd.read_csv(out / "scores.csv", dtype={"section": str})


def assert_same_scores(one, other):
    """Rows in the same order; the last digits depend on the number of threads."""
    one, other = read(one), read(other)
    numbers = ["score", "threshold"]
    pd.testing.assert_frame_equal(one.drop(columns=numbers), other.drop(columns=numbers))
    np.testing.assert_allclose(one[numbers], other[numbers], rtol=1e-6)


def hold_the_first(client, marker):
    """Make the first training on these workers last, once it has written its process id."""

    def patch(marker):
        from sk_asd.evaluation import _units

        fit = _units._train

        def slow(*args):
            try:
                descriptor = os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                return fit(*args)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            time.sleep(300)

        _units._train = slow

    client.run(patch, os.fspath(marker))


def kill_who_works(marker, killed, pid=None):
    """Send SIGKILL to the worker that has written its process id, or to another process then."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        text = marker.read_text() if marker.exists() else ""
        if text.endswith("\n"):
            killed.append(int(text) if pid is None else pid)
            os.kill(killed[0], signal.SIGKILL)
            return
        time.sleep(0.05)


@pytest.mark.slow
class TestRun:
    def test_two_workers_as_one_process(self, run, dev, cluster, tmp_path):
        one, two = tmp_path / "one", tmp_path / "two"
        argv = ["run", dev, *POOLING, "--out"]
        assert run(*argv, one, "--quiet")[0] == 0
        status, _, err = run(*argv, two, "--scheduler", cluster.scheduler_address)
        assert status == 0
        assert "done (1 of 2)" in err
        assert "pooling: done (2 of 2)" in err
        assert_same_scores(one, two)

    def test_a_worker_lost_in_the_middle(self, run, dev, cluster, tmp_path):
        one, two = tmp_path / "one", tmp_path / "two"
        argv = ["run", dev, *AUTOENCODER, "--quiet", "--out"]
        assert run(*argv, one)[0] == 0
        marker, killed = tmp_path / "marker", []
        with Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            hold_the_first(client, marker)
        killer = threading.Thread(target=kill_who_works, args=(marker, killed))
        killer.start()
        status, text, _ = run(*argv, two, "--scheduler", cluster.scheduler_address)
        killer.join()
        assert status == 0
        assert text.endswith(f"Run: {two}\n")
        assert len(killed) == 1
        assert_same_scores(one, two)
        parts = {p.relative_to(two).as_posix() for p in two.glob("parts/*/*.csv")}
        assert parts == {"parts/ae/fan.csv", "parts/ae/valve.csv"}

    def test_a_scheduler_that_goes(self, run, dev, tmp_path):
        """What is finished is kept, and the line says so."""
        out, held = tmp_path / "run", tmp_path / "held"
        script = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""
        (tmp_path / "cluster.py").write_text(script)
        command = [sys.executable, tmp_path / "cluster.py"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, **pipes, text=True) as process:
            address = process.stdout.readline().strip()
            with Client(address, set_as_default=False) as client:
                client.wait_for_workers(1, timeout=60)
                hold_the_first(client, held)
            killer = threading.Thread(target=kill_who_works, args=(held, [], process.pid))
            killer.start()
            status, _, err = run("run", dev, *POOLING, "--out", out, "--scheduler", address)
            killer.join()
        assert status == 2
        assert f"The scheduler {address} has gone. What is finished is kept: the same " in err
        assert run("run", dev, *POOLING, "--out", out, "--quiet")[0] == 0

    def test_the_address_of_a_worker(self, run, dev, cluster, tmp_path):
        with Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
            address = next(iter(client.scheduler_info()["workers"]))
        argv = ["run", dev, *POOLING, "--out", tmp_path / "x", "--scheduler", address]
        status, _, err = run(*argv)
        assert status == 2
        assert "no scheduler answers (it is a " in err

    def test_a_worker_that_sees_another_disk(self, cluster, tmp_path):
        with Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
            unit = Unit("ae", "fan", None, None, "B", None)
            args = (versions(), EvaluationFolder(tmp_path / "nowhere"), unit, None)
            with pytest.raises(OSError, match="does not see .*nowhere: all must share"):
                client.submit(_cluster._work, *args).result()


@pytest.fixture(scope="module")
def X():
    """Features of three sections, labelled."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 5)).astype(np.float32)
    coords = {"section": ("clip", np.repeat(["00", "01", "02"], 20).astype(object))}
    return xr.DataArray(values, dims=("clip", "feature"), coords=coords)


@pytest.mark.slow
class TestEnsembles:
    def test_grouped_detector(self, cluster, X):
        detector = GroupedDetector(GaussianMixtureDetector(random_state=0))
        here = detector.fit(X).score_samples(X)
        with Client(cluster, set_as_default=False) as client, on_dask(client):
            there = clone(detector).fit(X)
        np.testing.assert_allclose(there.training_scores_, detector.training_scores_, rtol=1e-6)
        np.testing.assert_allclose(there.score_samples(X), here, rtol=1e-6)

    def test_score_ensemble_of_grouped_detectors(self, cluster, X):
        members = [
            ("knn", GroupedDetector(KNNDetector(metric="euclidean"))),
            ("spread", GroupedDetector(MahalanobisDetector())),
        ]
        ensemble = ScoreEnsemble(members)
        here = ensemble.fit(X).score_samples(X)
        with Client(cluster, set_as_default=False) as client, on_dask(client):
            there = clone(ensemble).fit(X)
            scores = there.score_samples(X)
        np.testing.assert_allclose(there.training_scores_, ensemble.training_scores_, rtol=1e-6)
        np.testing.assert_allclose(scores, here, rtol=1e-6)

    def test_a_worker_lost_in_the_middle(self, cluster, X, tmp_path):
        """Arrays of its groups were sent to it; they are sent again."""
        detector = GroupedDetector(dies_once(os.fspath(tmp_path / "marker")))
        with Client(cluster, set_as_default=False) as client, on_dask(client):
            client.wait_for_workers(2, timeout=60)
            detector.fit(X)
        assert (tmp_path / "marker").exists()
        np.testing.assert_array_equal(detector.training_scores_, X.values[:, 0])


class Other(socketserver.BaseRequestHandler):
    """What a server does that is not dask's: it sends its greeting and keeps the line."""

    def handle(self):
        self.request.sendall(self.server.greeting)
        time.sleep(3)


def on_dask(client):
    return joblib.parallel_config("dask", client=client)


def dies_once(marker):
    """Detector whose first fit kills the process that it is in; pickled with its class."""

    class DiesOnce(OutlierMixin, BaseEstimator):
        def __init__(self, marker):
            self.marker = marker

        def fit(self, X, y=None):
            try:
                os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                self.offset_ = 0.0
                return self
            os.kill(os.getpid(), signal.SIGKILL)

        def score_samples(self, X):
            return np.asarray(X)[:, 0].astype(float)

    return DiesOnce(marker)


class TestTasks:
    @pytest.mark.parametrize("system", BUILDERS)
    def test_hold_paths_and_no_arrays(self, system, tmp_path):
        """100 clips with attributes, in a folder with a long name."""
        folder = tmp_path / "storage of the plant" / "dcase2022" / "dev_data"
        rows = [
            {
                "path": f"{folder}/fan/train/section_00_source_train_normal_{i:04d}_vel_{i}.wav",
                **{"machine": "fan", "section": "00", "domain": "source", "split": "train"},
                **{"label": "normal", "vel": i, "data": "dev_data"},
            }
            for i in range(100)
        ]
        unit = Unit(system, "fan", build(system, {"seed": 0}, "fan"), None, "B", None)
        one = task(_cluster._work, {}, tmp_path, unit, pd.DataFrame(rows))
        assert len(cloudpickle.dumps(one)) < 50_000

    def test_are_one_argument_that_stays_with_its_task(self):
        """joblib sends what can be weakly referenced to one worker, where it is lost with it."""
        _, args, kwargs = task(np.add, np.zeros(1000), np.ones(1000))
        assert (len(args), kwargs) == (1, {})
        with pytest.raises(TypeError, match="cannot create weak reference"):
            weakref.ref(args[0])

    def test_inner_parallel_stays_where_it_is(self):
        class Cluster(ThreadingBackend):
            default_n_jobs = -1

        with joblib.parallel_config(Cluster(), n_jobs=3):
            assert _call((joblib.effective_n_jobs, (None,))) == 1
            assert joblib.effective_n_jobs(None) == 3


class TestOneLine:
    def test_the_extra_is_missing(self, run, dev, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "distributed", None)
        argv = ["run", dev, *POOLING, "--out", tmp_path / "x", "--scheduler", "tcp://h:1"]
        status, text, err = run(*argv)
        assert (status, text, err.count("\n")) == (2, "", 1)
        assert err.startswith("sk-asd: error: --scheduler: ")
        assert err.endswith('Install the extra: pip install "sk_asd[distributed]"\n')
        assert not (tmp_path / "x").exists()

    def test_nobody_answers(self, run, dev, tmp_path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
            argv = ["run", dev, *POOLING, "--out", tmp_path / "x", "--scheduler", address]
            status, text, err = run(*argv)
        assert (status, text) == (2, "")
        assert err.startswith(f"sk-asd: error: --scheduler {address}: no scheduler answers (")
        assert err.count("\n") == 1
        assert not (tmp_path / "x").exists()

    @pytest.mark.parametrize("greeting", [b"", b"\xff" * 64])
    def test_some_other_server(self, run, dev, tmp_path, monkeypatch, greeting):
        """One that says nothing, and one that says what it likes."""
        monkeypatch.setattr(_scheduler, "TIMEOUT", 1)
        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Other) as server:
            server.daemon_threads, server.greeting = True, greeting
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address = f"tcp://127.0.0.1:{server.server_address[1]}"
            argv = ["run", dev, *POOLING, "--out", tmp_path / "x", "--scheduler", address]
            status, _, err = run(*argv)
            server.shutdown()
        assert status == 2
        assert err.startswith(f"sk-asd: error: --scheduler {address}: no scheduler answers (")
        assert err.count("\n") == 1

    @pytest.mark.parametrize("address", ["nonsense", "udp://127.0.0.1:1", "tcp://127.0.0.1", ":"])
    def test_no_address(self, run, dev, tmp_path, address):
        argv = ["run", dev, *POOLING, "--out", tmp_path / "x", "--scheduler", address]
        status, _, err = run(*argv)
        assert status == 2
        assert f"--scheduler {address}: expected an address such as tcp://host:8786" in err

    def test_workers_are_not_counted_twice(self, run, dev, tmp_path):
        argv = ["run", dev, *POOLING, "--out", tmp_path / "x", "--scheduler", "tcp://h:1"]
        status, _, err = run(*argv, "--n-jobs", "2")
        assert status == 2
        assert "--n-jobs applies to this machine; with --scheduler every worker counts." in err

    def test_a_worker_with_other_versions(self, tmp_path):
        unit = Unit("ae", "fan", None, None, "B", None)
        args = {"torch": "0.1"}, EvaluationFolder(tmp_path), unit, None
        with pytest.raises(ValueError, match=r"has other versions: expected torch 0\.1 \(here "):
            _cluster._work(*args)


def test_file_names_hold_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.safetensors").touch()
    options = {"cache_dir": "cache", "wav2vec": "m.safetensors", "seed": 1}
    assert with_absolute_paths(options) == {
        **{"cache_dir": str(tmp_path / "cache"), "seed": 1},
        "wav2vec": str(tmp_path / "m.safetensors"),
    }
    assert with_absolute_paths({"wav2vec": "small"}) == {"wav2vec": "small"}
