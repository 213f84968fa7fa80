"""The system without a network on real recordings, as they are and all at one loudness.

Sets: slide rails and a valve of DCASE (official score), and one-class tasks on small motors (mean
AUC over five classes and three random splits), where nothing but 24 clips of the class are learnt.
Pooling alone stands beside. Members and settings of the fusion were looked at on the former and
kept since they hold on the latter and, in a prototype, on recordings that are not here.

    python benchmarks/bench_instant.py --data FOLDER

FOLDER holds ``dcase_real`` and ``motors`` (default: the environment variable SK_ASD_DATA).
"""

import argparse
import os
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from bench_quality import equal_rms, in_memory, markdown
from sklearn.metrics import roc_auc_score

from sk_asd.datasets import load_clips, make_machine_sounds
from sk_asd.metrics import dcase_score
from sk_asd.systems import make_instant, make_pooling

HEAD = [
    *("dcase_real", "dcase_real, equal RMS", "motors", "motors, equal RMS"),
    *("fit s", "score ms/clip"),
]
SYSTEMS = {
    "pooling": lambda: make_pooling(),
    "instant: ranks": lambda: make_instant(weights=[1, 0, 0]),
    "instant: flux": lambda: make_instant(weights=[0, 1, 0]),
    "instant: peaks": lambda: make_instant(weights=[0, 0, 1]),
    "instant": make_instant,
}


def official(clips, make):
    """Official score in percent, seconds of the fit, and milliseconds to score a clip."""
    train, test = (clips[clips["split"] == split] for split in ("train", "test"))
    start = time.perf_counter()
    system = make().fit(train)
    middle = time.perf_counter()
    scores = system.score_samples(test)
    end = time.perf_counter()
    return 100 * dcase_score(test, scores), middle - start, 1e3 * (end - middle) / len(test)


def one_class(clips, make, n_train=24, seeds=range(3)):
    """Mean AUC in percent of a class against all others."""
    found = []
    for seed in seeds:
        for kind in sorted(clips["kind"].unique()):
            own = np.flatnonzero(clips["kind"] == kind)
            own = own[np.random.default_rng(seed).permutation(len(own))]
            rest = np.setdiff1d(np.arange(len(clips)), own[:n_train])
            table = clips.drop(columns="kind").assign(machine="motor", section="00")
            scores = make().fit(table.iloc[own[:n_train]]).score_samples(table.iloc[rest])
            found.append(roc_auc_score(clips["kind"].iloc[rest] == kind, scores))
    return 100 * np.mean(found)


def motors(folder):
    """Recordings of the motors, and the class of each."""
    table = pd.read_csv(folder / "motors" / "clips.csv")
    paths = [str(folder / "motors" / name) for name in table["file"]]
    return in_memory(pd.DataFrame({"path": paths})).assign(kind=table["motor"].to_numpy())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("SK_ASD_DATA"))
    parser.add_argument("--smoke", action="store_true", help="small, on synthetic sounds")
    args = parser.parse_args()
    if args.smoke:
        sounds = {"n_train": 8, "n_test": 6, "duration": 1.0, "random_state": 0}
        dcase = make_machine_sounds(("fan", "valve"), **sounds)
        kinds = dcase.drop(columns=["split", "label"]).assign(kind=dcase["machine"])
        few = {"n_train": 6, "seeds": [0]}
    else:
        if args.data is None:
            parser.error("--data is needed where SK_ASD_DATA is not set")
        folder, few = Path(args.data), {}
        dcase, kinds = in_memory(load_clips(folder / "dcase_real")), motors(folder)
    rows = []
    for name, make in SYSTEMS.items():
        raw, seconds, ms = official(dcase, make)
        equal, *_ = official(equal_rms(dcase), make)
        classes = [one_class(clips, make, **few) for clips in (kinds, equal_rms(kinds))]
        values = dict(zip(HEAD, (raw, equal, *classes, seconds, ms)))
        rows.append({"system": name, **{k: f"{value:.1f}" for k, value in values.items()}})
    text = markdown(rows)
    print(text)
    if not args.smoke:
        command = "python benchmarks/bench_instant.py --data FOLDER"
        path = Path(__file__).parent / "results" / "instant.md"
        notes = " ".join(__doc__.split("\n\n")[1].split())
        path.write_text(
            f"# Without a network\n\n`{command}`, {date.today()}, 2 cores.\n\n{notes}\n\nSeconds "
            f"and milliseconds are of the whole path, features included.\n\n{text}\n"
        )


if __name__ == "__main__":
    main()
