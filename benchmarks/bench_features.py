"""Speed and memory of feature extraction against plain librosa loops, in one run.

    python benchmarks/bench_features.py [--smoke] [--data FOLDER]

Real recordings are taken from FOLDER, ``$SK_ASD_DATA`` or ``../shared/data``; without them the
sound files are synthetic. Ratios are medians over rounds in which the rivals take turns. With
``--smoke`` everything is small and no result file is written.
"""

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import soundfile
import soxr
import torch
from threadpoolctl import threadpool_limits

from sk_asd.datasets._audio import read_audio, write_audio
from sk_asd.features import STFT, LogMel
from sk_asd.features._base import _limit_torch_to_this_thread

SR = 16000
SECONDS = 10
RESULTS = Path(__file__).parent / "results" / "features.md"


def sound_files(data, scratch, n):
    """`n` flac files of ten seconds: real ones, else synthetic ones."""
    folder = data / "dcase_real" / "dev_data"
    files = sorted(folder.glob("*/train/*.flac"))
    if files:
        chosen = [files[i * len(files) // n] for i in range(n)]
        return chosen, "real recordings (DCASE, 16 bit flac)"
    print(f"No real recordings in {data}; the files are synthetic.", file=sys.stderr)
    rng = np.random.default_rng(0)
    time_axis = np.arange(SECONDS * SR) / SR
    for i in range(n):
        y = 0.02 * rng.normal(size=SECONDS * SR) + 0.1 * np.sin(2 * np.pi * (100 + i) * time_axis)
        write_audio(scratch / f"{i:04d}.flac", y, SR)
    return sorted(scratch.glob("*.flac")), "synthetic noise and tones (16 bit flac)"


def librosa_logmel(wave):
    return librosa.power_to_db(librosa.feature.melspectrogram(y=wave, sr=SR))


def librosa_stft(wave):
    return np.abs(librosa.stft(wave))


def with_one_blas_thread(call):
    """Without BLAS threads, which wait for each other where other programs take the cores."""

    def limited():
        with threadpool_limits(1, user_api="blas"):
            call()

    return limited


def take_turns(rivals, rounds):
    """Seconds and CPU seconds of every call, the rivals alternating: {name: list} twice."""
    for call in rivals.values():
        call()
    times, cpu_times = ({name: [] for name in rivals} for _ in range(2))
    for _ in range(rounds):
        for name, call in rivals.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            call()
            times[name].append(time.perf_counter() - start)
            cpu_times[name].append(time.process_time() - cpu_start)
    return times, cpu_times


def speed(files, rounds):
    """Rows of task, rival, milliseconds a clip, ratio to librosa and its range over rounds."""
    waves = np.stack([read_audio(path)[0] for path in files])
    clips = pd.DataFrame({"path": [str(path) for path in files]})

    def loop(function):
        return lambda: [function(wave) for wave in waves]

    def load_loop(function):
        return lambda: [function(librosa.load(path, sr=SR)[0]) for path in files]

    def ours(extractor, X):
        extractor.fit(X)
        return lambda: extractor.transform(X)

    tasks = {
        "memory → log-mel": (loop(librosa_logmel), LogMel, waves),
        "memory → STFT": (loop(librosa_stft), STFT, waves),
        "flac → log-mel": (load_loop(librosa_logmel), LogMel, clips),
        "flac → STFT": (load_loop(librosa_stft), STFT, clips),
    }
    rows = []
    for task, (peer, extractor, X) in tasks.items():
        rivals = {
            "librosa loop": peer,
            "librosa loop, BLAS on 1 thread": with_one_blas_thread(peer),
            "sk_asd": ours(extractor(), X),
            "sk_asd, n_jobs=1": ours(extractor(n_jobs=1), X),
        }
        times, cpu_times = take_turns(rivals, rounds)
        for name, values in times.items():
            best = map(min, times["librosa loop"], times["librosa loop, BLAS on 1 thread"])
            ratios = [a / b for a, b in zip(best, values)]
            rows.append(
                {
                    "task": task,
                    "what": name,
                    "ms a clip": f"{1e3 * statistics.median(values) / len(files):.2f}",
                    "CPU ms a clip": f"{1e3 * statistics.median(cpu_times[name]) / len(files):.2f}",
                    "times the faster librosa loop": f"{statistics.median(ratios):.2f}",
                    "range": f"{min(ratios):.2f}–{max(ratios):.2f}",
                }
            )
    return rows


def parts(files, rounds):
    """CPU milliseconds a clip of each part of flac → log-mel, in one thread."""
    extractor = LogMel().fit(pd.DataFrame({"path": [str(files[0])]}))
    with ThreadPoolExecutor(1, initializer=_limit_torch_to_this_thread) as pool:
        return pool.submit(_parts, extractor, files, rounds).result()


def _parts(extractor, files, rounds):
    spectra, kernel = extractor._spectra(), extractor._kernel()
    out = np.empty(extractor._shape(), np.float32)
    waves = [read_audio(path)[0] for path in files]
    at_48k = [soxr.resample(wave, SR, 48000) for wave in waves[:4]]

    def decode():
        for path in files:
            read_audio(path)

    def transform():
        for _ in files:
            for start in range(0, len(spectra.frames), spectra.tile):
                frames = spectra.frames[start : start + spectra.tile]
                windowed = spectra.windowed[: len(frames)]
                torch.fft.rfft(torch.mul(frames, spectra.window, out=windowed))

    def power():
        for wave in waves:
            for _ in spectra(wave):
                pass

    def whole():
        for wave in waves:
            kernel(wave, out)

    def decibels():
        for _ in files:
            extractor._to_db(np.abs(out, out=out))

    def resample():
        for wave in at_48k:
            soxr.resample(wave, 48000, SR, quality="HQ")

    measured = {}
    for _ in range(rounds + 1):  # the first round warms up
        for call in (decode, transform, power, whole, decibels, resample):
            start = time.thread_time()
            call()
            n = len(at_48k) if call is resample else len(files)
            measured.setdefault(call, []).append(1e3 * (time.thread_time() - start) / n)
    t = {call: statistics.median(values[1:]) for call, values in measured.items()}
    cost = {
        "decode (libsndfile)": t[decode],
        "window and FFT (MKL through torch)": t[transform],
        "copy in, squared magnitudes": t[power] - t[transform],
        "mel filters and transposition": t[whole] - t[power] - t[decibels],
        "decibels and top_db": t[decibels],
    }
    total = t[decode] + t[whole]
    rows = [
        {"part": name, "CPU ms a clip": f"{ms:.3f}", "share": f"{ms / total:.0%}"}
        for name, ms in cost.items()
    ]
    rows.append({"part": "sum", "CPU ms a clip": f"{total:.3f}", "share": "100%"})
    note = (
        f"The sum is {total / (t[decode] + t[transform]):.2f} times decoding plus FFT alone. "
        f"Resampling, where on_rate='resample' meets a 48 kHz clip, adds {t[resample]:.2f} ms."
    )
    return rows, note


def extract_to_cache(name, cache, list_of_files, n_clips):
    """Child process: extract to a cache and print seconds of two runs and peak memory."""
    files = Path(list_of_files).read_text().splitlines()
    clips = pd.DataFrame({"path": [files[i % len(files)] for i in range(n_clips)]})
    extractor = {"LogMel": LogMel, "STFT": STFT}[name](cache_dir=cache)
    start = time.perf_counter()
    features = extractor.fit_transform(clips)
    first = time.perf_counter() - start
    # Of this process alone: ru_maxrss keeps what the process that started it had.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 2**10
    start = time.perf_counter()
    extractor.fit_transform(clips)
    second = time.perf_counter() - start
    print(features.nbytes / 2**20, first, second, peak)


def memory(files, scratch, n_clips):
    (scratch / "files.txt").write_text("\n".join(map(str, files)))
    rows = []
    for name in ("LogMel", "STFT"):
        with tempfile.TemporaryDirectory(dir=scratch) as cache:
            child = [sys.executable, __file__, "--child", name, cache, scratch / "files.txt"]
            output = subprocess.run(
                [*child, str(n_clips)], check=True, capture_output=True, text=True
            ).stdout
        size, first, second, peak = map(float, output.split())
        rows.append(
            {
                "extractor": name,
                "clips": n_clips,
                "features MB": f"{size:.0f}",
                "peak RSS MB": f"{peak:.0f}",
                "first run s": f"{first:.1f}",
                "second run s": f"{second:.2f}",
            }
        )
    return rows


def table(rows):
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *[[str(row[name]) for name in names] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="small, and no result file")
    default = os.environ.get("SK_ASD_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default), help="folder of recordings")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, cache, files, n_clips = args.child
        extract_to_cache(name, cache, files, int(n_clips))
        return
    n_files, rounds, n_clips = (4, 1, 20) if args.smoke else (64, 9, 2000)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        files, kind = sound_files(args.data, scratch, n_files)
        part_rows, note = parts(files, rounds)
        report = [
            "# Feature extraction",
            "",
            f"`python benchmarks/bench_features.py{' --smoke' if args.smoke else ''}`, "
            f"{datetime.date.today()}; {os.cpu_count()} CPU cores ({platform.machine()}, "
            f"{torch.backends.cpu.get_cpu_capability()}), Python {platform.python_version()}, "
            f"torch {torch.__version__}, librosa {librosa.__version__}, NumPy {np.__version__}, "
            f"soundfile {soundfile.__version__}. Load of the machine before the run: "
            f"{os.getloadavg()[0]:.1f}; with more than about 0.3 other programs took a share of "
            "the cores, so that times are longer and a second thread gains little.",
            "",
            f"{n_files} clips of {SECONDS} s at {SR} Hz, {kind}; 2048-point frames every 512 "
            f"samples, 128 mel bins; {rounds} rounds in which the rivals take turns. Ratios are to "
            "the faster librosa loop of the round: median over rounds, and range.",
            "",
            "## Speed",
            "",
            table(speed(files, rounds)),
            "",
            "## Parts of flac → log-mel, one thread",
            "",
            table(part_rows),
            "",
            note,
            "",
            "## Memory, to `cache_dir`",
            "",
            table(memory(files, scratch, n_clips)),
            "",
        ]
    print("\n".join(report))
    if not args.smoke:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join(report))


if __name__ == "__main__":
    main()
