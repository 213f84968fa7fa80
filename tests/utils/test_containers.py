"""Wrapping and unwrapping: what goes in comes out, labels included."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sk_asd.utils._containers import (
    check_clip_table,
    column_of,
    is_clip_table,
    is_labelled,
    metadata_of,
    wrap,
)


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "path": ["a.wav", "b.wav", "c.wav"],
            "section": ["00", "01", "01"],
            "domain": ["source", None, "target"],
            "vel": [1.0, np.nan, 3.0],
            "n": pd.array([1, None, 3], dtype="Int64"),
            "kind": pd.Categorical(["x", "y", None]),
            "ok": [True, False, True],
        },
        index=[7, 3, 5],
    )


def test_metadata_survive_the_round_trip(table):
    labelled = wrap(np.zeros((3, 2, 4)), table, ("mel", "frame"), {"mel": [10.0, 20.0]})
    assert labelled.dims == ("clip", "mel", "frame")
    assert labelled.section.values.tolist() == ["00", "01", "01"]
    assert pd.isna(labelled.domain.values).tolist() == [False, True, False]
    assert labelled.domain.values[[0, 2]].tolist() == ["source", "target"]
    np.testing.assert_array_equal(labelled.vel, [1, np.nan, 3])
    np.testing.assert_array_equal(labelled.n, [1, np.nan, 3])
    assert pd.isna(labelled.kind.values).tolist() == [False, False, True]
    assert labelled.ok.values.tolist() == [True, False, True]
    again = wrap(np.ones((3, 5)), labelled, ("embedding",))
    pd.testing.assert_frame_equal(metadata_of(again), metadata_of(labelled))


def test_audio_is_no_metadata(table):
    table = table.assign(audio=[np.zeros(3)] * 3)
    assert "audio" not in metadata_of(table)


def test_plain_stays_plain():
    values = np.zeros((2, 3))
    assert wrap(values, np.zeros((2, 9)), ("embedding",)) is values
    assert wrap(values, pd.DataFrame({"level": [1, 2]}), ("embedding",)) is values


def test_column_of(table):
    assert column_of(table, "section").tolist() == ["00", "01", "01"]
    assert column_of(table, "nothing") is None
    assert column_of(np.zeros(3), "section") is None
    assert column_of(pd.DataFrame({"section": ["00"]}), "section").tolist() == ["00"]


def test_what_is_what(table):
    assert is_clip_table(table)
    assert not is_clip_table(table.drop(columns="path"))
    assert not is_labelled(np.zeros(3))
    with pytest.raises(ValueError, match=r"'clip' as first dimension, got \('frame',\)"):
        is_labelled(xr.DataArray(np.zeros(3), dims="frame"))


def test_the_door(table):
    assert check_clip_table(table) is table
    with pytest.raises(TypeError, match="Expected a clip table .* got list"):
        check_clip_table([1])
    with pytest.raises(ValueError, match=r"needs a column 'path' or 'audio'; found .*'vel'"):
        check_clip_table(table.drop(columns="path"))
    with pytest.raises(ValueError, match="has no rows"):
        check_clip_table(table[:0])
    with pytest.raises(ValueError, match=r"repeated column names: \['vel'\]"):
        check_clip_table(pd.concat([table, table[["vel"]]], axis=1))
    with pytest.raises(ValueError, match=r"\['frame'\] are reserved"):
        check_clip_table(table.rename(columns={"vel": "frame"}))
