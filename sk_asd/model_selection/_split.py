"""Train on normal clips, test on the test split."""

import numpy as np
import pandas as pd
from sklearn.model_selection import BaseCrossValidator

from sk_asd.utils._containers import column_of, is_labelled
from sk_asd.utils._labels import label_kinds


class NormalTrainSplit(BaseCrossValidator):
    """Splitter that trains on the normal training clips and tests on the test clips, once.

    Training clips are the rows with split ``"train"`` whose label is ``"normal"`` or missing, since
    the training split of a data set holds normal clips by definition. Test clips are all rows with
    split ``"test"``. Other rows, such as supplemental clips, are in neither.

    See Also
    --------
    sk_asd.metrics.dcase_scorer : The scorer that goes with it.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_asd.model_selection import NormalTrainSplit
    >>> clips = pd.DataFrame(
    ...     {
    ...         "path": ["a.wav", "b.wav", "c.wav", "d.wav"],
    ...         "split": ["train", "test", "train", "test"],
    ...         "label": ["normal", "normal", "normal", "anomaly"],
    ...     }
    ... )
    >>> list(NormalTrainSplit().split(clips))
    [(array([0, 2]), array([1, 3]))]
    """

    def split(self, X, y=None, groups=None):
        """Yield the positions of the training and of the test clips, once.

        Parameters
        ----------
        X : DataFrame or DataArray
            Clip table, or an array labelled from one, with ``split`` and ``label``.
        y : None
            Ignored.
        groups : None
            Ignored.

        Yields
        ------
        train : ndarray of int
            Positions of the normal training clips.
        test : ndarray of int
            Positions of the test clips.

        Raises
        ------
        TypeError
            If `X` is neither a DataFrame nor a labelled array.
        ValueError
            If a column is missing, or there are no normal training or no test clips.
        """
        if not isinstance(X, pd.DataFrame) and not is_labelled(X):
            raise TypeError(
                "NormalTrainSplit needs a clip table (a DataFrame) or an array labelled from one, "
                f"got {type(X).__name__}."
            )
        split, kinds = column_of(X, "split"), label_kinds(X)
        for name, values in {"split": split, "label": kinds}.items():
            if values is None:
                raise ValueError(f"NormalTrainSplit needs the column {name!r}, which X lacks.")
        split = split.astype(object)
        is_train = split == "train"
        train = np.flatnonzero(is_train & (kinds != "anomaly"))
        test = np.flatnonzero(split == "test")
        if len(train) == 0:
            raise ValueError(
                f"No normal training clips: of {len(split)} clips {is_train.sum()} have split "
                "'train', and none of them label 'normal' or no label."
            )
        if len(test) == 0:
            raise ValueError(f"No test clips: none of {len(split)} clips has split 'test'.")
        yield train, test

    def get_n_splits(self, X=None, y=None, groups=None):
        """Return the number of splits.

        Parameters
        ----------
        X : None
            Ignored.
        y : None
            Ignored.
        groups : None
            Ignored.

        Returns
        -------
        int
            1.
        """
        return 1
