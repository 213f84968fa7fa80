"""Time and scores of a clip in onnxruntime against the system that was exported, in one run.

Both get the same waveforms in memory, one thread each, and take turns; times are processor time,
the whole way from samples to score, and medians over rounds. Freed memory is kept, as the command
line does; without that our own networks lose up to half their time to page faults. The first table
is about systems on synthetic sounds, the second about SC with each of its detectors on real
recordings.

    python benchmarks/bench_export.py [--smoke] [--data FOLDER]

Real recordings are taken from FOLDER, ``$SK_ASD_DATA`` or ``../shared/data``; without them there is
no second table.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from sklearn.pipeline import Pipeline

from sk_asd import export_onnx
from sk_asd.datasets import load_clips, make_machine_sounds
from sk_asd.datasets._audio import read_audio
from sk_asd.features import LogMel
from sk_asd.systems import make_pooling, make_sc
from sk_asd.utils._freed_memory import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "export.md"
BATCHES = (1, 8)
MACHINE = "slider"  # of the real recordings
# Steps enough for the statistics of batch normalisation; else all embeddings are alike.
EPOCHS, BATCH_SIZE = 3, 4
DETECTORS = ("knn", "lof", "cosine", "mahalanobis")
COLUMNS = ["batch", "own ms/clip", "onnxruntime ms/clip", "own / onnxruntime", "file MB"]
COLUMNS += ["export s", "largest difference", "standard deviation of scores"]


def short_sc(machine=None, **settings):
    """SC that is trained for a few epochs."""
    system = make_sc(machine, max_epochs=EPOCHS, device="cpu", random_state=0, **settings)
    return system.set_params(embedder__batch_size=BATCH_SIZE)


def tiny_sc():
    """SC for a run of seconds."""
    system = short_sc(feature=LogMel(n_fft=512, n_mels=16), backbone="cnn6")
    return system.set_params(embedder__n_frames=16, embedder__module__width=0.1)


def systems(smoke):
    """Unfitted systems by name; k-NN, since a covariance enlarges what embeddings differ in."""
    if smoke:
        return {"pooling": make_pooling(feature=LogMel(n_fft=512, n_mels=16)), "SC": tiny_sc()}
    return {
        "pooling": make_pooling(),
        "SC laptop, STFT, MobileFaceNet": short_sc(detector="knn"),
        "SC laptop, log-mel, MFNSE": short_sc("slider", detector="knn"),
        "SC report, STFT, MobileFaceNet": short_sc(
            feature="stft", backbone="mobilefacenet", budget="report", detector="knn"
        ),
    }


def with_detectors(system, train):
    """Fitted SC by the name of its detector; the embedder is trained once."""
    system.fit(train)
    embeddings = system[:-1].transform(train)
    for name in DETECTORS:
        detector = make_sc(MACHINE, detector=name)["detector"].fit(embeddings)
        yield name, Pipeline([*system.steps[:-1], ("detector", detector)])


def recordings(folder, smoke):
    """Training clips of a machine, and 50 others in memory."""
    clips = load_clips(folder)
    train, test = (clips[clips["split"] == split] for split in ("train", "test"))
    n_clips = 8 if smoke else 50
    test = test.iloc[np.linspace(0, len(test) - 1, n_clips).astype(int)]
    test = test.assign(audio=[read_audio(path)[0] for path in test["path"]], sr=16000)
    return train[:: 9 if smoke else 1], test.drop(columns="path").reset_index(drop=True)


def seconds(score, n_clips):
    """Processor time of a clip."""
    start = time.process_time()
    score()
    return (time.process_time() - start) / n_clips


def measure(system, test, folder, rounds, batches):
    """Rows of a table for a fitted system: one for every size of a batch."""
    system.set_params(feature__n_jobs=1)
    path = Path(folder) / "model.onnx"
    start = time.process_time()
    report = export_onnx(system, path, clips=test)
    export = time.process_time() - start
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [(group["machine"], group["section"]) for group in report.groups]
    rows = []
    for batch in batches:
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
        rows.append(
            [
                batch,
                f"{own:.1f}",
                f"{graph:.1f}",
                f"{ratio:.2f}",
                f"{path.stat().st_size / 1e6:.1f}",
                f"{export:.0f}",
                f"{report.max_difference:.1e}",
                f"{system.score_samples(test).std():.1e}",
            ]
        )
        print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    return rows


def markdown(first, rows):
    """A table whose first column has this name."""
    lines = [[first, *COLUMNS], ["---"] * (len(COLUMNS) + 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny, and writes no result file")
    default = os.environ.get("SK_ASD_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default), metavar="FOLDER")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    sounds = make_machine_sounds(
        ("fan", "valve"),
        n_train=8 if args.smoke else 16,
        n_test=8,
        duration=1.0 if args.smoke else 10.0,
        random_state=0,
    )
    train = sounds[sounds["split"] == "train"]
    test = sounds[sounds["split"] == "test"].reset_index(drop=True)
    rounds = 2 if args.smoke else 7
    rows, real = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, system in systems(args.smoke).items():
            print(name, file=sys.stderr)
            found = measure(system.fit(train), test, folder, rounds, BATCHES)
            rows += [[name, *row] for row in found]
        source = args.data / "dcase_real" / "dev_data" / MACHINE
        if source.is_dir():
            train, test = recordings(source, args.smoke)
            system = tiny_sc() if args.smoke else short_sc(MACHINE)
            for name, fitted in with_detectors(system, train):
                print(f"{MACHINE}, {name}", file=sys.stderr)
                found = measure(fitted, test, folder, rounds, (1, len(test)))
                real += [[name, *row] for row in found]
        else:
            print(f"No real recordings in {args.data}: no second table.", file=sys.stderr)
    text = markdown("system", rows)
    if real:
        text += (
            f"\n\n## Real recordings\n\nSC of the laptop budget for `{MACHINE}` (log-mel, MFNSE), "
            f"{EPOCHS} epochs on {len(train)} recordings of DCASE; {len(test)} others, the "
            "first alone and all in one batch. The four systems have the network in common.\n\n"
            + markdown("detector", real)
        )
    print(text)
    head = (
        "# Exported systems: onnxruntime against our own scoring\n\n"
        f"`python benchmarks/bench_export.py`, {date.today()}, {os.cpu_count()} cores, one thread "
        f"each, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}.\n\n"
        "Clips of 10 s, from samples in memory to the score; processor time, medians of 7 rounds "
        "in which both take turns; freed memory is kept, as the command line does. A ratio above 1 "
        "means that onnxruntime is faster. The Fourier transform of the graph is a product with "
        "fixed matrices, which every runtime has; ours is a fast one. Of our own, some 10 ms a "
        "call are the labels that a clip table carries. The largest difference is that of a score."
        "\n\n## Synthetic sounds\n\n"
        "Networks after a few steps of training, which give all clips all but the same score: "
        "for time, not for parity.\n\n"
    )
    if not args.smoke:
        RESULTS.write_text(head + text + "\n")


if __name__ == "__main__":
    main()
