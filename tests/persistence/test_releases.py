"""Models that earlier releases have saved."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sk_asd

SAVED = Path(__file__).parent / "saved"


@pytest.mark.filterwarnings("ignore:.*was written with:UserWarning")
@pytest.mark.parametrize("name", sorted(p.stem for p in SAVED.glob("*.skasd")))
def test_saved_by_earlier_releases(name):
    path = SAVED / f"{name}.skasd"
    assert path.stat().st_size < 200_000
    # In standard deviations of the training scores; another processor rounds otherwise.
    close = {"rtol": 1e-4, "atol": 1e-4}
    system = sk_asd.load(path)
    with np.load(path.with_suffix(".npz")) as kept:
        clips = pd.DataFrame({c: kept[c].astype(object) for c in ("machine", "section", "domain")})
        clips["audio"] = list((kept["audio"] / 2**15).astype(np.float32))
        clips["sr"] = kept["sr"]
        np.testing.assert_allclose(system.score_samples(clips), kept["scores"], **close)
        np.testing.assert_allclose(system.transform(clips), kept["contributions"], **close)
