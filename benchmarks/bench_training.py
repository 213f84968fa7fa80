"""Time and memory of training, and of scoring, against a bare PyTorch loop.

An embedder, and the adversarial training of AEGAN-AD with its two networks. Same networks, losses,
optimizers, batches and data; each rival has a process of its own with one thread, and they take
turns. Times are processor time; ratios are medians over rounds.

    python benchmarks/bench_training.py [--smoke]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from skorch.callbacks import Callback

from sk_asd.detectors import AEGANDetector
from sk_asd.embedders import SectionEmbedder
from sk_asd.networks import (
    AEGANDiscriminator,
    AEGANGenerator,
    ArcFace,
    MobileFaceNet,
)
from sk_asd.networks._standardize import BinStandardizer
from sk_asd.utils._windows import window_starts

RESULTS = Path(__file__).parent / "results" / "training.md"
N_CLASSES, BATCH = 6, 16
SETTINGS = {
    "log-mel, 64 bins": {"bins": 64, "frames": 313, "window": 128, "clips": 160, "epochs": 4},
    "STFT, 257 bins": {"bins": 257, "frames": 313, "window": 128, "clips": 96, "epochs": 5},
    "AEGAN-AD, 128 bins": {"bins": 128, "frames": 313, "window": 128, "clips": 24, "epochs": 3},
}
SMOKE = {
    "smoke": {"bins": 16, "frames": 40, "window": 16, "clips": 32, "epochs": 1},
    "AEGAN-AD, smoke": {"bins": 16, "frames": 40, "window": 16, "clips": 16, "epochs": 1},
}
# Freed memory is kept, as the command line has it: for both rivals.
MEMORY = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
WIDTH, WINDOW_HOP, AEGAN_BATCH = 0.25, 16, 32  # of AEGAN-AD


def data(bins, frames, clips, **_):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(clips, bins, frames)).astype(np.float32)
    return X, np.arange(clips) % N_CLASSES


def embedder(setting):
    """Seconds of an epoch and of scoring a clip, with the package."""
    X, y = data(**setting)
    model = SectionEmbedder(
        "mobilefacenet",
        n_frames=setting["window"],
        module__width=0.5,
        max_epochs=setting["epochs"],
        batch_size=BATCH,
        random_state=0,
    )
    start = time.process_time()
    model.fit(X, y)
    # The history leaves out what comes before the first epoch; the wall clock does not.
    trained = (time.process_time() - start) / setting["epochs"]
    start = time.process_time()
    model.transform(X)
    return trained, (time.process_time() - start) / len(X)


def bare(setting):
    """The same with nothing but PyTorch."""
    X, y = data(**setting)
    window = setting["window"]
    start = time.process_time()
    torch.manual_seed(0)
    mean, std = X.mean(axis=(0, 2)), X.std(axis=(0, 2))
    net = torch.nn.Sequential(
        BinStandardizer(torch.from_numpy(mean), torch.from_numpy(std)),
        MobileFaceNet(input_size=(setting["bins"], window), width=0.5),
    )
    head = ArcFace(128, N_CLASSES)
    parameters = [*net.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-4)
    targets = torch.from_numpy(y)
    net.train()
    for _ in range(setting["epochs"]):
        order = torch.randperm(len(X))
        for rows in order.split(BATCH):
            starts = torch.randint(setting["frames"] - window + 1, (len(rows),)).tolist()
            clips = rows.tolist()
            batch = np.stack([X[c, :, s : s + window] for c, s in zip(clips, starts)])
            optimizer.zero_grad()
            loss = F.cross_entropy(head(net(torch.from_numpy(batch)), targets[rows]), targets[rows])
            loss.backward()
            optimizer.step()
            loss.item()
    trained = (time.process_time() - start) / setting["epochs"]
    start = time.process_time()
    net.eval()
    starts = window_starts(setting["frames"], window, 32)
    with torch.inference_mode():
        for clip in X:
            windows = np.stack([clip[:, s : s + window] for s in starts])
            F.normalize(net(torch.from_numpy(windows))).mean(0).numpy()
    return trained, (time.process_time() - start) / len(X)


class Stopwatch(Callback):
    """Processor time between the beginning and the end of training.

    On the class, as estimators clone their callbacks.
    """

    def on_train_begin(self, net, **kwargs):
        Stopwatch.start = time.process_time()

    def on_train_end(self, net, **kwargs):
        Stopwatch.seconds = time.process_time() - Stopwatch.start


def aegan(setting):
    """Seconds of an epoch of adversarial training, with the package."""
    X, _ = data(**setting)
    AEGANDetector(
        n_frames=setting["window"],
        window_hop=WINDOW_HOP,
        adversarial=True,
        max_epochs=setting["epochs"],
        batch_size=AEGAN_BATCH,
        callbacks=[Stopwatch()],
        random_state=0,
        module__width=WIDTH,
        loss__match="mean_std",
        optimizer__betas=(0.0, 0.999),
    ).fit(X)
    return Stopwatch.seconds / setting["epochs"], float("nan")


def bare_aegan(setting):
    """The same with nothing but PyTorch."""
    X, _ = data(**setting)
    window = setting["window"]
    torch.manual_seed(0)
    size = setting["bins"], window
    generator = AEGANGenerator(size, width=WIDTH)
    critic = AEGANDiscriminator(size, width=WIDTH)
    optimizers = [
        torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.0, 0.999))
        for net in (generator, critic)
    ]
    low, high = float(X.min()), float(X.max())
    starts = window_starts(setting["frames"], window, WINDOW_HOP)
    places = [(clip, start) for clip in range(len(X)) for start in starts]
    start = time.process_time()
    for _ in range(setting["epochs"]):
        for rows in torch.randperm(len(places)).split(AEGAN_BATCH):
            batch = np.stack([X[c, :, s : s + window] for c, s in (places[i] for i in rows)])
            x = (torch.from_numpy(batch) - (high + low) / 2) / ((high - low) / 2)
            fake = generator(x)
            optimizers[1].zero_grad()
            share = torch.rand(len(x), 1, 1)
            between = (share * x + (1 - share) * fake.detach()).requires_grad_()
            (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
            penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
            loss = critic(fake.detach()).mean() - critic(x).mean() + 10 * penalty
            loss.backward()
            optimizers[1].step()
            loss.item()
            optimizers[0].zero_grad()
            critic.requires_grad_(False)
            real, made = critic.embed(x), critic.embed(fake)
            loss = F.mse_loss(fake, x)
            for statistic in (torch.mean, torch.std):
                loss = loss + 0.1 * F.mse_loss(statistic(made, 0), statistic(real, 0))
            critic.requires_grad_(True)
            loss.backward()
            optimizers[0].step()
            loss.item()
    return (time.process_time() - start) / setting["epochs"], float("nan")


RIVALS = ("package", "bare")


def child(rival, name, setting):
    torch.set_num_threads(1)
    rivals = (aegan, bare_aegan) if name.startswith("AEGAN") else (embedder, bare)
    result = rivals[RIVALS.index(rival)](setting)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(*result, int(status["VmHWM"].split()[0]) / 2**10)


def measure(name, smoke, rounds):
    """A row of the table: medians of both rivals and of their ratios."""
    found = {rival: [] for rival in RIVALS}
    flags = ["--smoke"] if smoke else []
    for _ in range(rounds):
        for rival in RIVALS:
            command = [sys.executable, __file__, "--child", rival, "--setting", name, *flags]
            output = subprocess.run(
                command, check=True, capture_output=True, text=True, env={**os.environ, **MEMORY}
            ).stdout
            found[rival].append([float(v) for v in output.split()])
    row = [name]
    for i, factor in enumerate((1, 1000, 1)):
        own, other = ([run[i] for run in found[rival]] for rival in RIVALS)
        if np.isnan(own).any():
            row += ["–"] * 3
            continue
        ratios = [a / b for a, b in zip(own, other)]
        row += [
            f"{factor * statistics.median(own):.1f}",
            f"{factor * statistics.median(other):.1f}",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
        ]
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="seconds, and no result file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", choices=RIVALS, help=argparse.SUPPRESS)
    parser.add_argument("--setting", help=argparse.SUPPRESS)
    args = parser.parse_args()
    settings = SMOKE if args.smoke else SETTINGS
    if args.child:
        child(args.child, args.setting, settings[args.setting])
        return
    rounds = 1 if args.smoke else args.rounds
    rows = [measure(name, args.smoke, rounds) for name in settings]
    head = ["setting"]
    for what in ("epoch s", "scoring ms/clip", "peak RSS MB"):
        head += [what, "bare loop", "ratio"]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    table = "\n".join(lines) + "\n"
    print(table)
    if args.smoke:
        return
    sizes = "; ".join(
        f"{name}: {s['clips']} clips of {s['frames']} frames, windows of {s['window']}, "
        f"{s['epochs']} epochs"
        for name, s in settings.items()
    )
    with tempfile.NamedTemporaryFile("w", dir=RESULTS.parent, delete=False) as file:
        file.write(
            "# Training and scoring against a bare PyTorch loop\n\n"
            f"`python benchmarks/bench_training.py --rounds {rounds}`, {date.today()}, "
            f"{os.cpu_count()} cores, one torch thread, torch {torch.__version__}.\n\n"
            "`SectionEmbedder` with MobileFaceNet at half its width and ArcFace, batches of "
            f"{BATCH}, against a loop of nothing but PyTorch over the same network, head, "
            "optimizer and windows; start-up of the training (statistics of the bins, initial "
            "weights) is in the time of an epoch of both. `AEGANDetector` with a critic, a quarter "
            f"of the channels and batches of {AEGAN_BATCH}, against a loop with the same two "
            f"networks and losses. {sizes}. Processor time, freed memory "
            "kept (`MALLOC_TRIM_THRESHOLD_`); median of ratios with their range."
            f"\n\n{table}"
        )
    os.replace(file.name, RESULTS)


if __name__ == "__main__":
    main()
