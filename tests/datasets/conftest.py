import sys
from pathlib import Path

import pytest

from sk_asd.datasets import fetch_dcase

# The server is of several files of tests, and no package of its own.
sys.path.insert(0, str(Path(__file__).parent))

from zenodo import DEV, DEV_FILES, EVAL, EVAL_FILES, TRAIN, TRAIN_FILES, Zenodo, archive_of


@pytest.fixture(scope="module")
def server():
    zenodo = Zenodo()
    yield zenodo
    zenodo.server.shutdown()
    zenodo.server.server_close()


@pytest.fixture
def zenodo(server, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for state in (server.files, server.checksums, server.plan, server.log):
        state.clear()
    server.put(DEV, archive_of(DEV_FILES))
    server.put(TRAIN, archive_of(TRAIN_FILES))
    server.put(EVAL, archive_of(EVAL_FILES))
    return server


@pytest.fixture
def fetch(zenodo, tmp_path):
    """Fetch the fan of 2022 into a folder without waiting."""

    def fetch(subset="dev", *, year=2022, machine="fan", **options):
        options = {"data_home": tmp_path, "delay": 0, "base_url": zenodo.url, **options}
        return fetch_dcase(year, machine, subset, **options)

    return fetch
