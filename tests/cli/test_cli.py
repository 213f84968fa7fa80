"""The program as a whole: help, version, exit statuses, quick start."""

import os
import subprocess
import sys

import pytest

import sk_asd
from sk_asd import cli
from sk_asd.cli import _check

COMMANDS = ("demo", "fetch", "check", "train", "score", "evaluate", "run")
HEAVY = ("torch", "librosa", "matplotlib", "sklearn", "pandas", "numpy")


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_loads_nothing_heavy(argv):
    code = f"""
import sys
from sk_asd.cli import main
try:
    main({argv!r})
except SystemExit as stop:
    assert stop.code == 0, stop.code
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: sk-asd")


def test_module_and_version():
    command = [sys.executable, "-m", "sk_asd", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"sk-asd {sk_asd.__version__}\n")


def test_help_warns_of_foreign_models(run):
    for name in ("train", "score", "run"):
        _, out, _ = run(name, "--help")
        assert "load only one whose source you trust" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required: COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["train", "x", "--out", "m"], "required: --system"),
        (["train", "x", "--system", "magic", "--out", "m"], "invalid choice: 'magic'"),
        (["check", "x", "--n-jobs", "0"], "other than 0"),
        (["check", "x", "--sr", "-1"], "at least 1, found -1"),
        (["train", "x", "--system", "pooling", "--out", "m", "--pooling", "mean+mode"], "'mode'"),
        (["train", "x", "--system", "pooling", "--out", "m", "--r", "2"], "from 0 to 1, found 2"),
        (["train", "x", "--system", "sc", "--out", "m", "--duration", "0"], "above 0, found 0"),
        (["run", "x", "--system", "submission-5", "--out", "r"], "invalid choice: 'submission-5'"),
        (["run", "x", "--system", "sc", "--out", "r", "--protocol", "D"], "invalid choice: 'D'"),
    ],
)
def test_wrong_usage_exits_2(run, argv, message):
    status, out, err = run(*argv)
    assert status == 2
    assert out == ""
    assert message in err


def fail_with(monkeypatch, error):
    def run(args):
        raise error

    monkeypatch.setattr(_check, "run", run)


@pytest.mark.parametrize("error", [ValueError, OSError, ImportError])
def test_user_errors_are_one_line(run, monkeypatch, error):
    fail_with(monkeypatch, error("too\nbad"))
    assert run("check", "x") == (2, "", "sk-asd: error: too bad\n")


def test_debug_raises(monkeypatch):
    fail_with(monkeypatch, ValueError("too bad"))
    with pytest.raises(ValueError, match="too bad"):
        cli.main(["check", "x", "--debug"])


def test_defects_are_not_hidden(monkeypatch):
    fail_with(monkeypatch, KeyError("a defect"))
    with pytest.raises(KeyError):
        cli.main(["check", "x"])


def test_interrupt_exits_130(run, monkeypatch):
    fail_with(monkeypatch, KeyboardInterrupt())
    assert run("check", "x") == (130, "", "sk-asd: interrupted\n")


def test_reader_that_goes_away_is_no_error(folder):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "sk_asd", "check", str(folder), "--quiet"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == ""


def test_threads_wait_passively_unless_told_otherwise(run, monkeypatch):
    monkeypatch.setattr(_check, "run", lambda args: 0)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    run("check", "x")
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    run("check", "x")
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_warnings_are_one_line(run, monkeypatch):
    def warn(args):
        import warnings

        warnings.warn("mind\nthis", UserWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(_check, "run", warn)
    assert run("check", "x") == (0, "", "sk-asd: warning: mind this\n")
