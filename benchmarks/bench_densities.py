"""Quality of the detectors that train a network of their own: densities and reconstructions.

Every system comes from its builder with the ``laptop`` budget, one network per machine, several
seeds, and with fixed settings (protocol B); the decay of ranking pooling is the published one of
each machine. Where one training gives several scores, each has a line, and the one that the builder
takes says (B).

    python benchmarks/bench_densities.py probabilistic --data FOLDER
    python benchmarks/bench_densities.py reconstruction --data FOLDER
    python benchmarks/bench_densities.py baselines --data FOLDER

The last one has the two systems of the challenge, with its settings for the autoencoder; an
independent loop of bare PyTorch trains the same autoencoder. The classifier of sections is one
network for all machines, as the valve has a single section; its windows are further apart than the
challenge has them, and its learning rate is larger in turn. FOLDER holds ``dcase_real`` and
``mimii_m6db`` (default: the environment variable SK_ASD_DATA).
"""

import argparse
import functools
import os
import sys
import time
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from bench_classification import RESULTS, averages, write
from bench_quality import Line, equal_rms, floors, in_memory, pooled, side_by_side, table
from torch import nn

from sk_asd.datasets import load_clips, make_machine_sounds
from sk_asd.ensemble import GroupedDetector
from sk_asd.features import LogMel
from sk_asd.systems import make_aegan_ad, make_baseline, make_imdn, make_wsp_nfcdee

TRAINING_FREE = (
    "LogMel, mean, GMM, 1 component",
    "LogMel, ranking pooling, GMM, 1 component",
    "LogMel, ranking pooling, GMM, 2 components",
    "LogMel, ranking pooling, Mahalanobis",
)
_BASELINE = functools.partial(make_baseline, "ae")
_CLASSIFIER = functools.partial(
    make_baseline, "mobilenetv2", target=("machine", "section"), by=None
)
_SLIDER = functools.partial(make_aegan_ad, "slider")
_ADAPTIVE = {"section_adaptive": True}
BARE = "autoencoder baseline, bare PyTorch"
# Builder, its arguments, and parameters of the detector.
SYSTEMS = {
    "probabilistic": {
        "WSP-NFCDEE": (make_wsp_nfcdee, {}, {}),
        "WSP-NFCDEE, mean in place of WSP": (make_wsp_nfcdee, {"pooling": "mean"}, {}),
        "IMDN, 30 frames": (make_imdn, {}, {"n_frames": 30}),
        "IMDN, 100 frames": (make_imdn, {}, {"n_frames": 100}),
        "autoencoder baseline": (_BASELINE, {}, {}),
    },
    "reconstruction": {
        "no critic": (_SLIDER, {}, {"adversarial": False}),
        "no critic, adaptive": (_SLIDER, {}, {"adversarial": False, **_ADAPTIVE}),
        "critic": (_SLIDER, {}, {"adversarial": True}),
        "critic, adaptive": (_SLIDER, {}, {"adversarial": True, **_ADAPTIVE}),
    },
    "baselines": {
        "autoencoder baseline": (_BASELINE, {}, {}),
        BARE: (None, {}, {}),
        "MobileNetV2 baseline": (
            _CLASSIFIER,
            {},
            {"train_hop": 32, "window_hop": 8, "lr": 1e-4, "module__momentum": 0.1},
        ),
    },
}
TITLES = {
    "probabilistic": "Densities on real recordings: WSP-NFCDEE and IMDN",
    "reconstruction": "All scores of AEGAN-AD on the slide rail",
    "baselines": "The baselines of the challenge on real recordings",
}
SMOKE = {"feature__n_mels": 16}


def train(clips, name, spec, seed, smoke):
    """Train a system on every machine; a line per score."""
    if name == BARE:
        return [bare_autoencoder(clips, seed, 1 if smoke else 100)]
    make, arguments, params = spec
    system = make(random_state=seed, **arguments)
    grouped = isinstance(system["detector"], GroupedDetector)
    prefix = "detector__detector__" if grouped else "detector__"
    system.set_params(**{prefix + k: v for k, v in params.items()})
    if smoke:
        system.set_params(**SMOKE, **{f"{prefix}max_epochs": 1})
        if (system.get_params().get(f"{prefix}n_frames") or 0) > 16:
            system.set_params(**{f"{prefix}n_frames": 16})
    rows = (clips["split"] == "train").to_numpy()
    # Processor time of a run with one thread: what else the machine does hardly matters.
    start = time.process_time()
    system.fit(clips[rows])
    trained = time.process_time() - start
    start = time.process_time()
    scores = {"": system.score_samples(clips)}
    per_clip = 1000 * (time.process_time() - start) / len(clips)
    detectors = system["detector"].detectors_ if grouped else {}
    if detectors and all(hasattr(d, "score_metrics") for d in detectors.values()):
        chosen = system["detector"].detector.metric
        features = system["feature"].transform(clips)
        scores = {}
        for machine, detector in detectors.items():
            of_machine = (clips["machine"] == machine).to_numpy()
            for metric, values in detector.score_metrics(features[of_machine]).items():
                label = f", {metric}" + (" (B)" if metric == chosen else "")
                scores.setdefault(label, np.empty(len(clips)))[of_machine] = values
    print(f"  {name}, seed {seed}: {trained:.0f} s", file=sys.stderr, flush=True)
    return [Line(name + label, values, trained, per_clip) for label, values in scores.items()]


def bare_autoencoder(clips, seed, epochs):
    """The autoencoder of the challenge, written again with nothing but PyTorch."""
    scores, trained, scored = np.empty(len(clips)), 0.0, 0.0
    for machine in clips["machine"].unique():
        rows = np.flatnonzero(clips["machine"] == machine)
        start = time.process_time()
        features = LogMel(n_fft=1024, hop_length=512, n_mels=128).fit_transform(clips.iloc[rows])
        vectors = torch.from_numpy(features.values).unfold(2, 5, 1).transpose(1, 2).flatten(2)
        torch.manual_seed(seed)
        layers = []
        for n_in, n_out in pairwise((640, 128, 128, 128, 128, 8, 128, 128, 128, 128)):
            norm = nn.BatchNorm1d(n_out, eps=1e-3, momentum=0.01)
            layers += [nn.Linear(n_in, n_out), norm, nn.ReLU()]
        net = nn.Sequential(*layers, nn.Linear(128, 640))
        for layer in net:
            if isinstance(layer, nn.Linear):  # as Keras starts
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        train = np.flatnonzero(clips["split"].iloc[rows] == "train")
        X = vectors[torch.from_numpy(train)].flatten(0, 1)
        for _ in range(epochs):
            for batch in torch.randperm(len(X)).split(512):
                optimizer.zero_grad()
                nn.functional.mse_loss(net(X[batch]), X[batch]).backward()
                optimizer.step()
        net.eval()
        middle = time.process_time()
        with torch.no_grad():
            for row, clip in zip(rows, vectors):
                scores[row] = -(net(clip) - clip).square().mean()
        trained += middle - start
        scored += time.process_time() - middle
    return Line(BARE, scores, trained, 1000 * scored / len(clips))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=tuple(SYSTEMS), nargs="?")
    parser.add_argument("--data", default=os.environ.get("SK_ASD_DATA"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="seconds, on synthetic sounds")
    args = parser.parse_args()
    if args.smoke:
        clips = make_machine_sounds(
            ("slider", "valve"), sections=2, n_train=6, n_test=3, duration=4.5, random_state=0
        )
        args.seeds = 1
        for which in SYSTEMS:
            compare(which, clips, clips, args)
    elif args.which is None:
        parser.error("say which table: " + ", ".join(SYSTEMS))
    elif args.data is None:
        parser.error("give the folder of the recordings with --data, or set SK_ASD_DATA")
    else:
        real, mimii = (
            in_memory(load_clips(Path(args.data) / name))
            for name in ("dcase_real/dev_data", "mimii_m6db")
        )
        compare(args.which, real, mimii, args)


def compare(which, real, mimii, args):
    sets = {"as recorded": real}
    if which == "reconstruction":
        sets["as recorded"] = real[real["machine"] == "slider"].reset_index(drop=True)
    else:
        sets |= {"equal RMS": equal_rms(real), "mimii": equal_rms(mimii)}
    runs, owners = [], []
    for key, clips in sets.items():
        for name, spec in SYSTEMS[which].items():
            # The same recordings once more: one seed is enough.
            for seed in range(1 if key == "equal RMS" else args.seeds):
                runs.append((clips, name, spec, seed, args.smoke))
                owners.append(key)
    found = {key: floors(clips) for key, clips in sets.items()}
    for key, clips in sets.items():
        found[key] += [line for line in pooled(clips) if line.name in TRAINING_FREE]
    for key, lines in zip(owners, side_by_side(train, runs)):
        found[key] += lines
    clips = sets["as recorded"]
    text = table(found["as recorded"], found.get("equal RMS", []), clips)
    if "mimii" in found:
        text += "\n## mimii_m6db, equal RMS\n\nMean over sections, each of which has 9 test "
        text += "clips: it shows that many sections run, and ranks nothing.\n\n"
        text += averages(found["mimii"], sets["mimii"])
    print(text)
    if args.smoke:
        return
    about = "\n\n".join(__doc__.split("\n\n")[1:2])
    if which == "baselines":
        about = __doc__.split("\n\n")[3].strip()
    write(
        RESULTS / f"{which}.md",
        f"# {TITLES[which]}\n\n"
        f"`python benchmarks/bench_densities.py {which} --data FOLDER --seeds {args.seeds}`, "
        f"{date.today()}, {os.cpu_count()} cores, one torch thread a training, torch "
        f"{torch.__version__}.\n\n{about}\n\nSections: AUC source / AUC target / pAUC in %; h: "
        "harmonic mean over a machine; total: over all values; mean and standard deviation over "
        "seeds, at equal RMS of dcase_real seed 0 alone. The standard error of one AUC is about 5 "
        "points at 70 % and 2 at 95 %. Times are "
        "seconds of one core for the whole path from samples in memory.\n\n## "
        f"{'slide rail of ' if which == 'reconstruction' else ''}dcase_real\n\n{text}",
    )


if __name__ == "__main__":
    main()
