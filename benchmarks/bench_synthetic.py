"""How hard the synthetic machine sounds are for simple detectors, and how long they take to make.

    python benchmarks/bench_synthetic.py [--smoke] [--seeds N] [--machines M ...]

Official metrics of DCASE 2022 (AUC per domain with the anomalies of both domains, pAUC) with the
defaults of ``make_machine_sounds``, over sections and seeds. The aim is a best simple detector
between 0.6 and 0.95 in both domains, the target domain harder, for every machine, and a loudness
floor at chance. With ``--smoke`` everything is too small to mean much, and no result file is
written.
"""

import argparse
import datetime
import os
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from sk_asd.datasets import make_machine_sounds
from sk_asd.detectors import KNNDetector, MahalanobisDetector
from sk_asd.ensemble import GroupedDetector
from sk_asd.features import LogMel, TimePooling
from sk_asd.metrics import dcase_scores

MACHINES = ("ToyCar", "ToyTrain", "bearing", "fan", "gearbox", "slider", "valve")
POOLINGS = {
    "mean": TimePooling(("mean",)),
    "mean + std": TimePooling(("mean", "std")),
    "max": TimePooling(("max",)),
    "gwrp 0.9": TimePooling(("gwrp",), r=0.9),
}
DETECTORS = {
    "1-NN": KNNDetector(metric="euclidean"),
    "Mahalanobis": MahalanobisDetector(),
}
FLOORS = ("level", "level + crest")
METRICS = ["auc_source", "auc_target", "pauc"]
LOW, HIGH = 0.6, 0.95
FIRST_SEED = 10  # the severities were chosen with seeds 0 and 1
RESULTS = Path(__file__).parent / "results" / "synthetic.md"


def floors(clips):
    """Loudness and crest factor in dB, as tables with the section."""
    level = [20 * np.log10(np.sqrt(np.mean(y**2))) for y in clips["audio"]]
    crest = [20 * np.log10(np.abs(y).max()) for y in clips["audio"]] - np.array(level)
    table = pd.DataFrame({"section": clips["section"], "level": level})
    return {"level": table, "level + crest": table.assign(crest=crest)}


@threadpool_limits.wrap(limits=1)  # matrices this small only wait for a second thread
def evaluate(clips):
    """Metrics per section of every simple detector on the sounds of one machine."""
    train = np.flatnonzero(clips["split"] == "train")
    test = np.flatnonzero(clips["split"] == "test")
    logmel = LogMel(n_fft=1024, hop_length=512, n_mels=128).fit_transform(clips)
    rivals = {
        f"{pooling}, {name}": (transformer.fit_transform(logmel), detector)
        for pooling, transformer in POOLINGS.items()
        for name, detector in DETECTORS.items()
    }
    rivals |= {name: (X, DETECTORS["Mahalanobis"]) for name, X in floors(clips).items()}
    tables = []
    for name, (X, detector) in rivals.items():
        model = GroupedDetector(make_pipeline(StandardScaler(), detector), by="section")
        rows = X.iloc if isinstance(X, pd.DataFrame) else X
        scores = model.fit(rows[train]).score_samples(rows[test])
        table = dcase_scores(clips.iloc[test].drop(columns="audio").assign(path="-"), scores)
        tables.append(table[table["section"] != "hmean"].assign(detector=name))
    return pd.concat(tables)


def run(machines, seeds, **sounds):
    """Metrics of every machine, seed, section and detector, and milliseconds to make a clip."""
    tables, times = [], {}
    for machine in machines:
        make_machine_sounds(machine, n_train=2, n_test=0)
        for seed in seeds:
            start = time.process_time()
            clips = make_machine_sounds(machine, random_state=seed, **sounds)
            times.setdefault(machine, []).append(1e3 * (time.process_time() - start) / len(clips))
            tables.append(evaluate(clips).assign(seed=seed))
            print(f"{machine}, seed {seed}: {times[machine][-1]:.1f} ms a clip", flush=True)
    return pd.concat(tables), times


def percent(mean, std=None):
    """Figure in percent, with the spread where there is one."""
    return f"{100 * mean:.1f}" + (f" ± {100 * std:.1f}" if std is not None else "")


def report(table, times):
    """Markdown: the best simple detector per machine, then all of them."""
    by_seed = table.groupby(["machine", "detector", "seed"], sort=False)[METRICS].mean()
    mean = by_seed.groupby(level=[0, 1], sort=False).mean()
    std = by_seed.groupby(level=[0, 1], sort=False).std(ddof=0)
    both = mean[["auc_source", "auc_target"]].mean(axis=1).rename("both")
    lines = [
        "## Best simple detector per machine",
        "",
        "| machine | detector | AUC source | AUC target | mean | pAUC | level alone | ms a clip |",
        "|---|---|---|---|---|---|---|---|",
    ]
    inside = True
    for machine in times:
        name = both[machine].drop(list(FLOORS)).idxmax()
        figures, spread = mean.loc[machine, name], std.loc[machine, name]
        lines.append(
            f"| {machine} | {name} "
            f"| {percent(figures.auc_source, spread.auc_source)} "
            f"| {percent(figures.auc_target, spread.auc_target)} "
            f"| {percent(both[machine, name])} | {percent(figures.pauc, spread.pauc)} "
            f"| {percent(both[machine, 'level'])} | {np.median(times[machine]):.1f} |"
        )
        inside &= figures.auc_target >= LOW and figures.auc_source <= HIGH
        inside &= figures.auc_target < figures.auc_source
    lines += [
        "",
        f"Every machine's best simple detector between {LOW} and {HIGH} in both domains, and the "
        f"target domain harder: **{'yes' if inside else 'no'}**.",
        "",
        "## All simple detectors: AUC source / AUC target / pAUC",
        "",
        "| detector | " + " | ".join(times) + " |",
        "|---" * (1 + len(times)) + "|",
    ]
    for name in table["detector"].unique():
        cells = [" / ".join(percent(v) for v in mean.loc[machine, name]) for machine in times]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="small, and no result file")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--machines", nargs="+", choices=MACHINES, default=MACHINES, metavar="M")
    args = parser.parse_args()
    if args.smoke:
        seeds, sounds = [0], {"sections": 1, "n_train": 10, "n_test": 8, "duration": 1.0}
    else:
        seeds, sounds = (
            list(range(FIRST_SEED, FIRST_SEED + args.seeds)),
            {"sections": 3, "n_train": 100, "n_test": 100},
        )
    options = "".join(
        [
            " --smoke" if args.smoke else "",
            f" --seeds {args.seeds}" if args.seeds != 3 else "",
            f" --machines {' '.join(args.machines)}" if args.machines != MACHINES else "",
        ]
    )
    table, times = run(args.machines, seeds, **sounds)
    text = "\n".join(
        [
            "# Hardness of the synthetic machine sounds",
            "",
            f"`python benchmarks/bench_synthetic.py{options}`, {datetime.date.today()}; "
            f"{os.cpu_count()} CPU cores ({platform.machine()}).",
            "",
            f"Seeds {', '.join(map(str, seeds))} (severities were chosen with 0 and 1); per "
            f"machine {', '.join(f'{key}={value}' for key, value in sounds.items())}; "
            "everything else as by default. Figures are percent, means over sections and seeds, ± "
            "the spread over seeds. Log-mel (n_fft 1024, hop 512, 128 bands) pooled over time, "
            "standardised, one detector per section over both domains. `level` is the loudness "
            "alone. Time is CPU time of one clip, one thread.",
            "",
            report(table, times),
            "",
        ]
    )
    print(text)
    if not args.smoke and not options:
        RESULTS.parent.mkdir(exist_ok=True)
        temporary = RESULTS.with_name(f".{RESULTS.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, RESULTS)


if __name__ == "__main__":
    main()
