"""What a machine of DCASE size costs: training hours, scoring time and memory of every system.

A machine of the challenge has 6 sections of 1,000 training clips of 10 s. Every system of the
builders is fitted to few clips, for one epoch and for more; an epoch is the difference, and both it
and the rest are scaled to 6,000 clips. Large batches are made smaller, which changes the time of an
epoch little. Each system has a process of its own with one thread; times are processor time, so
that two cores take half as long at best.

    python benchmarks/bench_cost.py [--systems NAME ...] [--smoke]
"""

import argparse
import functools
import json
import os
import shlex
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch
from bench_classification import write
from bench_quality import markdown

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
N_CLIPS, SECTIONS, MACHINE = 6000, 6, "fan"
# Builder, training clips a section, and epochs beyond the first.
SYSTEMS = {
    "SC": (functools.partial(make_sc, target=["machine", "section"]), 4, 2),
    "MHCR": (make_mhcr, 4, 2),
    "SC-wav2vec": (functools.partial(make_sc_wav2vec, target=["machine", "section"]), 4, 2),
    "WSP-NFCDEE": (make_wsp_nfcdee, 32, 4),
    "IMDN": (make_imdn, 32, 4),
    "AEGAN-AD": (make_aegan_ad, 2, 1),
    "autoencoder baseline": (functools.partial(make_baseline, "ae"), 8, 1),
    "MobileNetV2 baseline": (functools.partial(make_baseline, "mobilenetv2"), 2, 1),
}
WINDOW_HOP = 32  # of AEGAN-AD, whose windows at hops of 1 would take hours
BATCH = 16  # most windows at a time of the systems below
LARGE = ("SC", "MHCR", "SC-wav2vec", "AEGAN-AD")


def peak():
    """Peak memory of this process in MB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**10


def measure(name, budget, smoke):
    """Seconds of an epoch and of the rest, of scoring a clip, and memory."""
    make, n_train, more = SYSTEMS[name]
    given = {} if "baseline" in name else {"budget": budget}
    clips = make_machine_sounds(
        (MACHINE,),
        sections=2 if smoke else SECTIONS,
        n_train=2 if smoke else n_train,
        n_test=1,
        duration=4.5 if smoke else 10.0,
        random_state=0,
    )
    train = clips[clips["split"] == "train"]
    machine = () if name.endswith("baseline") else (MACHINE,)
    system = make(*machine, random_state=0, **given)
    (network, *_) = networks(system)
    epochs = network.max_epochs
    if name in LARGE:
        network.set_params(batch_size=min(network.batch_size, BATCH))
    factor = 1.0
    if name == "AEGAN-AD" and not smoke:
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
        if name == "AEGAN-AD":
            network.set_params(n_frames=64, window_hop=16, module__width=0.1)
            system.set_params(feature__n_mels=64)
    X = system["feature"].fit_transform(train)
    head = system[1:]
    before, seconds = peak(), []
    for max_epochs in (1, 1, 1 + more):  # the first one warms up
        network.set_params(max_epochs=max_epochs)
        start = time.process_time()
        head.fit(X)
        seconds.append(time.process_time() - start)
    risen = peak() - before
    epoch = (seconds[2] - seconds[1]) / more
    start = time.process_time()
    system.score_samples(clips)
    score = factor * 1000 * (time.process_time() - start) / len(clips)
    scale = factor * N_CLIPS / len(train)
    training = scale * (seconds[1] + (epochs - 1) * epoch)
    cap = getattr(network, "max_time", None)
    hours = f"{training / 3600:.2g}"
    if cap is not None and training > 2 * cap:
        hours += f", ended at {2 * cap / 3600:.2g}"
    return {
        "system": name,
        "budget": budget if given else "challenge",
        "epochs": str(epochs),
        "epoch, core min": f"{scale * epoch / 60:.2g}",
        "training, core h": hours,
        "score ms/clip": f"{score:.0f}",
        "clips": str(len(train)),
        "their features MB": f"{X.nbytes / 2**20:.0f}",
        "peak rises by MB": f"{risen:.0f}",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="seconds, and no result file")
    parser.add_argument("--systems", nargs="+", choices=tuple(SYSTEMS), default=tuple(SYSTEMS))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(*args.child, args.smoke)))
        return
    cells = [
        (name, budget)
        for name in args.systems
        for budget in ("laptop", "report")
        if budget == "laptop" or "baseline" not in name
    ]
    if args.smoke:
        cells = [("SC", "laptop"), ("IMDN", "report"), ("autoencoder baseline", "laptop")]
    flags = ["--smoke"] if args.smoke else []
    # Freed memory is kept, as the command line has it.
    memory = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
    settings = {**os.environ, **memory, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    rows = []
    for cell in cells:
        command = [sys.executable, __file__, "--child", *cell, *flags]
        done = subprocess.run(
            command,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=settings,
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"  {' '.join(cell)}: {rows[-1]['training, core h']} h", file=sys.stderr, flush=True)
    text = markdown(rows)
    print(text)
    if args.smoke:
        return
    write(
        RESULTS,
        "# What a machine of DCASE size costs\n\n"
        f"`{shlex.join(['python', 'benchmarks/bench_cost.py', *sys.argv[1:]])}`, {date.today()}, "
        f"{os.cpu_count()} cores, one torch thread, torch {torch.__version__}.\n\n"
        f"Settings of the builders for `{MACHINE}`, times extrapolated from a few clips to "
        f"{N_CLIPS:,} clips of 10 s ({SECTIONS} sections). {', '.join(LARGE)} are measured with "
        f"batches of at most {BATCH}, AEGAN-AD with windows {WINDOW_HOP} frames apart and scaled. "
        "The laptop budget ends training after its `max_time`, 45 minutes by the clock, 1.5 core "
        "hours on two cores. Scoring is the whole path from samples in memory. The last columns are"
        " of the measured clips: the memory that training takes does not grow with the number of "
        f"windows, which are views of the features.\n\n{text}",
    )


if __name__ == "__main__":
    main()
