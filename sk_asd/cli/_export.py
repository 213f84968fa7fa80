"""``sk-asd export``: a trained model as an ONNX graph."""

from sk_asd.cli._common import add_command, check_output, load_table
from sk_asd.cli._models import TRUST, add_trust, open_model
from sk_asd.utils._progress import Progress

N_COMPARED = 50  # recordings

_DESCRIPTION = f"""\
Write a trained model as one ONNX graph, waveforms in and anomaly scores out, which onnxruntime
runs on any machine without this package. Its scores are compared with those of the model before
the file is written: on recordings of DIR if it is given, else on synthetic sounds.

Threshold, sample rate, length of a recording, and the machines and sections that the input
`group` counts, are in the metadata of the graph. High scores are abnormal there. What cannot be
exported is said with the reason. It takes the extra: pip install "sk_asd[onnx]".

{TRUST}"""


def add_parser(commands):
    """Add the command."""
    parser = add_command(commands, "export", run, "write a model as an ONNX graph", _DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="file that `sk-asd train` wrote")
    parser.add_argument("--out", required=True, metavar="FILE", help="ONNX file to write")
    parser.add_argument(
        "--clips",
        metavar="DIR",
        help=f"folder of recordings to compare the scores of; {N_COMPARED} of them are taken",
    )
    parser.add_argument(
        "--machine", nargs="+", metavar="M", help="only these machines (default: all of the model)"
    )
    add_trust(parser)


def run(args):
    """Run the command."""
    check_output(args.out)
    progress = Progress(args.quiet)
    system, _ = open_model(args, progress)
    from sk_asd.export import export_onnx

    groups, machines = _groups(system, args.machine)
    clips = None if args.clips is None else _some(args.clips, machines)
    progress("exporting, which takes up to a minute")
    report = export_onnx(system, args.out, clips=clips, groups=groups)
    several = f", {len(report.groups)} groups" if len(report.groups) > 1 else ""
    print(
        f"{report.path} written{several}; scores of {report.n_clips} clips differ by "
        f"{report.max_difference:.1e} at most"
    )
    return 0


def _groups(system, wanted):
    """Groups to export, None for all, and their machines, None where the model tells none apart."""
    from sk_asd.export._graph_groups import Groups

    groups = Groups(system)
    if "machine" not in groups.columns:
        if wanted is not None:
            raise ValueError(
                f"--machine {' '.join(wanted)}: the model does not tell machines apart."
            )
        return None, None
    place = groups.columns.index("machine")
    known = {name[place] for name in groups.names}
    if wanted is None:
        return None, known
    unknown = [machine for machine in wanted if machine not in known]
    if unknown:
        raise ValueError(
            f"--machine {' '.join(unknown)}: not in the model, which knows "
            f"{', '.join(sorted(known))}."
        )
    kept = [name for name in groups.names if name[place] in wanted]
    return (kept if len(groups.columns) > 1 else [name[0] for name in kept]), set(wanted)


def _some(folder, machines):
    """Some test recordings, or of a folder without such any, spread over all machines."""
    import numpy as np

    clips = load_table(folder)
    if machines is not None:
        clips = clips[clips["machine"].isin(machines)]
        if len(clips) == 0:
            raise ValueError(f"--clips {folder}: no recordings of {', '.join(sorted(machines))}.")
    test = clips[clips["split"] == "test"]
    clips = clips if len(test) == 0 else test
    return clips.iloc[np.linspace(0, len(clips) - 1, min(N_COMPARED, len(clips))).astype(int)]
