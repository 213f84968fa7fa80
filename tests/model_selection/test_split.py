import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.base import clone
from sklearn.model_selection import check_cv

from sk_asd.model_selection import NormalTrainSplit


@pytest.fixture
def clips():
    return pd.DataFrame(
        {
            "path": [f"{i}.wav" for i in range(8)],
            "split": ["test", "train", "train", "supplemental", "train", "test", "test", None],
            "label": ["normal", "normal", None, "normal", "anomaly", "anomaly", None, "normal"],
        },
        index=list("hgfedcba"),
    )


def test_one_split_by_position(clips):
    splits = list(NormalTrainSplit().split(clips))
    assert len(splits) == 1
    train, test = splits[0]
    assert train.tolist() == [1, 2]
    assert test.tolist() == [0, 5, 6]
    assert train.dtype.kind == test.dtype.kind == "i"


def test_labelled_array_splits_like_its_table(clips):
    array = xr.DataArray(
        np.zeros((8, 3)),
        dims=("clip", "embedding"),
        coords={c: ("clip", clips[c].to_numpy(dtype=object)) for c in clips},
    )
    for a, b in zip(*(next(NormalTrainSplit().split(X)) for X in (array, clips))):
        np.testing.assert_array_equal(a, b)


def test_is_a_scikit_learn_splitter(clips):
    splitter = NormalTrainSplit()
    assert splitter.get_n_splits() == splitter.get_n_splits(clips, None, None) == 1
    assert check_cv(splitter) is splitter
    assert repr(splitter) == repr(clone(splitter, safe=False)) == "NormalTrainSplit()"
    y = np.ones(len(clips))
    assert next(splitter.split(clips, y, y))[0].tolist() == [1, 2]


@pytest.mark.parametrize("column", ["split", "label"])
def test_missing_column(clips, column):
    with pytest.raises(ValueError, match=f"needs the column '{column}'"):
        next(NormalTrainSplit().split(clips.drop(columns=column)))


def test_nothing_to_train_or_test_on(clips):
    with pytest.raises(ValueError, match="No normal training clips: of 8 clips 0 have split"):
        next(NormalTrainSplit().split(clips.assign(split="test")))
    with pytest.raises(ValueError, match="No normal training clips: of 8 clips 3 have split"):
        next(NormalTrainSplit().split(clips.assign(label="anomaly")))
    with pytest.raises(ValueError, match="No test clips: none of 8 clips has split 'test'"):
        next(NormalTrainSplit().split(clips[clips["split"] != "test"].reindex(list("abcdefgh"))))


def test_not_a_clip_table():
    with pytest.raises(TypeError, match="clip table .* got ndarray"):
        next(NormalTrainSplit().split(np.zeros((3, 2))))
