"""What a machine of DCASE size costs, and the whole challenge: hours and memory of every system.

A machine of the challenge has 6 sections of 1,000 training clips of 10 s. Every system of the
builders is fitted to few clips, for one epoch and for more; an epoch is the difference, and both it
and the rest are scaled to 6,000 clips. Large batches are made smaller, which changes the time of an
epoch little. Each system has a process of its own with one thread; times are processor time, so
that two cores take half as long at best. Multiplications (MAC) are those of the networks, counted
by torch: an epoch's with the way back, and a clip's when it is scored.

    python benchmarks/bench_cost.py [--systems NAME ...] [--jobs N] [--smoke]
"""

import argparse
import contextlib
import functools
import json
import os
import shlex
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import torch
from bench_classification import write
from bench_quality import markdown
from torch.utils.flop_counter import FlopCounterMode

from sk_asd.datasets import make_machine_sounds
from sk_asd.systems import (
    make_aegan_ad,
    make_baseline,
    make_imdn,
    make_mhcr,
    make_sc,
    make_sc_wav2vec,
    make_wsp_nfcdee,
)
from sk_asd.utils._system import networks
from sk_asd.utils._windows import window_starts

RESULTS = Path(__file__).parent / "results" / "cost.md"
N_CLIPS, N_TEST, MACHINES = 6000, 1200, 7
# Builder, machine whose settings it takes, training clips a section, and epochs beyond the first.
SYSTEMS = {
    "SC": (functools.partial(make_sc, target=["machine", "section"]), "fan", 8, 1),
    "MHCR": (make_mhcr, "fan", 8, 1),
    "SC-wav2vec": (
        functools.partial(make_sc_wav2vec, target=["machine", "section"]),
        "fan",
        8,
        1,
    ),
    "WSP-NFCDEE": (make_wsp_nfcdee, "fan", 64, 4),
    "IMDN": (make_imdn, "fan", 32, 2),
    "AEGAN-AD": (make_aegan_ad, "fan", 2, 1),
    "AEGAN-AD with discriminator": (make_aegan_ad, "slider", 2, 1),
    "autoencoder baseline": (functools.partial(make_baseline, "ae"), None, 16, 1),
    "MobileNetV2 baseline": (functools.partial(make_baseline, "mobilenetv2"), None, 2, 1),
}
# Of the seven machines two have a discriminator.
CHALLENGE = {
    "SC": 7,
    "MHCR": 7,
    "SC-wav2vec": 7,
    "WSP-NFCDEE": 7,
    "IMDN": 7,
    "AEGAN-AD": 5,
    "AEGAN-AD with discriminator": 2,
}
WINDOW_HOP = 32  # of AEGAN-AD, whose windows at hops of 1 would take hours
BATCH = 16  # most windows at a time of the systems below
CLASSIFIERS = ("SC", "MHCR", "SC-wav2vec")
LARGE = (*CLASSIFIERS, "AEGAN-AD")
REPEATS = 2  # fits of which the fastest counts
CORES = (2, 16, 64)
SUMS = f"""## The whole challenge

DCASE 2022: {MACHINES} machines of {N_CLIPS:,} training and {N_TEST:,} test clips; features, \
training and scoring of the subsystems above, without a GPU. All machines are taken to cost what \
the one above costs, AEGAN-AD with discriminator for gearbox and slider alone."""


def peak():
    """Peak memory of this process in MB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**10


class NoModules(contextlib.nullcontext):
    """In place of torch's record of modules, which fails at a gradient penalty."""

    parents = ("Global",)


def macs(function, *args):
    """Multiplications of the networks in a call."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = NoModules()
    with counter:
        function(*args)
    return counter.get_total_flops() / 2


def measure(name, budget, smoke):
    """What a system costs, for a machine of the challenge: numbers by name."""
    make, machine, n_train, more = SYSTEMS[name]
    if budget == "report" and name in CLASSIFIERS:
        n_train //= 4  # a window takes a gigabyte and seconds
    given = {} if machine is None else {"machine": machine, "budget": budget}
    clips = make_machine_sounds(
        (machine or "fan",),
        sections=2 if smoke else 3,
        n_train=2 if smoke else n_train,
        n_test=1,
        duration=4.5 if smoke else 10.0,
        random_state=0,
    )
    train = clips[clips["split"] == "train"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # on the stand-in for the wav2vec model
        system = make(random_state=0, **given)
    (network, *_) = networks(system)
    epochs = network.max_epochs
    if name.startswith(LARGE):
        network.set_params(batch_size=min(network.batch_size, BATCH))
    factor = 1.0
    aegan = name.startswith("AEGAN-AD")
    if aegan and not smoke:
        n_frames = system["feature"].fit_transform(train[:1]).sizes["frame"]
        windows = [
            len(window_starts(n_frames, network.n_frames, hop))
            for hop in (network.window_hop, WINDOW_HOP)
        ]
        factor = windows[0] / windows[1]
        network.set_params(window_hop=WINDOW_HOP)
    if smoke:
        # Windows of the report are longer than the clips.
        if (getattr(network, "n_frames", None) or 0) > 100:
            network.set_params(n_frames=100)
        if aegan:
            network.set_params(n_frames=64, window_hop=16, module__width=0.1)
            system.set_params(feature__n_mels=64)
    X = system["feature"].fit_transform(train)
    start = time.process_time()
    system["feature"].transform(train)
    features = time.process_time() - start
    head = system[1:]
    before = peak()
    counted, seconds = [], {1: [], 1 + more: []}
    for max_epochs in (1, 2):  # which warms up, too
        network.set_params(max_epochs=max_epochs)
        counted.append(macs(head.fit, X))
    for max_epochs in [*seconds] * (1 if smoke else REPEATS):
        network.set_params(max_epochs=max_epochs)
        start = time.process_time()
        head.fit(X)
        seconds[max_epochs].append(time.process_time() - start)
    risen = peak() - before
    one, several = map(min, seconds.values())
    epoch = (several - one) / more
    start = time.process_time()
    system.score_samples(clips)
    score = factor * (time.process_time() - start) / len(clips)
    modules = [part.net_.module_ for part in networks(head) if hasattr(part, "net_")]
    scale = factor * N_CLIPS / len(train)
    cap = getattr(network, "max_time", None)
    training = scale * (one + (epochs - 1) * epoch) / 3600
    return {
        "system": name,
        "budget": budget if given else "challenge",
        "parameters": sum(p.numel() for m in modules for p in m.parameters()) / len(modules),
        "epochs": epochs,
        "epoch MAC": scale * (counted[1] - counted[0]),
        "clip MAC": factor * macs(head.score_samples, X[:1]),
        "features s": features / len(train),
        "epoch s": scale * epoch,
        "training h": training,
        "ended h": None if cap is None or training <= 2 * cap / 3600 else 2 * cap / 3600,
        "score s": score,
        "features bytes": N_CLIPS * X.nbytes / len(train),
        "clips": len(train),
        "rises MB": risen,
    }


def shown(cost):
    """Row of the table."""
    hours = f"{cost['training h']:.2g}"
    if cost["ended h"] is not None:
        hours += f", ended at {cost['ended h']:.2g}"
    return {
        "system": cost["system"],
        "budget": cost["budget"],
        "parameters M": f"{cost['parameters'] / 1e6:.3g}",
        "epochs": str(cost["epochs"]),
        "epoch, TMAC": f"{cost['epoch MAC'] / 1e12:.2g}",
        "epoch, core min": f"{cost['epoch s'] / 60:.2g}",
        "training, core h": hours,
        "features ms/clip": f"{1000 * cost['features s']:.2g}",
        "score ms/clip": f"{1000 * cost['score s']:.0f}",
        "score GMAC/clip": f"{cost['clip MAC'] / 1e9:.2g}",
        "features GB": f"{cost['features bytes'] / 1e9:.2g}",
        "clips": str(cost["clips"]),
        "peak rises by MB": f"{cost['rises MB']:.0f}",
    }


def challenge(costs, budget):
    """Row of all machines and subsystems, and of those without AEGAN-AD, which takes most."""
    rows = []
    for system, names in (
        ("all six", [*CHALLENGE]),
        ("five, without AEGAN-AD", [name for name in CHALLENGE if "AEGAN" not in name]),
    ):
        hours = 0.0
        for name in names:
            cost = costs[name, budget]
            training = cost["training h"] if cost["ended h"] is None else cost["ended h"]
            seconds = N_CLIPS * cost["features s"] + N_TEST * cost["score s"]
            hours += CHALLENGE[name] * (training + seconds / 3600)
        days = {f"days on {n} cores": f"{hours / 24 / n:.2g}" for n in CORES}
        rows.append({"subsystems": system, "budget": budget, "core h": f"{hours:.3g}", **days})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="seconds, and no result file")
    parser.add_argument("--systems", nargs="+", choices=tuple(SYSTEMS), default=tuple(SYSTEMS))
    parser.add_argument("--jobs", type=int, default=1, help="systems measured at a time")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(*args.child, args.smoke)))
        return
    cells = [
        (name, budget)
        for name in args.systems
        for budget in ("laptop", "report")
        if budget == "laptop" or name in CHALLENGE
    ]
    if args.smoke:
        cells = [("SC", "laptop"), ("IMDN", "report"), ("autoencoder baseline", "laptop")]
    flags = ["--smoke"] if args.smoke else []
    # Freed memory is kept, as the command line has it.
    memory = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
    settings = {**os.environ, **memory, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    load = os.getloadavg()[0]

    def child(cell):
        command = [sys.executable, __file__, "--child", *cell, *flags]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=settings)
        row = json.loads(done.stdout.splitlines()[-1])
        print(f"  {' '.join(cell)}: {row['training h']:.2g} h", file=sys.stderr, flush=True)
        return row

    with ThreadPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(child, cells))
    text = markdown([shown(row) for row in rows])
    costs = {(row["system"], row["budget"]): row for row in rows}
    if set(CHALLENGE) <= {name for name, _ in costs}:
        sums = [row for budget in ("laptop", "report") for row in challenge(costs, budget)]
        text += f"\n{SUMS}\n\n{markdown(sums)}"
    print(text)
    if args.smoke:
        return
    write(
        RESULTS,
        "# What a machine of DCASE size costs\n\n"
        f"`{shlex.join(['python', 'benchmarks/bench_cost.py', *sys.argv[1:]])}`, {date.today()}, "
        f"{os.cpu_count()} cores, one torch thread, torch {torch.__version__}. Load of the machine "
        f"before the run: {load:.1f}; with more than about 0.3 other programs took a share of the "
        "cores and of their caches, and times are longer, of small networks above all.\n\n"
        "Settings of the builders for `fan`, with discriminator for `slider`. Times are from a "
        f"single run, of fits the fastest of {REPEATS}, and extrapolated from a few clips of 3 "
        f"sections to {N_CLIPS:,} clips of 10 s. {', '.join(LARGE)} are measured with batches of "
        f"at most {BATCH}, AEGAN-AD with windows {WINDOW_HOP} frames apart and scaled. "
        "The laptop budget ends training after its `max_time`, 45 minutes by the clock, 1.5 core "
        "hours on two cores. Features and scoring are from samples in memory, the latter the whole "
        "path. MAC are the multiplications of networks, an epoch's with the way back. Features in "
        f"GB are those of {N_CLIPS:,} clips. The last columns are of the measured clips: the "
        "memory that training takes does not grow with the number of "
        f"windows, which are views of the features.\n\n{text}",
    )


if __name__ == "__main__":
    main()
