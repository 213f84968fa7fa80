"""The six subsystems and their ensembles on real recordings: submissions 1 to 4, and "best".

All members come from their builders with the ``laptop`` budget and are trained on all machines of
a set at a time, each once per seed; ensembles add the standardised scores of the same trainings.

Protocol B: Mahalanobis behind the classifiers, the score that the builder takes of the others,
uniform weights. Protocol A (oracle): of every machine and seed the best by test labels of
detectors, of scores or, for ensembles, of convex weights on a grid of 0.1, as the report chose
them. Members without a choice are the same under both. Parts and weights of "best" were settled
after a look at test scores of these recordings as they are, with the same seeds, so that its
figures are somewhat optimistic. It has one decay of ranking pooling for all machines; in "best,
decays" it is the published one of each machine.

Weights without anomalies: members are trained on one half of the training clips and score the
other, and pseudo-anomalies made of it, and the reverse; weights are the best of the grid for each
machine, of equally good ones the most uniform. They are then used with the members of the table
above. "Gap" is what is missing to the oracle, in points of the official score of the machine.

    python benchmarks/bench_submissions.py --data FOLDER

FOLDER holds ``dcase_real`` and ``mimii_m6db`` (default: the environment variable SK_ASD_DATA).
"""

import argparse
import functools
import os
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import bench_classification
import bench_densities
import joblib
import numpy as np
import torch
from _known import KnownDomains, KnownScores, target_probability
from bench_classification import CHOSEN, RESULTS, averages, write
from bench_quality import (
    BY,
    Line,
    equal_rms,
    floors,
    in_memory,
    markdown,
    percent,
    pooled,
    side_by_side,
    table,
)
from sklearn.base import clone

from sk_asd.datasets import load_clips, make_machine_sounds
from sk_asd.ensemble import ScoreEnsemble, ScoreEnsembleCV, simplex_grid
from sk_asd.ensemble._grid_metrics import GridMetric, metric_of
from sk_asd.ensemble._splits import pseudo_split
from sk_asd.metrics import dcase_scores
from sk_asd.systems import make_aegan_ad, make_submission
from sk_asd.systems._tables import MACHINES

CLASSIFIERS = bench_classification.SYSTEMS
_DENSITIES = bench_densities.SYSTEMS["probabilistic"]
DENSITIES = {
    **{name: _DENSITIES[name] for name in ("WSP-NFCDEE", "IMDN, 100 frames")},
    "AEGAN-AD": (make_aegan_ad, {}, {}),
}
BASELINES = {
    name: bench_densities.SYSTEMS["baselines"][name]
    for name in ("autoencoder baseline", "MobileNetV2 baseline")
}
SIX = [*CLASSIFIERS, *DENSITIES]
# Members of submissions 2 to 4; submission 1 is the second with domains told apart.
SUBMISSIONS = {
    "submission-2": SIX,
    "submission-3": ["SC", "MHCR", "WSP-NFCDEE"],
    "submission-4": ["SC", "WSP-NFCDEE"],
    "best": ["MHCR", "ranks", "peaks"],
    "best, decays": ["MHCR", "ranks, decays", "peaks"],
}
TRAINING_FREE = "LogMel, ranking pooling, GMM, 2 components"


def domains(clips, seed, smoke):
    """Probability of the target domain by the classifier of submission-1, held out in training."""
    part = clone(make_submission(1, random_state=seed).estimators[0][1])
    part.set_params(detector=KnownScores())
    if smoke:
        classifier = "domain_classifier__classifier__classifier__"
        part.set_params(**{f"{classifier}max_epochs": 1, "domain_classifier__feature__n_mels": 16})
    train = (clips["split"] == "train").to_numpy()
    start = time.process_time()
    part.fit(clips[train])
    seconds = time.process_time() - start
    target = np.empty(len(clips))
    rows = np.r_[np.flatnonzero(train), np.flatnonzero(~train)]
    target[rows] = target_probability(part, clips[~train])
    return Line("domain classifier", target, seconds)


def pools(clips, seed):
    """Scores of the members of "best" that train no network."""
    train = (clips["split"] == "train").to_numpy()
    found = {name: np.empty(len(clips)) for name in ("ranks", "ranks, decays", "peaks")}
    for machine in clips["machine"].unique():
        rows = (clips["machine"] == machine).to_numpy()
        for name, scores in found.items():
            known = machine if name.endswith("decays") and machine in MACHINES else None
            members = dict(make_submission("best", known, random_state=seed).estimators)
            member = members[name.removesuffix(", decays")].fit(clips[rows & train])
            scores[rows & train] = member[-1].training_scores_
            scores[rows & ~train] = member.score_samples(clips[rows & ~train])
    return found


def ensemble(clips, members, weights=None, target=None):
    """Scores of an ensemble, whose members' scores are known, with weights for all machines."""
    labels = clips.drop(columns="audio").assign(path=np.arange(len(clips)).astype(str), **members)
    stand_ins = [(name, KnownScores(name)) for name in members]
    if target is not None:
        labels["target"] = target
        normalised = make_submission(1).estimators[0][1]
        stand_ins = [
            (
                name,
                clone(normalised).set_params(
                    detector=known, domain_classifier=KnownDomains("target")
                ),
            )
            for name, known in stand_ins
        ]
    fitted = ScoreEnsemble(stand_ins, weights, by=BY).fit(labels[labels["split"] == "train"])
    return fitted, labels


def uniform(clips, members, weights=None, target=None):
    fitted, labels = ensemble(clips, members, weights, target)
    return fitted.score_samples(labels)


def oracle(clips, members, target=None):
    """Scores with the best weights of every machine by test labels, and these weights."""
    scores, weights = np.empty(len(clips)), {}
    for machine in clips["machine"].unique():
        rows = (clips["machine"] == machine).to_numpy()
        own = {name: values[rows] for name, values in members.items()}
        fitted, labels = ensemble(clips[rows], own, target=None if target is None else target[rows])
        search = ScoreEnsembleCV(fitted.estimators, by=BY).fit(labels)
        weights[machine] = search.best_weights_
        scores[rows] = search.score_samples(labels)
    return scores, weights


def member_scores(lines, clips):
    """Lines of protocol B and A of every member, by name and seed."""
    lines_b, lines_a = {}, {}
    for name, seed in dict.fromkeys((line.member, line.seed) for line in lines):
        same = [line for line in lines if (line.member, line.seed) == (name, seed)]
        (chosen,) = [line for line in same if len(same) == 1 or line.name.endswith(("(B)", CHOSEN))]
        best = np.empty(len(clips))
        for machine in clips["machine"].unique():
            rows = (clips["machine"] == machine).to_numpy()
            best[rows] = max(
                (line.scores[rows] for line in same),
                key=lambda s, rows=rows: dcase_scores(clips[rows], s)["hmean"].iloc[-1],
            )
        lines_b[name, seed] = Line(f"{name} (B)", chosen.scores, chosen.train, chosen.score)
        lines_a[name, seed] = Line(f"{name}, oracle (A)", best)
    return lines_b, lines_a


def evaluate(lines, probabilities, clips, seeds):
    """Lines of members and ensembles under both protocols, and what went into the ensembles."""
    lines_b, lines_a = member_scores(lines, clips)
    out_b, out_a = list(lines_b.values()), list(lines_a.values())
    parts = {}
    for seed in seeds:
        known = {name: line.scores for (name, s), line in lines_b.items() if s == seed}
        known |= pools(clips, seed)
        best = make_submission("best").weights
        parts[seed] = {}
        members, target = {name: known[name] for name in SIX}, probabilities[seed].scores
        out_b.append(Line("submission-1 (B)", uniform(clips, members, target=target)))
        out_a.append(Line("submission-1, oracle (A)", oracle(clips, members, target)[0]))
        for name, names in SUBMISSIONS.items():
            members = parts[seed][name] = {member: known[member] for member in names}
            weights = best if name.startswith("best") else None
            out_b.append(Line(f"{name} (B)", uniform(clips, members, weights)))
            out_a.append(Line(f"{name}, oracle (A)", oracle(clips, members)[0]))
    return out_b + out_a, parts


def run(function, *arguments):
    return function(*arguments)


def measure(sets, args):
    """Scores of all members on all sets, trained side by side."""
    runs, owners = [], []
    extra = {"max_epochs": 1} if args.smoke else {}
    for key, (clips, seeds) in sets.items():
        for seed in range(seeds):
            for name, make in CLASSIFIERS.items():
                runs.append((bench_classification.train, clips, make, name, seed, extra))
                owners.append((key, name, seed))
            for name, spec in {**DENSITIES, **BASELINES}.items():
                runs.append((bench_densities.train, clips, name, spec, seed, args.smoke))
                owners.append((key, name, seed))
            runs.append((domains, clips, seed, args.smoke))
            owners.append((key, "domains", seed))
    found = {key: ([], {}) for key in sets}
    for (key, name, seed), result in zip(owners, side_by_side(run, runs)):
        lines, probabilities = found[key]
        if name == "domains":
            probabilities[seed] = result
            continue
        for line in result:
            line.member, line.seed = name, seed
        lines += result
    return found


# --- weights without anomalies -------------------------------------------------------------------


def held_out(clips, name, seed, smoke):
    """Standardised scores of a member for held-out clips and for both kinds of pseudo-anomalies."""
    if name in CLASSIFIERS:
        member = CLASSIFIERS[name](random_state=seed)
        if smoke:
            member.set_params(embedder__max_epochs=1)
    elif name in DENSITIES:
        make, arguments, params = DENSITIES[name]
        member = make(random_state=seed, **arguments)
        member.set_params(**{f"detector__detector__{k}": v for k, v in params.items()})
        if smoke:
            member.set_params(feature__n_mels=16, detector__detector__max_epochs=1)
    else:
        member = dict(make_submission("best", random_state=seed).estimators)[name]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        one = ScoreEnsemble([(name, member)], by=BY, memory=joblib.Memory(folder, verbose=0))
        for pseudo in ("other", "perturbed"):
            rng = np.random.RandomState(seed)
            split = pseudo_split(one, clips, None, 2, pseudo, rng)
            found[pseudo] = split.matrix[:, 0], split.clips
    print(f"  halves, {name}, seed {seed}", file=sys.stderr, flush=True)
    return found


def weights_table(clips, parts, seeds, smoke):
    """Official scores by how the weights were found."""
    train = clips[clips["split"] == "train"].reset_index(drop=True)
    runs = [(train, name, 0, smoke) for name in parts[0]["submission-2"]]
    runs += [(train, name, seed, smoke) for seed in range(seeds) for name in parts[0]["best"]]
    runs = list({run[1:]: run for run in runs}.values())
    found = dict(zip((run[1:3] for run in runs), side_by_side(held_out, runs)))
    rows = []
    for system, seeds_of_system in (("submission-2", range(1)), ("best", range(seeds))):
        results = [weigh(clips, parts[s][system], system, s, found) for s in seeds_of_system]
        for way in results[0]:
            row = {"ensemble": system, "weights": way}
            for machine in clips["machine"].unique():
                cells = [result[way][machine] for result in results]
                row[f"h {machine}"] = percent([score for score, *_ in cells])
                row[f"gap {machine}"] = percent([gap for _, gap, _ in cells])
                told = dict.fromkeys(" / ".join(f"{w:.2g}" for w in cell[2]) for cell in cells)
                row[f"weights {machine}"] = "; ".join(told)
            row["total"] = percent([result[way]["total"] for result in results])
            rows.append(row)
    return markdown(rows)


def weigh(clips, members, system, seed, found):
    """Score, gap to the oracle and weights by way and machine, and the total by way."""
    grid = np.array(simplex_grid(len(members), 0.1))
    machines = clips["machine"].unique()
    ways = {"oracle": oracle(clips, members)[1]}
    for pseudo in ("perturbed", "other"):
        matrix = np.column_stack([found[name, seed][pseudo][0] for name in members])
        labels = found[next(iter(members)), seed][pseudo][1]
        chosen = ways[f"pseudo-anomalies: {pseudo}"] = {}
        for machine in machines:
            own = (labels["machine"] == machine).to_numpy()
            metric = GridMetric(labels[own].reset_index(drop=True), **metric_of("dcase"))
            # The most uniform ones come first in the grid.
            chosen[machine] = grid[int(np.argmax(metric(matrix[own], grid)))]
    if system == "best":
        ways["fixed"] = dict.fromkeys(machines, make_submission("best").weights)
    ways["uniform"] = dict.fromkeys(machines, np.full(len(members), 1 / len(members)))
    results, best = {}, {}
    for way, by_machine in ways.items():
        results[way], everything = {}, np.empty(len(clips))
        for machine, weights in by_machine.items():
            own = (clips["machine"] == machine).to_numpy()
            scores = uniform(clips[own], {n: v[own] for n, v in members.items()}, weights)
            score = dcase_scores(clips[own], scores)["hmean"].iloc[-1]
            results[way][machine] = score, best.setdefault(machine, score) - score, weights
            everything[own] = scores
        results[way]["total"] = dcase_scores(clips, everything)["hmean"].iloc[-1]
    return results


# --- tables --------------------------------------------------------------------------------------


def beside(clips):
    """Floors, and the training-free line."""
    return [*floors(clips), *(line for line in pooled(clips) if line.name == TRAINING_FREE)]


def compare(real, mimii, args):
    sets = {"as recorded": (real, args.seeds), "mimii": (equal_rms(mimii), args.seeds)}
    if not args.smoke:
        sets["equal RMS"] = equal_rms(real), 1  # the same recordings once more
    found = measure(sets, args)
    lines, parts = {}, {}
    for key, (clips, seeds) in sets.items():
        own, parts[key] = evaluate(*found[key], clips, range(seeds))
        lines[key] = beside(clips) + own
    text = table(lines["as recorded"], lines.get("equal RMS", []), real)
    text += "\n## mimii_m6db, equal RMS\n\nMean over sections, each of which has 9 test clips: it "
    text += "shows that many sections run, and ranks nothing.\n\n"
    text += averages(lines["mimii"], sets["mimii"][0])
    text += "\n## Weights without anomalies\n\ndcase_real as recorded; submission-2 with seed 0 "
    text += f"alone. Its members in this order: {', '.join(SIX)}; of best: MHCR, ranks, peaks. "
    text += "Where seeds found different weights, all are listed.\n\n"
    text += weights_table(real, parts["as recorded"], args.seeds, args.smoke)
    print(text)
    if args.smoke:
        return
    about = "\n\n".join(__doc__.split("\n\n")[1:4])
    write(
        RESULTS / "ensemble.md",
        "# Subsystems and ensembles on real recordings\n\n"
        f"`python benchmarks/bench_submissions.py --data FOLDER --seeds {args.seeds}`, "
        f"{date.today()}, {os.cpu_count()} cores, one torch thread a training, torch "
        f"{torch.__version__}.\n\n{about}\n\nSections: AUC source / AUC target / pAUC in %; h: "
        "harmonic mean over a machine; total: over all values; mean and standard deviation over "
        "seeds, at equal RMS of dcase_real seed 0 alone. The standard error of one AUC is about 5 "
        "points at 70 % and 2 at 95 %. Times are seconds of one core for the whole path from "
        f"samples in memory; an ensemble costs the sum of its members.\n\n## dcase_real\n\n{text}",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("SK_ASD_DATA"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="seconds, on synthetic sounds")
    args = parser.parse_args()
    if args.smoke:
        args.seeds = 1
        make = functools.partial(
            make_machine_sounds, sections=2, n_train=12, n_test=4, duration=6.5
        )
        compare(make(("slider", "valve"), random_state=0), make(("fan",), random_state=1), args)
        return
    if args.data is None:
        parser.error("give the folder of the recordings with --data, or set SK_ASD_DATA")
    real, mimii = (
        in_memory(load_clips(Path(args.data) / name))
        for name in ("dcase_real/dev_data", "mimii_m6db")
    )
    compare(real, mimii, args)


if __name__ == "__main__":
    main()
