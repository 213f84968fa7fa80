"""Quality of the detectors that train a network of their own: densities and reconstructions.

Every system comes from its builder with the ``laptop`` budget (the baselines with the settings of
the challenge), one network per machine, several seeds, and with fixed settings (protocol B); the
decay of ranking pooling is the published one of each machine. Where one training gives several
scores, each has a line, and the one that the builder takes says (B).

    python benchmarks/bench_densities.py probabilistic --data FOLDER
    python benchmarks/bench_densities.py reconstruction --data FOLDER

FOLDER holds ``dcase_real/dev_data`` (default: the environment variable SK_ASD_DATA).
"""

import argparse
import functools
import os
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from bench_classification import RESULTS, write
from bench_quality import Line, equal_rms, floors, in_memory, pooled, side_by_side, table

from sk_asd.datasets import load_clips, make_machine_sounds
from sk_asd.systems import make_aegan_ad, make_baseline, make_imdn, make_wsp_nfcdee

TRAINING_FREE = (
    "LogMel, mean, GMM, 1 component",
    "LogMel, ranking pooling, GMM, 1 component",
    "LogMel, ranking pooling, GMM, 2 components",
    "LogMel, ranking pooling, Mahalanobis",
)
_BASELINE = functools.partial(make_baseline, "ae")
# Builder, its arguments, and parameters of the detector.
SYSTEMS = {
    "probabilistic": {
        "WSP-NFCDEE": (make_wsp_nfcdee, {}, {}),
        "WSP-NFCDEE, mean in place of WSP": (make_wsp_nfcdee, {"pooling": "mean"}, {}),
        "WSP-NFCDEE, ranking pooling": (make_wsp_nfcdee, {"pooling": "gwrp"}, {}),
        "IMDN, 30 frames": (make_imdn, {}, {"n_frames": 30}),
        "IMDN, 100 frames": (make_imdn, {}, {"n_frames": 100}),
        "autoencoder baseline": (_BASELINE, {}, {}),
    },
    "reconstruction": {
        "autoencoder baseline": (_BASELINE, {}, {}),
        "AEGAN-AD, no critic": (make_aegan_ad, {}, {"adversarial": False}),
        "AEGAN-AD": (make_aegan_ad, {}, {"adversarial": True}),
        "AEGAN-AD, adaptive": (
            make_aegan_ad,
            {},
            {"adversarial": True, "section_adaptive": True},
        ),
    },
}
SMOKE = {"feature__n_mels": 16, "detector__detector__max_epochs": 1}


def train(clips, name, spec, seed, smoke):
    """Train a system on every machine; a line per score."""
    make, arguments, params = spec
    system = make(random_state=seed, **arguments)
    system.set_params(**{f"detector__detector__{k}": v for k, v in params.items()})
    if smoke:
        system.set_params(**SMOKE)
        if (system["detector"].detector.get_params().get("n_frames") or 0) > 16:
            system.set_params(detector__detector__n_frames=16)
    rows = (clips["split"] == "train").to_numpy()
    start = time.perf_counter()
    system.fit(clips[rows])
    trained = time.perf_counter() - start
    start = time.perf_counter()
    scores = {"": system.score_samples(clips)}
    per_clip = 1000 * (time.perf_counter() - start) / len(clips)
    detectors = system["detector"].detectors_
    if all(hasattr(d, "score_metrics") for d in detectors.values()):
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=tuple(SYSTEMS), nargs="?")
    parser.add_argument("--data", default=os.environ.get("SK_ASD_DATA"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="seconds, on synthetic sounds")
    args = parser.parse_args()
    if args.smoke:
        clips = make_machine_sounds(
            ("slider", "valve"), n_train=12, n_test=6, duration=4.5, random_state=0
        )
        args.seeds = 1
        for which in SYSTEMS:
            compare(which, clips, args)
    elif args.which is None:
        parser.error("say which table: probabilistic or reconstruction")
    elif args.data is None:
        parser.error("give the folder of the recordings with --data, or set SK_ASD_DATA")
    else:
        compare(args.which, in_memory(load_clips(Path(args.data) / "dcase_real/dev_data")), args)


def compare(which, clips, args):
    found = {}
    for key, sounds in (("as recorded", clips), ("equal RMS", equal_rms(clips))):
        print(key, file=sys.stderr, flush=True)
        runs = [
            (sounds, name, spec, seed, args.smoke)
            for name, spec in SYSTEMS[which].items()
            for seed in range(args.seeds)
        ]
        trained = side_by_side(train, runs)
        free = [line for line in pooled(sounds) if line.name in TRAINING_FREE]
        found[key] = [*floors(sounds), *free, *(line for lines in trained for line in lines)]
    text = table(found["as recorded"], found["equal RMS"], clips)
    print(text)
    if args.smoke:
        return
    about = __doc__.split("\n\n")[1]
    write(
        RESULTS / f"{which}.md",
        f"# Detectors with a network of their own: {which}\n\n"
        f"`python benchmarks/bench_densities.py {which} --data FOLDER --seeds {args.seeds}`, "
        f"{date.today()}, {os.cpu_count()} cores, one torch thread a training, torch "
        f"{torch.__version__}.\n\n{about}\n\nSections: AUC source / AUC target / pAUC in %; h: "
        "harmonic mean over a machine; total: over all values; mean and standard deviation over "
        "seeds. The standard error of one AUC is about 5 points at 70 % and 2 at 95 %. Times are "
        f"of the whole path from samples in memory.\n\n{text}",
    )


if __name__ == "__main__":
    main()
