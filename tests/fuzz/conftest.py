"""Seeds of the fuzz tests: drawn anew in every run, printed, and taken back to repeat one.

``pytest -m fuzz tests/fuzz --hypothesis-seed=N`` repeats the run that printed the seed N.
"""

import functools
import hashlib
import secrets
from pathlib import Path

import hypothesis
import numpy as np
import pytest

_PROPERTY = "fuzz seed"
_seeds = {}


@functools.cache
def _drawn():
    return secrets.token_hex()


def _seed(config):
    """The seed that was asked for, or one for this run, the same in all of its processes."""
    given = config.getoption("--hypothesis-seed", None)
    if str(given).isdecimal():
        return int(given)
    run = getattr(config, "workerinput", {}).get("testrunuid", _drawn())
    return int(hashlib.sha256(run.encode()).hexdigest()[:8], 16)


def _is_fuzz(item):
    return Path(__file__).parent in item.path.parents


def pytest_collection_modifyitems(config, items):
    for item in filter(_is_fuzz, items):
        item.add_marker(pytest.mark.fuzz)
        if getattr(item.obj, "is_hypothesis_test", False):
            # No database: what a run tests depends on its seed alone.
            hypothesis.seed(_seed(config))(item.obj)


def pytest_runtest_setup(item):
    if _is_fuzz(item):
        seed = _seed(item.config)
        item.user_properties.append((_PROPERTY, seed))
        item.add_report_section("setup", "seed", f"--hypothesis-seed={seed}")


def pytest_runtest_logreport(report):
    if report.when == "call":
        seed = dict(report.user_properties).get(_PROPERTY)
        if seed is not None:
            _seeds[report.nodeid] = seed


def pytest_terminal_summary(terminalreporter):
    if _seeds:
        terminalreporter.section("seeds of the fuzz tests")
        for name, seed in sorted(_seeds.items()):
            terminalreporter.line(f"{seed}  {name}")
        terminalreporter.line("To repeat: pytest -m fuzz tests/fuzz --hypothesis-seed=SEED")


@pytest.fixture
def rng(request):
    """Generator of this run, another one for every test."""
    return np.random.default_rng([_seed(request.config), *request.node.name.encode()])
