"""A process of its own that takes a long recording through a step and prints the memory it took.

``python measure.py STEP FILE``: STEP is ``check`` or ``pool``; prints a line of JSON with the peak
above what the libraries took, in bytes.
"""

import json
import resource
import sys

import numpy as np
import pandas as pd

from sk_asd.datasets import check_clips
from sk_asd.features import LogMel
from sk_asd.systems import make_pooling


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def check(path, _):
    clips = pd.DataFrame({"path": [path], "machine": "fan"})
    return check_clips(clips, sr=8000)["problem"].tolist()


def pool(path, pipeline):
    clips = pd.DataFrame({"path": [path], "machine": "fan", "section": "00"})
    pooled = pipeline[:-1].fit_transform(clips).values
    return [*pooled.shape, bool(np.isfinite(pooled).all())]


if __name__ == "__main__":
    step, path = sys.argv[1:]
    system = make_pooling(feature=LogMel(sr=8000, n_jobs=1))
    # What a first call takes, whatever the length of the clip.
    seconds = np.random.default_rng(0).normal(size=(2, 8000)).astype(np.float32)
    table = pd.DataFrame({"audio": list(seconds), "sr": 8000, "machine": "fan", "section": "00"})
    check_clips(table)
    system.fit(table).score_samples(table)
    before = peak()
    result = {"check": check, "pool": pool}[step](path, system)
    print(json.dumps({"result": result, "bytes": peak() - before}))
