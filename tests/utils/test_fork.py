"""Networks and scikit-learn in forked processes, after they have run in the parent.

Each test is a process of its own that must end: a child that waits for threads never would.
"""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

START = """
import multiprocessing, os
import numpy as np, torch
import sk_asd
from sk_asd.detectors import AutoEncoderDetector, KNNDetector
from sk_asd.embedders import SectionEmbedder

torch.set_num_threads(2)
rng = np.random.default_rng(0)
features, y = rng.normal(size=(24, 32, 40)).astype("float32"), np.arange(24) % 2
network = AutoEncoderDetector(max_epochs=1, random_state=0).fit(features)
expected = network.score_samples(features)

def score(_=None):
    return network.score_samples(features)

def same(_=None):
    assert np.array_equal(score(), expected)

def forked(function):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""

CASES = {
    "scores": "forked(same)",
    "a child that keeps its threads": """
def threads():
    assert torch.get_num_threads() == 2
    same()
forked(threads)
same()
""",
    "fit": "forked(lambda: AutoEncoderDetector(max_epochs=1).fit(features))",
    "embedder": """
embedder = SectionEmbedder("cnn6", n_frames=32, max_epochs=1, module__width=0.1).fit(features, y)
forked(lambda: embedder.transform(features))
forked(lambda: embedder.fit(features, y))
""",
    "loader with processes": """
embedder = SectionEmbedder(
    "cnn6", n_frames=32, max_epochs=1, module__width=0.1, iterator_train__num_workers=1
).fit(features, y)
""",
    "grandchild": """
def again():
    same()
    forked(same)
forked(again)
forked(lambda: forked(same))
""",
    "pool": """
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert all(np.array_equal(scores, expected) for scores in pool.map(score, range(4)))
""",
    "joblib": """
from joblib import Parallel, delayed
found = Parallel(2, backend="multiprocessing")(delayed(score)() for _ in range(3))
assert all(np.array_equal(scores, expected) for scores in found)
""",
    "scikit-learn": """
X = rng.normal(size=(2000, 8))
knn = KNNDetector(metric="euclidean").fit(X)
knn.score_samples(X)
forked(lambda: knn.score_samples(X))
""",
    "torch alone": """
torch.ones(2_000_000).exp().sum()
forked(lambda: torch.ones(2_000_000).exp().sum())
""",
    "a fork that Python does not know of": """
import ctypes
pid = ctypes.PyDLL(None).fork()
if pid == 0:
    ctypes.pythonapi.PyOS_AfterFork_Child()
    code = 1
    try:
        assert torch.get_num_threads() == 1
        np.testing.assert_allclose(score(), expected, rtol=1e-4)
        code = 0
    finally:
        os._exit(code)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
""",
}


QUICK = ("scores",)


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, code in CASES.items()
    ],
)
def test_forked_processes_do_not_hang(code):
    done = subprocess.run(
        [sys.executable, "-c", START + code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_model_used_in_the_child_alone(tmp_path):
    code = f"""
import joblib
joblib.dump(network, {str(tmp_path / "model.joblib")!r})
loaded = joblib.load({str(tmp_path / "model.joblib")!r})
forked(lambda: loaded.score_samples(features))
"""
    done = subprocess.run(
        [sys.executable, "-c", START + code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_forks_without_heavy_libraries_load_none():
    code = """
import os, sys
import sk_asd
pid = os.fork()
if pid == 0:
    os._exit(len({"torch", "sklearn", "threadpoolctl"} & set(sys.modules)))
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
