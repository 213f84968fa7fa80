"""What a fleet costs beside the training itself: listing, sending, waiting, and a lost worker.

``sk-asd run`` on a plant of synthetic machines, in one process, on a dask cluster of two worker
processes, and on such a cluster that loses a worker in the middle. All train in one thread, so that
the scores must be the same; decisions and the report, which come after the training, are made in
one process always. Listing is of empty files, of which names alone are read.

    python benchmarks/bench_cluster.py [--machines N] [--smoke]
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cloudpickle
import numpy as np
import pandas as pd
import torch
from bench_classification import write
from bench_quality import markdown
from distributed import LocalCluster

from sk_asd.datasets import load_clips, make_machine_sounds

RESULTS = Path(__file__).parent / "results" / "cluster.md"
LISTED = 50_000


def make_plant(root, n_machines, n_train, duration):
    """Machines of two sections, the same sounds under other names."""
    make_machine_sounds(
        ("fan",),
        sections=2,
        n_train=n_train,
        n_test=20,
        duration=duration,
        root=root,
        random_state=0,
    )
    first = root / "dev_data" / "fan"
    for i in range(1, n_machines):
        shutil.copytree(first, first.with_name(f"fan{i:03d}"))


def run(plant, out, system, *more):
    """Seconds of a run in a process of its own."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "sk_asd", "run", plant, "--system", *system, "--out", out]
    subprocess.run([*command, *more, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def kill_when_begun(victim, out):
    """Kill a worker once the first part of a run is there."""
    while not any(Path(out).glob("parts/*/*.csv")):
        time.sleep(0.02)
    os.kill(victim, signal.SIGKILL)


def on_cluster(plant, out, system, *, lose=False):
    """Seconds of a run on two workers; one is killed after so many seconds."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        killer = None
        if lose:
            victim = next(iter(cluster.workers.values())).pid
            killer = threading.Thread(target=kill_when_begun, args=(victim, out), daemon=True)
            killer.start()
        seconds = run(plant, out, system, "--scheduler", cluster.scheduler_address)
        if killer is not None:
            assert not killer.is_alive(), "the run was over before the worker was killed"
    return seconds


def scores(out):
    return pd.read_csv(out / "scores.csv", dtype={"section": str})


def runs(folder, n_machines, smoke):
    """Rows of the table of runs, and the clips of a machine."""
    plant = folder / "plant"
    n_train = 10 if smoke else 100
    make_plant(plant, n_machines, n_train, 1.0 if smoke else 5.0)
    small = ["--n-fft", "512", "--n-mels", "16"] if smoke else []
    rows = []
    for name, system in {
        "pooling": ["pooling", *small],
        "autoencoder": ["ae", *small, "--epochs", "1" if smoke else "5"],
    }.items():
        alone = run(plant, folder / f"{name} alone", system)
        two = on_cluster(plant, folder / f"{name} two", system)
        lost = on_cluster(plant, folder / f"{name} lost", system, lose=True)
        expected = scores(folder / f"{name} alone")
        difference = max(
            np.abs(scores(folder / f"{name} {how}")["score"] / expected["score"] - 1).max()
            for how in ("two", "lost")
        )
        assert difference < 1e-6, "a cluster gives other scores"
        times = [f"{seconds:.1f}" for seconds in (alone, two, lost)]
        rows.append([name, *times, f"{alone / two:.2f}", f"{difference:.0e}"])
        print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    return rows, plant


def sent(plant):
    """Bytes that go to a worker for every clip of a part."""
    clips = load_clips(plant)
    clips = clips[clips["machine"] == "fan"].assign(data="dev_data")
    n, half = len(clips), len(clips) // 2
    whole, part = (len(cloudpickle.dumps(clips[:k].copy())) for k in (n, half))
    return (whole - part) / (n - half)


def listing(folder, n):
    """Microseconds and bytes of memory for every file that is listed."""
    root = folder / "dev_data" / "fan" / "train"
    root.mkdir(parents=True)
    for i in range(n):
        (root / f"section_0{i % 6}_source_train_normal_{i:05d}_m-n_A.wav").touch()
    begin = time.perf_counter()
    clips = load_clips(folder)
    seconds = time.perf_counter() - begin
    return 1e6 * seconds / n, clips.memory_usage(deep=True).sum() / n


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machines", type=int, default=12, help="of the plant (default: 12)")
    parser.add_argument("--smoke", action="store_true", help="tiny, and writes no result file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    n_machines = 4 if args.smoke else args.machines
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        rows, plant = runs(folder, n_machines, args.smoke)
        n_bytes = sent(plant)
        microseconds, memory = listing(folder / "names", 1000 if args.smoke else LISTED)
    columns = ["system", "one process s", "two workers s", "one of them killed s", "speed-up"]
    columns.append("largest relative difference")
    table = markdown(pd.DataFrame(rows, columns=columns))
    text = (
        f"{table}\nSent to a worker: {n_bytes:.0f} bytes a clip, names and labels. Listing a "
        f"folder: {microseconds:.0f} µs and {memory / 1e3:.2f} kB a clip.\n"
    )
    print(text)
    if args.smoke:
        return
    paragraphs = __doc__.split("\n\n")[1:-1]
    command = shlex.join(["python", "benchmarks/bench_cluster.py", *sys.argv[1:]])
    write(
        RESULTS,
        "# What a fleet costs beside the training\n\n"
        f"`{command}`, {date.today()}, {os.cpu_count()} cores, torch {torch.__version__}.\n\n"
        + "\n\n".join(paragraphs)
        + f"\n\n{n_machines} machines of 200 training and 40 test clips of 5 s; seconds by the "
        "clock, the start of the command, of about 3 s, included.\n\n" + text,
    )


if __name__ == "__main__":
    main()
