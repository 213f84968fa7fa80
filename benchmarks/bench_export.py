"""Time of a clip in onnxruntime against the system that was exported, in one run.

Both get the same waveforms in memory, one thread each, and take turns; times are processor time,
the whole way from samples to score, and medians over rounds.

    python benchmarks/bench_export.py [--smoke]
"""

import argparse
import statistics
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import torch

from sk_asd import export_onnx
from sk_asd.datasets import make_machine_sounds
from sk_asd.features import LogMel
from sk_asd.systems import make_pooling, make_sc

RESULTS = Path(__file__).parent / "results" / "export.md"
BATCHES = (1, 8)


def systems(smoke):
    """Unfitted systems by name."""
    small = {"max_epochs": 1, "device": "cpu", "random_state": 0}
    if smoke:
        sc = make_sc(feature=LogMel(n_fft=512, n_mels=16), backbone="cnn6", **small)
        sc.set_params(embedder__n_frames=16, embedder__module__width=0.1)
        return {"pooling": make_pooling(feature=LogMel(n_fft=512, n_mels=16)), "SC": sc}
    return {
        "pooling": make_pooling(),
        "SC laptop, STFT, MobileFaceNet": make_sc(**small),
        "SC laptop, log-mel, MFNSE": make_sc("slider", **small),
        "SC report, STFT, MobileFaceNet": make_sc(
            feature="stft", backbone="mobilefacenet", budget="report", **small
        ),
    }


def seconds(score, n_clips):
    """Processor time of a clip."""
    start = time.process_time()
    score()
    return (time.process_time() - start) / n_clips


def measure(system, train, test, folder, rounds):
    """Rows of the table: one for every size of a batch."""
    system.set_params(feature__n_jobs=1).fit(train)
    path = Path(folder) / "model.onnx"
    start = time.process_time()
    report = export_onnx(system, path, clips=test)
    export = time.process_time() - start
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [(group["machine"], group["section"]) for group in report.groups]
    rows = []
    for batch in BATCHES:
        clips = test[:batch]
        feed = {"waveform": np.stack(clips["audio"].tolist()).astype(np.float32)}
        if len(names) > 1:
            groups = [names.index(name) for name in zip(clips["machine"], clips["section"])]
            feed["group"] = np.array(groups, dtype=np.int64)
        rivals = {
            "own": lambda clips=clips: system.score_samples(clips),
            "onnx": lambda feed=feed: session.run(None, feed),
        }
        times = {name: [] for name in rivals}
        for score in rivals.values():
            score()  # the first time is another one
        for _ in range(rounds):
            for name, score in rivals.items():
                times[name].append(seconds(score, len(clips)))
        ratio = statistics.median(o / t for o, t in zip(times["own"], times["onnx"]))
        own, graph = (1e3 * statistics.median(times[name]) for name in rivals)
        size = path.stat().st_size / 1e6
        rows.append(
            [
                batch,
                f"{own:.1f}",
                f"{graph:.1f}",
                f"{ratio:.2f}",
                f"{size:.1f}",
                f"{export:.0f}",
                f"{report.max_difference:.1e}",
            ]
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny, and writes no result file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sounds = make_machine_sounds(
        ("fan", "valve"),
        n_train=8 if args.smoke else 16,
        n_test=8,
        duration=1.0 if args.smoke else 10.0,
        random_state=0,
    )
    train = sounds[sounds["split"] == "train"]
    test = sounds[sounds["split"] == "test"].reset_index(drop=True)
    columns = ["batch", "own ms/clip", "onnxruntime ms/clip", "own / onnxruntime", "file MB"]
    columns += ["export s", "largest difference"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, system in systems(args.smoke).items():
            for row in measure(system, train, test, folder, 2 if args.smoke else 7):
                rows.append([name, *row])
                print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    table = pd.DataFrame(rows, columns=["system", *columns])
    text = "\n".join(
        "| " + " | ".join(map(str, row)) + " |"
        for row in [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
    )
    head = (
        "# Exported systems: onnxruntime against our own scoring\n\n"
        f"`python benchmarks/bench_export.py`, {date.today()}, one thread each, torch "
        f"{torch.__version__}, onnxruntime {onnxruntime.__version__}.\n\n"
        "Clips of 10 s, from samples in memory to the score; processor time, medians of 7 rounds "
        "in which both take turns. A ratio above 1 means that onnxruntime is faster. The Fourier "
        "transform of the graph is a product with fixed matrices, which every runtime has; ours is "
        "a fast one.\n\n"
    )
    print(text)
    if not args.smoke:
        RESULTS.write_text(head + text + "\n")


if __name__ == "__main__":
    main()
