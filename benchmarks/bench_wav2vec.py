"""Pre-train wav2vec: the small model of the package, or a bounded run on general sound.

    python benchmarks/bench_wav2vec.py [--smoke] [--out FILE]
    python benchmarks/bench_wav2vec.py --data [FOLDER] [--smoke] [--max-time S] [--out FILE]

Without ``--data`` it trains ``sk_asd/features/models/wav2vec_small.safetensors`` on synthetic
machine sounds of fixed seeds, about ten minutes on one core; the file is the same, bit for bit,
with the same versions and number of threads. With ``--data`` it trains on the folder
``general_audio`` of the real recordings (300 clips of 5 s), then trains SC-wav2vec on the machines
of ``dcase_real`` with that model, with the one of the package and with one that has learnt nothing,
three seeds each, and writes ``benchmarks/results/wav2vec.md``. With ``--smoke`` everything is too
small to mean much, and no file is written unless ``--out`` names one.
"""

import argparse
import datetime
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from bench_classification import train
from bench_quality import in_memory, side_by_side, table

from sk_asd.datasets import load_clips, make_machine_sounds
from sk_asd.embedders import Wav2VecPretrainer
from sk_asd.features._wav2vec_models import SMALL
from sk_asd.networks import Wav2Vec1
from sk_asd.systems import make_sc_wav2vec
from sk_asd.utils._files import replacing
from sk_asd.utils._random import RandomStream

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "wav2vec.md"
SEEDS = (0, 1, 2)
MACHINES = ("ToyCar", "ToyTrain", "bearing", "fan", "gearbox", "slider", "valve")
SNRS = (6.0, 20.0, float("inf"))  # dB: noise cannot be predicted, and is mixed in sparingly

# The loss and the 500 updates of warm-up that the report has suit trainings of days.
TRAINING = {
    "batch_size": 4,
    "max_samples": 32000,
    "loss__infonce": True,
    "lr": 1e-3,
    "warmup": 30,
    "checkpoint_every": 50,
}
SMOKE = {"max_updates": 4, "checkpoint_every": 2, "module__channels": 8}


def machine_sounds(smoke):
    """Normal clips of all machines in noise of several levels."""
    sounds = {"sections": 1, "n_train": 2} if smoke else {"sections": 6, "n_train": 6}
    tables = [
        make_machine_sounds(MACHINES, snr=snr, n_test=0, duration=4.0, random_state=seed, **sounds)
        for seed, snr in enumerate(SNRS)
    ]
    return pd.concat(tables, ignore_index=True)


def general_audio(folder, smoke):
    """Clip table of the folder ``general_audio``."""
    files = sorted((folder / "general_audio").rglob("*.flac"))
    if not files:
        sys.exit(f"No recordings in {folder / 'general_audio'}; name their folder with --data.")
    return pd.DataFrame({"path": [str(file) for file in files[: 12 if smoke else None]]})


def curve(history):
    """Rows of a Markdown table."""
    lines = [
        "| update | learning rate | train loss | train accuracy | held-out loss | "
        "held-out accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for row in history:
        lines.append(
            f"| {row['update']} | {row['lr']:.2g} | {row['train_loss']:.3f} "
            f"| {row['train_accuracy']:.3f} | {row['valid_loss']:.3f} "
            f"| {row['valid_accuracy']:.3f} |"
        )
    return lines


def report(pretrainer, clips, what, seconds):
    """Markdown of one training."""
    options = " ".join(sys.argv[1:])
    params = pretrainer.get_params()
    n_negatives, infonce = params.get("loss__n_negatives", 10), params["loss__infonce"]
    chance = 1 / (1 + n_negatives)
    # Of a network that gives every frame the same chance, whatever it has heard.
    blind = -np.log(chance)
    if not infonce:
        blind -= n_negatives * np.log1p(-chance)
    n_parameters = sum(p.numel() for p in pretrainer.net_.module_.parameters())
    return "\n".join(
        [
            "# Pre-training of wav2vec",
            "",
            f"`python benchmarks/bench_wav2vec.py {options}`, {datetime.date.today()}; "
            f"{os.cpu_count()} CPU cores ({platform.machine()}), {torch.get_num_threads()} "
            f"thread(s), device {pretrainer.device}, Python {platform.python_version()}, torch "
            f"{torch.__version__}. Load of the machine after the run: {os.getloadavg()[0]:.1f}.",
            "",
            f"{len(clips)} clips, {what}; {n_parameters / 1e6:.2f} M parameters; "
            f"{pretrainer.n_updates_} of {pretrainer.max_updates} updates of "
            f"{pretrainer.batch_size} crops of {pretrainer.max_samples / pretrainer.sr:.3g} s in "
            f"{seconds:.0f} s ({pretrainer.stop_reason_}); loss: "
            f"{'InfoNCE' if infonce else 'binary cross-entropy'}.",
            "",
            f"Accuracy on held-out clips: **{pretrainer.accuracy_:.3f}**; at chance "
            f"{chance:.3f}. A loss of {blind:.3f} takes no listening.",
            "",
            *curve(pretrainer.net_.history),
            "",
        ]
    )


def compare(network, folder):
    """Table of SC-wav2vec on encoders that have heard something and on one that has not."""
    clips = in_memory(load_clips(folder / "dcase_real" / "dev_data"))
    with RandomStream(1).active():
        untrained = Wav2Vec1(**network.config)
    models = {
        "pre-trained on general audio": network,
        "pre-trained on synthetic machines (in the package)": "small",
        "random weights": untrained,
    }
    runs = [
        (clips, make_sc_wav2vec, name, seed, {"model": model})
        for name, model in models.items()
        for seed in SEEDS
    ]
    lines = [line for found in side_by_side(train, runs) for line in found]
    return [
        "## SC-wav2vec on these encoders",
        "",
        "Machines of dcase_real, recordings as they are, `make_sc_wav2vec(model=…)`; mean and "
        f"standard deviation over seeds {SEEDS}. Sections: AUC source / AUC target / pAUC in %.",
        "",
        table(lines, [], clips),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="small, and no result file")
    default = os.environ.get("SK_ASD_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument(
        "--data", type=Path, nargs="?", const=Path(default), help="train on general sound"
    )
    parser.add_argument("--updates", type=int, default=None, help="number of updates")
    parser.add_argument("--max-time", type=float, default=None, help="seconds of training")
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
    parser.add_argument("--checkpoint", type=Path, default=None, help="file to go on from")
    parser.add_argument("--out", type=Path, default=None, help="file of the model")
    args = parser.parse_args()
    if args.data is None:
        clips = machine_sounds(args.smoke)
        what = "synthetic machine sounds of 4 s"
    else:
        clips = general_audio(args.data, args.smoke)
        what = "general sound of 5 s"
    updates = args.updates or (600 if args.data is None else 2000)
    params = {"max_updates": updates, **TRAINING, **(SMOKE if args.smoke else {})}
    pretrainer = Wav2VecPretrainer(
        "small",
        **params,
        checkpoint=args.checkpoint,
        max_time=args.max_time,
        verbose=1,
        random_state=args.seed,
    )
    start = time.perf_counter()
    pretrainer.fit(clips)
    text = report(pretrainer, clips, what, time.perf_counter() - start)
    if args.data is not None and not args.smoke:
        text += "\n" + "\n".join(compare(pretrainer.net_.module_.network, args.data))
    print(text)
    out = args.out or (SMALL if args.data is None and not args.smoke else None)
    if out is not None:
        pretrainer.save(out, half=True)
        print(f"{out}: {out.stat().st_size / 1e6:.2f} MB")
    if args.data is not None and not args.smoke:
        RESULTS.parent.mkdir(exist_ok=True)
        with replacing(RESULTS) as temporary:
            temporary.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
