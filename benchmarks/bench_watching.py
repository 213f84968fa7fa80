"""A day of sound through StreamingScorer, faster than it was recorded.

A synthetic machine hums for 24 hours at 16 kHz. Faults of the machine, and of the line, are
planted at known times. The stream is fed in chunks of odd sizes, never as a whole. Measured are the
throughput with one core, resident memory minute by minute, the difference between scores and
offline scoring of the same windows, and alarms outside the planted faults.

    python benchmarks/bench_watching.py [--hours H] [--smoke]

With ``--smoke`` it is six minutes of sound, and no result file is written.
"""

import argparse
import math
import os
import platform
import shlex
import sys
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from bench_classification import write
from scipy.stats import poisson

from sk_asd.decisions import false_alarms_per_day, set_threshold
from sk_asd.features import LogMel
from sk_asd.systems import make_pooling
from sk_asd.watching import DriftMonitor, StreamingScorer

RESULTS = Path(__file__).parent / "results" / "watching.md"
SR = 16000
WINDOW = 10.0
K_OF_N = (3, 5)
N_TRAIN = 400
FALSE_PER_DAY = 86  # single windows of the 8,640 of a day
N_RECENT = 300  # windows of a comparison with those of training
KINDS = ("fault", "dead", "fault", "gap", "silence", "fault", "clipping")
LABELS = {"machine": "fan", "section": "00"}


class Machine:
    """Hum and noise; sound of any stretch, the same each time."""

    def __init__(self, seconds):
        period = np.arange(SR) / SR
        self.hum = sum(0.05 / k * np.sin(2 * np.pi * 120 * k * period) for k in (1, 2, 3, 5))
        self.whistle = 0.02 * np.sin(2 * np.pi * 2500 * period)
        # Planted events of two minutes, evenly over the stream.
        n = max(len(KINDS), seconds // 3600) if seconds >= 3600 else 2
        length = 120 if seconds >= 3600 else 60
        begins = ((np.arange(n) + 0.5) * seconds / n).astype(int) // 10 * 10
        self.events = [(KINDS[i % len(KINDS)], b, b + length) for i, b in enumerate(begins)]

    def __call__(self, second):
        """Samples of one second."""
        rng = np.random.default_rng([1, second])
        kind = next((kind for kind, b, e in self.events if b <= second < e), None)
        y = (1 + 0.02 * rng.normal()) * self.hum + 0.02 * rng.standard_normal(SR, dtype=np.float32)
        if kind == "fault":
            y += self.whistle
        elif kind == "dead":
            y[:] = 0.1
        elif kind == "gap":
            y[:] = np.nan
        elif kind == "silence":
            y *= 1e-4
        elif kind == "clipping":
            y = np.clip(40 * y, -1, 1)
        return y.astype(np.float32)

    def stretch(self, second, n):
        """Samples of several seconds."""
        return np.concatenate([self(s) for s in range(second, second + n)])


def train():
    """System fitted to clips of another stretch of sound, long before."""
    healthy = Machine(10)
    healthy.events = []
    audio = [healthy.stretch(10**7 + 10 * i, 10) for i in range(N_TRAIN)]
    clips = pd.DataFrame({"audio": audio, "sr": SR, **LABELS})
    system = make_pooling(feature=LogMel(n_jobs=1)).fit(clips)
    return set_threshold(system, false_alarms_per_day=FALSE_PER_DAY, clips_per_day=8640)


def resident():
    """Resident memory of this process in MB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 2**10


def run(seconds):
    """Feed the stream and return what is measured."""
    system, machine = train(), Machine(seconds)
    drift = DriftMonitor(system[-1].training_scores_, n_recent=N_RECENT)
    scorer = StreamingScorer(system, WINDOW, k_of_n=K_OF_N, hysteresis=0.5, drift=drift, **LABELS)
    rng = np.random.default_rng(0)
    scores, events, memory, spent = [], [], [], 0.0
    rest = np.empty(0, dtype=np.float32)
    for minute in range(seconds // 60):
        sound = np.concatenate([rest, machine.stretch(60 * minute, 60)])
        cuts = np.sort(rng.integers(0, len(sound), 40))
        *chunks, rest = np.split(sound, cuts)
        begin = time.process_time()
        for chunk in chunks:
            for event in scorer.feed(chunk):
                (scores if event.type == "score" else events).append(event)
        spent += time.process_time() - begin
        memory.append(resident())
        if minute % 60 == 0:
            print(f"  hour {minute // 60}: {memory[-1]:.0f} MB", file=sys.stderr, flush=True)
    for event in scorer.feed(rest) + scorer.finish():
        (scores if event.type == "score" else events).append(event)
    return system, machine, scores, events, memory, spent


def check(system, machine, scores, events, memory, seconds):
    """Compare with offline scoring and with what was planted; return a table."""
    rng = np.random.default_rng(2)
    sampled = rng.choice(len(scores), min(200, len(scores)), replace=False)
    waves = [machine.stretch(round(scores[i].start), round(WINDOW)) for i in sampled]
    tables = [pd.DataFrame({"audio": [wave], "sr": SR, **LABELS}) for wave in waves]
    online = np.array([scores[i].score for i in sampled])
    offline = np.array([system.score_samples(table)[0] for table in tables])
    together = system.score_samples(pd.concat(tables))
    faults = [(b, e) for kind, b, e in machine.events if kind == "fault"]
    alarms = [e for e in events if e.type == "alarm"]
    # The windows of an alarm reach back from the fault, and hysteresis holds it a little longer.
    slack = K_OF_N[1] * WINDOW

    def inside(alarm):
        return any(b - slack <= alarm.end and alarm.start <= e + slack for b, e in faults)

    found = [any(b <= a.end <= e + slack for a in alarms) for b, e in faults]
    planted = {
        kind: sum(k == kind for k, _, _ in machine.events)
        for kind in ("dead", "gap", "silence", "clipping")
    }
    seen = {kind: sum(e.type == kind and e.end is not None for e in events) for kind in planted}
    quiet = [s for s in scores if not any(b - WINDOW < s.start < e for _, b, e in machine.events)]
    below = sum(s.score < s.threshold for s in quiet)
    rate = below / len(quiet)
    k, n = K_OF_N
    expected = len(quiet) * math.comb(n, k) * rate**k
    (day,) = false_alarms_per_day(system, 100).itertuples()
    elsewhere = sum(not inside(alarm) for alarm in alarms)
    settled = memory[1:] or memory
    rows = {
        "hours of sound": f"{seconds / 3600:.2f}",
        "windows scored": f"{len(scores):,}",
        "scores that differ from offline scoring, each window alone": (
            f"{np.sum(online != offline)} of {len(sampled)}"
        ),
        "largest relative difference from offline scoring in one table": (
            f"{np.max(np.abs(online / together - 1)):.1e}"
        ),
        "planted faults, of them with an alarm": f"{len(faults)}, {sum(found)}",
        "alarms elsewhere": str(elsewhere),
        "to be expected at most, of independent windows": f"{expected:.2f}",
        "normal windows below the threshold": (
            f"{100 * rate:.2f} % (asked for, on average over training clips: "
            f"{100 * FALSE_PER_DAY / 8640:.2f} %; of these with 95 % confidence: "
            f"{day.low:.2f} to {day.high:.2f} %)"
        ),
        "planted conditions": ", ".join(f"{v} {k}" for k, v in planted.items()),
        "seen": ", ".join(f"{v} {k}" for k, v in seen.items()),
        f"comparisons of {N_RECENT} windows, of them drifted": (
            f"{len(scores) // N_RECENT}, {sum(e.type == 'drift' for e in events)}"
        ),
        "memory after the first minute, MB": f"{settled[0]:.0f}",
        "smallest and largest after it, MB": f"{min(settled):.0f}, {max(settled):.0f}",
        "change": f"{100 * (max(settled) / settled[0] - 1):+.1f} %",
    }
    assert np.array_equal(online, offline), "scores differ from offline scoring"
    most = poisson.ppf(0.999, len(quiet) * math.comb(n, k) * (FALSE_PER_DAY / 8640) ** k)
    assert elsewhere <= most, "more alarms elsewhere than the rate of false alarms explains"
    assert all(found), "a planted fault raised no alarm"
    assert seen == planted, "conditions of the line are not those planted"
    assert max(settled) <= 1.05 * settled[0], "memory grows"
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--smoke", action="store_true", help="six minutes, and no result file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    seconds = 360 if args.smoke else round(args.hours * 60) * 60
    *measured, spent = run(seconds)
    rows = {"times real time, one core": f"{seconds / spent:,.0f}"}
    rows |= check(*measured, seconds)
    text = "| | |\n|---|---|\n" + "".join(f"| {k} | {v} |\n" for k, v in rows.items())
    print(text)
    if args.smoke:
        return
    write(
        RESULTS,
        "# A day of sound through StreamingScorer\n\n"
        f"`{shlex.join(['python', 'benchmarks/bench_watching.py', *sys.argv[1:]])}`, "
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, one thread, torch "
        f"{torch.__version__}.\n\n`make_pooling` with its default LogMel at {SR} Hz, {N_TRAIN} "
        f"training clips, windows of {WINDOW:g} s, alarm by {K_OF_N[0]} of {K_OF_N[1]}. Processor "
        f"time is that of `feed` alone, without the making of the sound.\n\n{text}",
    )


if __name__ == "__main__":
    main()
