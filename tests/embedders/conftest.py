"""Features of three sections that are easy to tell apart."""

import numpy as np
import pytest
import xarray as xr


@pytest.fixture
def clips():
    """Three sections, each with energy in bins of its own."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(48, 12, 30)).astype("float32")
    y = np.arange(48) % 3
    for section in range(3):
        X[y == section, 4 * section : 4 * section + 2] += 3
    coords = {
        "machine": ("clip", np.full(48, "fan", dtype=object)),
        "section": ("clip", np.array([f"{s:02d}" for s in y], dtype=object)),
        "domain": ("clip", np.array(["source", "target"] * 24, dtype=object)),
        "vel": ("clip", np.where(y == 0, np.nan, y).astype(float)),
        "split": ("clip", np.full(48, "train", dtype=object)),
        "path": ("clip", np.array([f"{i}.wav" for i in range(48)], dtype=object)),
    }
    return xr.DataArray(X, dims=("clip", "mel", "frame"), coords=coords)
