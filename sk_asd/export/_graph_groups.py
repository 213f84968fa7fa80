"""Groups of clips of all parts of a system, as one list that an integer points into."""

from sklearn.utils.validation import check_is_fitted

from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
from sk_asd.ensemble._by_columns import labels_of
from sk_asd.utils._system import System, parts


def keys_of(estimator):
    """Groups of a fitted `GroupedDetector` or `ScoreEnsemble`, as it knows them."""
    found = estimator.detectors_ if isinstance(estimator, GroupedDetector) else estimator.means_
    return list(found)


class Groups:
    """Groups that the whole system tells apart, by the columns of its finest part.

    Parameters
    ----------
    system : estimator
        The fitted system.
    wanted : sequence or None
        Groups to keep: values of the column, or tuples of several; None keeps all.

    Attributes
    ----------
    columns : tuple of str
        Columns; empty for a system without groups.
    names : list of tuple
        Values of the columns, one tuple a group; ``[()]`` without groups.
    """

    def __init__(self, system, wanted=None):
        grouped = [
            (where, part)
            for where, part in parts(system)
            if isinstance(part, (GroupedDetector, ScoreEnsemble))
        ]
        self.columns, self.names, finest = (), [()], None
        for where, part in grouped:
            check_is_fitted(part)
            columns = part.group_columns_
            if len(columns) > len(self.columns):
                self.columns, finest = columns, where
                self.names = [self._name(key, columns) for key in keys_of(part)]
        for where, part in grouped:
            if not set(part.group_columns_) <= set(self.columns):
                raise ValueError(
                    f"{where} groups clips by {list(part.group_columns_)} and {finest} by "
                    f"{list(self.columns)}: a graph has one list of groups, so that the columns of "
                    "one part must hold those of all others."
                )
            known = keys_of(part)
            unknown = [name for name in self.names if self.key(part, name) not in known]
            if unknown:
                raise ValueError(
                    f"{where} knows no group {unknown[0]}: groups within groups cannot be exported."
                )
        if wanted is not None:
            self._keep(wanted)

    def key(self, part, name):
        """What a `GroupedDetector` or `ScoreEnsemble` calls the group of this name."""
        values = dict(zip(self.columns, name))
        key = tuple(values[column] for column in part.group_columns_)
        return key if len(key) > 1 else next(iter(key), None)

    def of(self, clips):
        """Names of the groups of clips, one tuple a clip."""
        return [self._name(label, self.columns) for label in labels_of(clips, self.columns)]

    def as_dicts(self):
        """Groups by column, for JSON."""
        return [dict(zip(self.columns, map(_plain, name))) for name in self.names]

    def _keep(self, wanted):
        if isinstance(wanted, str) or not self.columns:
            known = "has no groups" if not self.columns else f"groups by {list(self.columns)}"
            raise ValueError(f"groups={wanted!r}: expected a list of groups; the system {known}.")
        kept = [self._name(key, self.columns) for key in wanted]
        unknown = [name for name in kept if name not in self.names]
        if unknown or not kept or len(set(kept)) < len(kept):
            raise ValueError(
                f"groups={list(wanted)!r}: expected different ones out of {self.names}, values of "
                f"the columns {list(self.columns)}."
            )
        self.names = kept

    @staticmethod
    def _name(key, columns):
        return tuple(key) if len(columns) > 1 else (key,)


def thresholds(system, groups):
    """Score below which a clip is called abnormal, for every group."""
    system = System(system)
    found = system.thresholds()
    if system.is_grouped:
        return [float(found[groups.key(system.detector, name)]) for name in groups.names]
    return [found[None]] * len(groups.names)


def _plain(value):
    return value.item() if hasattr(value, "item") else value
