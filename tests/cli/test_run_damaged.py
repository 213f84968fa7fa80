"""``sk-asd run``: folders that were damaged, and runs that were killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from sk_asd.cli import main
from sk_asd.datasets import make_machine_sounds
from sk_asd.evaluation._folder import EvaluationFolder
from sk_asd.evaluation._units import Unit
from sk_asd.persistence._models import load_model

SOUNDS = {"n_train": 6, "n_test": 4, "n_target_train": 2, "duration": 0.6, "random_state": 0}
POOLING = ["--system", "pooling", "--n-fft", "512", "--n-mels", "16", "--explain", "0"]
ORACLE = [*POOLING, "--protocol", "A"]


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    root = tmp_path_factory.mktemp("dev")
    make_machine_sounds(("fan", "valve", "bearing"), **SOUNDS, root=root / "data")
    return root / "data"


@pytest.fixture(scope="module")
def finished(dev, tmp_path_factory):
    """Uninterrupted runs by protocol."""
    root = tmp_path_factory.mktemp("finished")
    for name, argv in (("A", ORACLE), ("B", POOLING)):
        assert main(["run", str(dev), *argv, "--out", str(root / name), "--quiet"]) == 0
    return {name: root / name for name in ("A", "B")}


def files_of(out):
    return {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}


def assert_same_run(out, other):
    """The same files, all results to the last digit, and models that can be loaded."""
    assert files_of(out) == files_of(other)
    for name in files_of(out):
        if name.endswith(".csv"):
            assert (out / name).read_text() == (other / name).read_text(), name
        elif name.startswith("models") and not name.endswith(".seal"):
            load_model(out / name)


def flip(path, place=-10):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def take(path, with_seal=False):
    """Let it be the file of another machine."""
    for suffix in ("", ".seal") if with_seal else ("",):
        name = path.with_name(path.name + suffix)
        shutil.copy(str(name).replace("fan", "valve"), name)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "other bytes": flip,
    "empty": lambda path: path.write_bytes(b""),
    "something else": lambda path: path.write_text("path,score\nx.wav,1\n"),
    "another machine's": take,
    "another machine's, with its seal": lambda path: take(path, True),
    "without its seal": lambda path: path.with_name(f"{path.name}.seal").unlink(),
    "seal": lambda path: flip(path.with_name(f"{path.name}.seal"), 3),
}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize(
    "name", ["parts/pooling/fan.csv", "parts/pooling/fan.json", "models/pooling/fan.skasd"]
)
def test_a_damaged_part_is_named_and_made_again(run, dev, finished, tmp_path, name, kind):
    out = tmp_path / "run"
    shutil.copytree(finished["B"], out)
    DAMAGES[kind](out / name)
    kept = out / "models" / "pooling" / "valve.skasd"
    before = kept.stat().st_mtime_ns
    status, _, err = run("run", dev, *POOLING, "--out", out, "--quiet")
    assert status == 0
    (line,) = err.splitlines()
    assert line.startswith(f"sk-asd: warning: {out / name} ")
    assert line.endswith(": it is made again.")
    assert kept.stat().st_mtime_ns == before
    assert_same_run(out, finished["B"])


def test_a_model_of_a_choice(run, dev, finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished["A"], out)
    flip(out / "models" / "pooling" / "fan.skasd")
    status, _, err = run("run", dev, *ORACLE, "--out", out, "--quiet")
    assert status == 0
    assert "fan.skasd is damaged, or of another run: it is made again." in err
    assert_same_run(out, finished["A"])


def test_a_part_of_another_run(run, dev, finished, tmp_path):
    out = tmp_path / "run"
    assert run("run", dev, *POOLING, "--r", "0.5", "--out", out, "--quiet")[0] == 0
    shutil.copytree(finished["B"], tmp_path / "mine")
    for name in ("fan.csv", "fan.csv.seal"):
        shutil.copy(out / "parts" / "pooling" / name, tmp_path / "mine" / "parts" / "pooling")
    status, _, err = run("run", dev, *POOLING, "--out", tmp_path / "mine", "--quiet")
    assert (status, err.count("is damaged, or of another run")) == (0, 1)
    assert_same_run(tmp_path / "mine", finished["B"])


def test_what_a_killed_run_left_is_removed(run, dev, finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished["B"], out)
    for folder in ("", "models", "parts/pooling", "challenge/dev_data"):
        (out / folder / ".tmp_0123").write_text("half")
    (out / ".owner").write_text("gone")
    assert run("run", dev, *POOLING, "--out", out, "--quiet")[0] == 0
    assert_same_run(out, finished["B"])


def test_who_comes_too_late_writes_nothing(tmp_path):
    """A worker of a run that is no more, while the next one is at work."""
    early = EvaluationFolder(tmp_path / "run")
    manifest = {
        **{"format": "sk_asd evaluation 1", "parameters": {}, "data": {}},
        **{"versions": {}, "recordings": "x"},
    }
    with early.open(manifest):
        pass
    path = early.scores(Unit("pooling", "x", None, None, "B", None))
    with (
        EvaluationFolder(tmp_path / "run").open(manifest),
        pytest.raises(OSError, match=r"Cannot write .*x\.csv: another run has taken over"),
        early.writing(path) as temporary,
    ):
        temporary.write_text("late")
    assert not list(path.parent.iterdir())


KILLED_IN_A_WRITE = """
import os, signal, sys
from sk_asd.cli import main
from sk_asd.datasets import _audio
left, before, replace = int(sys.argv[1]), sys.argv[2] == "before", os.replace
def kill(*names):
    global left
    left -= 1
    if left == 0 and before:
        os.truncate(names[0], os.path.getsize(names[0]) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*names)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = kill
main(sys.argv[3:])
"""


def wait_for_the_end_of(group):
    """Wait until no process of a group is left."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail(f"workers of {group} outlive it by 10 s")


KILLS = int(os.environ.get("SK_ASD_KILLS", "20"))


@pytest.mark.slow
def test_killed_at_random_moments(dev, finished, tmp_path):
    """SIGKILL, a third each within writes, at any time, and at any time with two workers.

    A folder is killed a few times and then finished.
    """
    rng = random.Random(0)
    kills, left_over, runs = [], 0, 0
    while len(kills) < KILLS:
        protocol = "AB"[runs % 2]
        out = tmp_path / f"run{runs}"
        argv = ["run", dev, *(ORACLE if protocol == "A" else POOLING), "--out", out, "--quiet"]
        argv = list(map(str, argv))
        for _ in range(rng.randrange(1, 6)):
            kind = ("write", "time", "workers")[len(kills) % 3]
            command = [sys.executable, "-m", "sk_asd", *argv]
            if kind == "write":
                where = [str(rng.randrange(1, 12)), rng.choice(["before", "after"])]
                command = [sys.executable, "-c", KILLED_IN_A_WRITE, *where, *argv]
            elif kind == "workers":
                command += ["--n-jobs", "2"]
            process = subprocess.Popen(
                command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            if kind != "write":
                # From the first file on, whatever the start takes.
                while process.poll() is None and not (out / ".owner").exists():
                    time.sleep(0.02)
                time.sleep(rng.uniform(0, 4 if kind == "time" else 12))
                process.kill()
            _, message = process.communicate()
            assert process.returncode in (0, -signal.SIGKILL), message.decode()
            kills += [kind] * (process.returncode != 0)
            wait_for_the_end_of(process.pid)
            left_over += len(list(out.rglob(".tmp_*")))
        assert main(argv) == 0
        assert_same_run(out, finished[protocol])
        runs += 1
    counts = {kind: kills.count(kind) for kind in sorted(set(kills))}
    print(f"{len(kills)} kills {counts}, {left_over} files left until the next of {runs} runs")
