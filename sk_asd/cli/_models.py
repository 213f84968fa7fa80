"""Options about model files."""

import sys
from pathlib import Path

from sk_asd.persistence._models import PICKLES, is_pickle, load_model, read_header

_WAV2VEC = (".safetensors", ".pt", ".pth")
TRUST = (
    "A model file (.skasd) holds plain data, and loading it runs nothing. One whose name ends in\n"
    ".joblib is a pickle, and loading it can run any code: load only one whose source you trust."
)


def add_trust(parser):
    """Add the option for models that are pickles."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="load a .joblib model, which can run code, without a warning",
    )


def open_model(args, progress):
    """Load the model that is asked for; return it and its header."""
    progress(f"loading {args.model}")
    if is_pickle(args.model) and not args.trust:
        read_header(args.model)  # what is no model is an error, without a word about pickles
        print(
            f"{args.model} is a pickle: loading it can run code of whoever made it. --trust says "
            "that you know where it comes from.",
            file=sys.stderr,
        )
    return load_model(args.model)


def check_model(path, options):
    """Check before any work that a system with these options can be saved to a file.

    Networks of transformers are made by the code of that library, which only a pickle can name.
    """
    wav2vec = options.get("wav2vec", "small")
    safe = wav2vec == "small" or Path(wav2vec).suffix in _WAV2VEC
    if not safe and Path(path).suffix not in PICKLES:
        raise ValueError(
            f"--out {path}: with --wav2vec {wav2vec}, a network of transformers, a model can be "
            f"saved as a pickle only: give a name that ends in {PICKLES[0]}."
        )
