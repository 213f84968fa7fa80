"""``sk-asd train``: fit a system to normal recordings."""

import argparse
import contextlib
import textwrap
import time

from sk_asd.cli._common import (
    add_cache,
    add_command,
    add_machine,
    add_n_jobs,
    check_device,
    check_output,
    count,
    load_table,
    not_negative,
    number,
    positive,
)
from sk_asd.cli._models import TRUST, check_model
from sk_asd.persistence._models import save_model
from sk_asd.systems._registry import BUILDERS, DETECTORS, ENSEMBLES, SINGLE
from sk_asd.utils._clip_tables import inventory, sections_of
from sk_asd.utils._progress import Progress

_STATISTICS = ("mean", "std", "max", "gwrp")
# What an option sets: an argument of the system's builder, by the first of these names that it has,
# or a parameter of the feature extractor or of networks. It applies to the systems that have it.
_ARGUMENTS = {
    "feature": ("feature",),
    "detector": ("detector",),
    "over": ("over",),
    "pooling": ("statistics",),
    "r": ("r",),
    "target": ("target", "targets"),
    "budget": ("budget",),
    "device": ("device",),
    "epochs": ("max_epochs",),
    "wav2vec": ("model", "wav2vec"),
    "metric": ("metric",),
    "seed": ("random_state",),
}
_OF_CLIPS = ("sr", "duration", "on_length", "on_rate", "cache_dir", "n_jobs")
_OF_SPECTROGRAMS = ("n_fft", "hop_length", "n_mels")
_OF_NETWORKS = ("n_frames", "subtract_mean", "mixup")


def _listed(builders):
    """Names of systems with what they are, as lines."""
    width = max(map(len, builders)) + 2
    return "\n".join(
        textwrap.fill(f"  {name:{width}}{b.summary}", 96, subsequent_indent=" " * (width + 2))
        for name, b in builders.items()
    )


_DESCRIPTION = f"""\
Train a system on the normal training recordings of a folder and write a model file.

{_listed(BUILDERS)}

One model serves all machines and sections found; each has a detector of its own.

{TRUST}"""


def add_parser(commands):
    """Add the command."""
    parser = add_command(commands, "train", run, "train a system", _DESCRIPTION)
    parser.add_argument("dir", metavar="DIR", help="folder of recordings")
    parser.add_argument(
        "--system", choices=tuple(BUILDERS), required=True, metavar="NAME", help="what to train"
    )
    parser.add_argument("--out", required=True, metavar="MODEL", help="model file to write")
    add_machine(parser)
    add_n_jobs(parser)
    add_system_options(parser)


def add_system_options(parser, seed=None):
    """Add the options of the systems; `seed` is the default of that option."""
    parser.add_argument(
        "--detector",
        choices=tuple(DETECTORS),
        help="outlier detector (default: mahalanobis; for sc-wav2vec the report's of the machine, "
        "else knn)",
    )
    parser.add_argument(
        "--over",
        metavar="COL",
        help="one more detector per value of this column, such as domain; the most normal counts",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=seed,
        metavar="N",
        help=f"seed of the random numbers (default: {'none' if seed is None else seed})",
    )

    features = parser.add_argument_group("features", "Defaults are those of the system.")
    features.add_argument(
        "--feature", choices=("logmel", "stft"), help="default: logmel for pooling, else stft"
    )
    features.add_argument("--sr", type=count, metavar="HZ", help="sample rate")
    features.add_argument(
        "--on-rate",
        choices=("error", "resample"),
        help="recordings at another sample rate (default: error)",
    )
    features.add_argument(
        "--duration", type=positive, metavar="S", help="seconds (default: the first clip's)"
    )
    features.add_argument(
        "--on-length",
        choices=("error", "pad", "crop", "tile"),
        help="recordings of other length (default: error)",
    )
    features.add_argument("--n-fft", type=count, metavar="N", help="samples of a frame")
    features.add_argument(
        "--hop-length",
        type=count,
        metavar="N",
        help="samples from one frame to the next",
    )
    features.add_argument(
        "--n-mels", type=count, metavar="N", help="number of mel bins, for logmel"
    )
    add_cache(features)

    pooling = parser.add_argument_group("--system pooling")
    pooling.add_argument(
        "--pooling",
        type=statistics,
        metavar="STAT",
        help=f"{', '.join(_STATISTICS)}, or several joined by + such as mean+std (default: gwrp)",
    )
    pooling.add_argument(
        "--r",
        type=number(float, 0, 1),
        metavar="R",
        help="decay of gwrp, from 0 (maximum) to 1 (mean)",
    )

    sc = parser.add_argument_group("systems that train a network")
    sc.add_argument(
        "--target",
        nargs="+",
        metavar="COL",
        help="for sc and sc-wav2vec columns that make the classes, or joint: all that describe a "
        "recording (default); for mhcr columns that get a head each (default: all that vary); for "
        "mobilenetv2 section (default), or machine section for one network over all machines",
    )
    sc.add_argument("--n-frames", type=count, metavar="N", help="length of a window in frames")
    sc.add_argument(
        "--subtract-mean",
        action=argparse.BooleanOptionalAction,
        help="for classifiers: subtract each clip's mean spectrum (default for the laptop), which "
        "helps with machines that move in cycles and hurts with those that hum",
    )
    sc.add_argument(
        "--mixup", type=not_negative, metavar="A", help="for classifiers: blend windows; 0: do not"
    )
    sc.add_argument(
        "--epochs",
        type=count,
        metavar="N",
        help="passes over the recordings at most (default: that of the budget)",
    )
    sc.add_argument(
        "--budget",
        choices=("laptop", "report"),
        help="size of network and training (default: laptop)",
    )
    sc.add_argument("--device", metavar="DEVICE", help="auto (default), cpu, cuda, ...")
    sc.add_argument(
        "--wav2vec",
        metavar="FILE",
        help="pre-trained model for sc-wav2vec (default: small, which comes with the package)",
    )
    sc.add_argument(
        "--metric",
        help="score of aegan-ad (default: input_l2_mean), or of ae: mse (default), mahalanobis or "
        "mahalanobis_of_mean",
    )


def statistics(text):
    """Argument type: statistics joined by ``+``."""
    found = tuple(text.split("+"))
    unknown = [name for name in found if name not in _STATISTICS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown statistic {unknown[0]!r}; known are {', '.join(_STATISTICS)}"
        )
    return found


def run(args):
    """Run the command."""
    from sk_asd.utils._system import portable

    check_output(args.out)
    options = given_options(args)
    check_options(args.system, options)
    check_model(args.out, options)
    progress = Progress(args.quiet)
    progress(f"loading {args.dir}")
    clips = training_clips(load_table(args.dir, machines=args.machine, split="train"))
    check_columns(clips, options)
    pipeline = build(args.system, options)
    progress(f"training {args.system} on {inventory(clips)}")
    start = time.perf_counter()
    fit(pipeline, clips, progress)
    seconds = time.perf_counter() - start
    with portable(pipeline):
        save_model(
            args.out,
            pipeline,
            options={"system": args.system, **options},
            sections=sections_of(clips),
        )
    print(f"{args.system} trained on {inventory(clips)} in {seconds:.1f} s: {args.out}")
    return 0


def given_options(args):
    """Options for the system that were given, by name."""
    known = (*_ARGUMENTS, *_OF_CLIPS, *_OF_SPECTROGRAMS, *_OF_NETWORKS)
    return {name: value for name in known if (value := getattr(args, name)) is not None}


def check_options(system, options):
    """Refuse options that would have no effect; say what they apply to."""
    feature = {"feature": options["feature"]} if "feature" in options else {}
    for option in options:
        if _applies(option, system, **feature):
            continue
        name = option.replace("_", "-")
        if system in ENSEMBLES:
            raise ValueError(f"--{name} applies to other systems, not to {system}.")
        known = [other for other in SINGLE if _applies(option, other, feature="logmel")]
        if system in known:
            raise ValueError("--n-mels applies to --feature logmel, not to stft.")
        raise ValueError(f"--{name} applies to --system {', '.join(known)}, not to {system}.")
    if "r" in options and "gwrp" not in options.get("pooling", ("gwrp",)):
        raise ValueError(f"--r applies to --pooling gwrp, not to {'+'.join(options['pooling'])}.")


def argument_of(option, system):
    """Argument of a system's builder that an option sets, or None."""
    arguments = BUILDERS[system].arguments
    return next((name for name in _ARGUMENTS.get(option, ()) if name in arguments), None)


def arguments_of(options, system):
    """Arguments of a system's builder that are set by options, and their values."""
    found = {argument_of(option, system): value for option, value in options.items()}
    return {name: value for name, value in found.items() if name is not None}


def _applies(option, system, **feature):
    """Whether an option means something to a system, perhaps one with another feature."""
    from sk_asd.utils._system import networks

    if option in ("seed", *_OF_CLIPS) or argument_of(option, system) is not None:
        return True
    if option in _ARGUMENTS or system in ENSEMBLES:  # whose members have parameters of their own
        return False
    pipeline = BUILDERS[system].make(**(feature if argument_of("feature", system) else {}))
    if option in _OF_NETWORKS:
        return any(option in network.get_params() for network in networks(pipeline))
    return f"feature__{option}" in pipeline.get_params()


def check_columns(clips, options):
    """Refuse columns that the clips do not have, before features are computed."""
    target = options.get("target", [])
    wanted = {"over": [options["over"]] if "over" in options else []}
    wanted["target"] = [] if target == ["joint"] else target
    for option, columns in wanted.items():
        for column in columns:
            if column not in clips.columns or clips[column].isna().all():
                known = [c for c in clips.columns if c != "path" and clips[c].notna().any()]
                raise ValueError(f"--{option} {column}: no such column; found {', '.join(known)}.")


def training_clips(clips):
    """Normal clips and those without label; an anomaly in the training split is left out."""
    from sk_asd.utils._labels import normal_clips

    return normal_clips(clips)[0].reset_index(drop=True)


def build(system, options, machine=None):
    """Make an unfitted system, with the settings of a machine, where it has some, or for all."""
    from sk_asd.systems import make_system
    from sk_asd.utils._system import extractors, networks

    check_device(options.get("device", "auto"))
    given = arguments_of(options, system)
    target = given.get("target", ())
    if len(target) == 1:
        (given["target"],) = target
    if system == "mobilenetv2" and "machine" in target:
        given["by"] = None  # one network tells all machines apart
    if "verbose" in BUILDERS[system].arguments:
        given["verbose"] = 1
    made = make_system(system, machine, **given)
    features = {k: options[k] for k in (*_OF_CLIPS, *_OF_SPECTROGRAMS) if k in options}
    for extractor in extractors(made):
        extractor.set_params(**features)
    training = {k: options[k] for k in _OF_NETWORKS if k in options}
    for network in networks(made) if training else ():
        network.set_params(**training)
    return made


def fit(system, clips, progress):
    """Fit a system in place, with its progress on stderr."""
    from sk_asd.utils._system import networks

    if progress.quiet:
        for network in networks(system):
            network.set_params(verbose=0)
    # Training prints its epochs to stdout, which is for results.
    with progress.reading("training"), contextlib.redirect_stdout(progress.stream):
        system.fit(clips)
