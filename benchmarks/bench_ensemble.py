"""Search of ensemble weights: ScoreEnsembleCV against GridSearchCV over the same cached members.

Six detectors on made-up embeddings of three sections, whose noise they see alike but not the same.
Their fits and scores lie in one cache, which is filled beforehand and used by both rivals, one
core each. The best weights must be the same, and every score up to rounding.

Where GridSearchCV would take longer than the limit, it is given a random part of the settings and
its time is scaled; the comparison is then over that part.

    python benchmarks/bench_ensemble.py [--smoke] [--limit SECONDS]
"""

import argparse
import os
import tempfile
import time
from datetime import date
from pathlib import Path

import joblib
import numpy as np
import sklearn
import xarray as xr
from bench_quality import markdown
from sklearn.model_selection import GridSearchCV

from sk_asd.detectors import (
    CosineDetector,
    GaussianMixtureDetector,
    KNNDetector,
    LOFDetector,
    MahalanobisDetector,
)
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble, ScoreEnsembleCV, simplex_grid
from sk_asd.metrics import dcase_scorer
from sk_asd.model_selection import NormalTrainSplit
from sk_asd.utils._files import replacing

RESULTS = Path(__file__).parent / "results" / "ensemble_search.md"
MEMBERS = {
    "knn": KNNDetector(metric="euclidean"),
    "knn5": KNNDetector(5),
    "lof": LOFDetector(),
    "cosine": CosineDetector(),
    "mahalanobis": MahalanobisDetector(),
    "gmm": GaussianMixtureDetector(2, random_state=0),
}


def embeddings(n_train, n_test, sections=3, dim=16):
    """Labelled array of clips; anomalies lie a little off in a direction of their own."""
    rng = np.random.default_rng(0)
    n = sections * (n_train + n_test)
    position = np.arange(n) % (n_train + n_test)
    test = position >= n_train
    anomaly = test & (position % 2 == 1)
    values = rng.normal(size=(n, dim)) * np.linspace(0.5, 2, dim) + 1
    values[anomaly] += rng.normal(scale=0.7, size=(anomaly.sum(), dim))
    labels = {
        "machine": np.full(n, "fan"),
        "section": np.repeat([f"{s:02d}" for s in range(sections)], n_train + n_test),
        "domain": np.where(position // 2 % 2, "target", "source"),
        "split": np.where(test, "test", "train"),
        "label": np.where(anomaly, "anomaly", "normal"),
    }
    coords = {name: ("clip", column.astype(object)) for name, column in labels.items()}
    return xr.DataArray(values, dims=("clip", "embedding"), coords=coords)


def grid_search(X, members, settings, memory):
    """GridSearchCV over some settings, and its seconds."""
    search = GridSearchCV(
        ScoreEnsemble(members, memory=memory),
        {"weights": settings},
        scoring=dcase_scorer,
        cv=NormalTrainSplit(),
        refit=False,
    )
    start = time.perf_counter()
    return search.fit(X), time.perf_counter() - start


def matrix_search(X, members, step, memory, n_jobs=None):
    """ScoreEnsembleCV, and its seconds: wall clock and processor."""
    search = ScoreEnsembleCV(members, step=step, memory=memory, n_jobs=n_jobs)
    start, used = time.perf_counter(), time.process_time()
    return search.fit(X), time.perf_counter() - start, time.process_time() - used


def compare(X, members, step, limit, rounds):
    """Rows of the table for both rivals, and what was compared."""
    settings = simplex_grid(len(members), step)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        memory = joblib.Memory(folder, verbose=0)
        grid_search(X, members, settings[:1], memory)  # fills the cache
        order = rng.permutation(len(settings))
        _, seconds = grid_search(X, members, [settings[i] for i in order[:20]], memory)
        expected = seconds / 20 * len(settings)
        count = len(settings) if expected <= limit else int(limit / expected * len(settings))
        own, *times = min(
            (matrix_search(X, members, step, memory) for _ in range(rounds)), key=lambda r: r[1]
        )
        scores = own.cv_results_["mean_test_score"]
        # The best setting is among those of GridSearchCV, which are in the order of the grid.
        part = np.unique(np.r_[own.best_index_, order[: count - 1]])
        if count == len(settings):
            part = np.arange(count)
        other, seconds = grid_search(X, members, [settings[i] for i in part], memory)
        loaded = time.perf_counter()
        search, *_ = matrix_search(X, members, 1, memory)
        loaded = time.perf_counter() - loaded
    found = other.cv_results_["mean_test_score"]
    difference = np.abs(found - scores[part]).max()
    assert difference < 1e-12, f"scores differ by {difference}"
    assert other.best_params_ == own.best_params_, (other.best_params_, own.best_params_)
    scaled = seconds * len(settings) / len(part)
    rows = [
        {
            "search": "GridSearchCV",
            "settings": f"{len(settings):,}",
            "seconds": f"{scaled:.1f}"
            + (f" (scaled from {len(part)})" if len(part) < len(settings) else ""),
            "ms a setting": f"{1000 * scaled / len(settings):.3g}",
            "times as fast": "1",
        },
        {
            "search": "ScoreEnsembleCV",
            "settings": f"{len(settings):,}",
            "seconds": f"{times[0]:.2f}",
            "ms a setting": f"{1000 * times[0] / len(settings):.3g}",
            "times as fast": f"{scaled / times[0]:.0f}",
        },
    ]
    weights = ", ".join(f"{n} {w:g}" for (n, _), w in zip(members, own.best_weights_))
    compared = "all" if len(part) == len(settings) else len(part)
    note = (
        f"Best weights of both, over {compared} settings: {weights}, with an official score of "
        f"{own.best_score_:.4f} (uniform: {scores[0]:.4f}). "
        f"Largest difference of a score: {difference:.1e}. Of the time of ScoreEnsembleCV "
        f"{loaded:.2f} s are for reading the cache and for {len(search.best_weights_)} settings."
    )
    return rows, note


def large(members, step, n_test, rounds):
    """The large grid: rows for one and two threads."""
    X = embeddings(100, n_test)
    rows = []
    for n_jobs in (1, 2):
        runs = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                memory = joblib.Memory(folder, verbose=0)
                matrix_search(X, members, 1, memory)
                runs.append(matrix_search(X, members, step, memory, n_jobs))
        search, wall, used = min(runs, key=lambda run: run[1])
        rows.append(
            {
                "settings": f"{len(search.cv_results_['params']):,}",
                "test clips": f"{n_test} × 3 sections",
                "threads": n_jobs,
                "seconds": f"{wall:.1f}",
                "processor seconds": f"{used:.1f}",
            }
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="seconds, and no result file")
    parser.add_argument("--limit", type=float, default=300, help="seconds for GridSearchCV")
    args = parser.parse_args()
    names = list(MEMBERS)[:3] if args.smoke else list(MEMBERS)
    members = [(name, GroupedDetector(MEMBERS[name])) for name in names]
    small, coarse, fine = (40, 0.25, 0.2) if args.smoke else (200, 0.1, 0.05)
    rounds = 1 if args.smoke else 3
    rows, note = compare(
        embeddings(30 if args.smoke else 100, small), members, coarse, args.limit, rounds
    )
    text = f"{markdown(rows)}\n{note}\n\n## A finer grid\n\n"
    text += markdown(large(members, fine, 40 if args.smoke else 600, rounds))
    print(text)
    if args.smoke:
        return
    about = "\n\n".join(__doc__.split("\n\n")[1:3])
    with replacing(RESULTS) as temporary:
        temporary.write_text(
            f"# Search of ensemble weights\n\n`python benchmarks/bench_ensemble.py`, "
            f"{date.today()}, {os.cpu_count()} cores, NumPy {np.__version__}, scikit-learn "
            f"{sklearn.__version__}.\n\n{about}\n\n## Six members, 200 test clips in each of 3 "
            f"sections\n\nOne core each; of ScoreEnsembleCV the best of {rounds} runs.\n\n{text}",
            "utf-8",
        )


if __name__ == "__main__":
    main()
