"""What ten clips of a new operating condition teach each detector, over many draws of the ten.

Conditions are Gaussian clouds in 8 dimensions, 30 standard deviations apart; faulty clips are those
of the new condition, 5 standard deviations off in another direction.

    python benchmarks/bench_adapt.py [--smoke]
"""

import argparse
import os
import platform
from datetime import date
from pathlib import Path

import numpy as np
import sklearn
import xarray as xr
from bench_classification import write

from sk_asd.decisions import adapt
from sk_asd.detectors import (
    GaussianMixtureDetector,
    KNNDetector,
    LOFDetector,
    MahalanobisDetector,
)
from sk_asd.ensemble import GroupedDetector

RESULTS = Path(__file__).parent / "results" / "adapt.md"
DISTANCE, FAULT = 30, 5
KNN = {"metric": "euclidean"}
# By name, and the section of the new condition; the known one is section 00.
DETECTORS = {
    "nearest neighbour": (KNNDetector(**KNN), "00"),
    "nearest neighbour, density_neighbors=4": (KNNDetector(density_neighbors=4, **KNN), "00"),
    "LOF": (LOFDetector(**KNN), "00"),
    "Mahalanobis": (MahalanobisDetector(), "00"),
    "mixture of 2": (GaussianMixtureDetector(2, random_state=0), "00"),
    "Mahalanobis, over domain": (GroupedDetector(MahalanobisDetector(), over="domain"), "00"),
    "Mahalanobis, own section": (GroupedDetector(MahalanobisDetector()), "01"),
    "nearest neighbour, own section": (GroupedDetector(KNNDetector(**KNN)), "01"),
}


def clips(n_clips, seed, section="00", place=0, fault=0):
    """Clips of a condition."""
    values = np.random.default_rng(seed).normal(size=(n_clips, 8))
    values[:, 0] += place
    values[:, 3] += fault
    coords = {
        "section": ("clip", np.full(n_clips, section, dtype=object)),
        "domain": ("clip", np.full(n_clips, "new" if place else "source", dtype=object)),
    }
    return xr.DataArray(values, dims=("clip", "embedding"), coords=coords)


def measure(detector, section, draws):
    """Row of the table."""
    before = detector.fit(clips(200, 0))
    later = clips(300, 300, section, DISTANCE)
    faulty = clips(50, 5, section, DISTANCE, FAULT)
    known = section == "00"
    alarms, of_known, found = [], [], []
    for seed in range(1, draws + 1):
        ten = clips(10, seed, section, DISTANCE)
        after = adapt(before, ten, new=() if known else [section])
        alarms.append(np.mean(after.predict(later) == -1))
        of_known.append(np.mean(after.predict(clips(300, 9)) == -1))
        found.append(np.mean(after.predict(faulty) == -1))
    first = f"{np.mean(before.predict(later) == -1):.2f}" if known else "–"
    worst = np.quantile(alarms, 0.95), np.mean(of_known), np.mean(found), np.quantile(found, 0.05)
    return [first, f"{np.mean(alarms):.2f}", *(f"{value:.2f}" for value in worst)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="3 draws, and writes no result file")
    args = parser.parse_args()
    draws = 3 if args.smoke else 100
    columns = ["detector", "before", "after", "after, 95 %", "known condition", "found"]
    columns += ["found, 5 %"]
    rows = [[name, *measure(*case, draws)] for name, case in DETECTORS.items()]
    lines = [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]
    print("\n".join(lines))
    if not args.smoke:
        text = (
            "# Ten clips of a new operating condition\n\n"
            f"`python benchmarks/bench_adapt.py`, {date.today()}, {platform.machine()}, "
            f"{os.cpu_count()} cores, scikit-learn {sklearn.__version__}: {draws} draws of the "
            "ten, beside 200 clips of the known condition; contamination 0.1. Share of later clips "
            "of the new condition that are called abnormal, before and after `adapt`, the mean and "
            "what 5 % of the draws exceed; the same of the known condition, mean; and share of "
            "faulty clips of the new condition that are found, the mean and what 5 % of the draws "
            "fall below.\n"
        )
        write(RESULTS, "\n".join([text, *lines, ""]))


if __name__ == "__main__":
    main()
