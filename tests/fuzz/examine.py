"""A process of its own that looks at sound files and prints a line of JSON for each of them.

``python examine.py FOLDER``: what a crash or a hang of a decoder takes along is this process alone.
"""

import json
import resource
import sys
import traceback
import warnings
from pathlib import Path

from sk_asd.datasets import check_clips, load_clips
from sk_asd.datasets._audio import audio_info, read_audio
from sk_asd.features import LogMel

GIGABYTES = 12  # of addresses: a header that lies must not cost memory
SMALL = {"n_fft": 256, "hop_length": 128, "n_mels": 8, "on_length": "pad", "duration": 0.1}


def attempt(action, name, *args):
    """What went wrong beyond what is allowed: an OSError or ValueError with the file's name."""
    try:
        action(*args)
    except (OSError, ValueError) as error:
        if name not in str(error):
            return f"{type(error).__name__} without the name: {error}"
    except Exception:
        return traceback.format_exc()
    return None


def check(clip, name):
    report = check_clips(clip, n_jobs=1)
    if not set(report["path"]) <= {name}:
        raise AssertionError(f"findings about {report['path'].tolist()}")
    # Findings about a file that cannot be read say why.
    if (report["detail"].str.len() == 0).any():
        raise AssertionError("a finding without detail")


def examine(folder):
    clips = load_clips(folder, layout="flat")
    extractors = [LogMel(sr=16000, **SMALL), LogMel(sr=16000, on_rate="resample", **SMALL)]
    for i, name in enumerate(clips["path"]):
        clip = clips.iloc[[i]].reset_index(drop=True)
        faults = [
            attempt(audio_info, name, name),
            attempt(read_audio, name, name),
            attempt(check, name, clip, name),
            *(attempt(extractor.fit_transform, name, clip) for extractor in extractors),
        ]
        readable = attempt(read_audio, "no such name", name) is None
        print(json.dumps([Path(name).name, readable, [f for f in faults if f]]), flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES * 2**30,) * 2)
    warnings.simplefilter("ignore")
    examine(sys.argv[1])
