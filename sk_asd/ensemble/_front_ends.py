"""Features that several members of an ensemble begin with, computed once."""

from sklearn.base import clone
from sklearn.pipeline import Pipeline

from sk_asd.features._together import (
    computes_alike,
    fit_together,
    is_extractor,
    reads_alike,
    transform_together,
)
from sk_asd.utils._containers import is_clip_table
from sk_asd.utils._parallel import on_cluster


def shared_features(members, X, fit=False):
    """Features of members whose clips would be read more than once.

    Each clip is read once for all members that read it alike, and features that several members
    compute alike are computed once. On a cluster nothing is shared, since features are larger than
    the names of files.

    Parameters
    ----------
    members : dict of int to outlier detector
        Members; only Pipelines that begin with a feature extractor can share.
    X : container
        Clips; only those of a clip table are read.
    fit : bool, default=False
        Whether to fit copies of the extractors.

    Returns
    -------
    dict of int to tuple
        Fitted extractor and features, for those of the members that share.
    """
    if not is_clip_table(X) or on_cluster():
        return {}
    heads = {i: member.steps[0][1] for i, member in members.items() if _has_head(member)}
    found = {}
    while heads:
        first = next(iter(heads.values()))
        alike = {i: head for i, head in heads.items() if reads_alike(head, first)}
        heads = {i: head for i, head in heads.items() if i not in alike}
        if len(alike) == 1:
            continue
        extractors, number = [], {}
        for i, head in alike.items():
            same = (k for k, other in enumerate(extractors) if computes_alike(head, other))
            number[i] = next(same, len(extractors))
            if number[i] == len(extractors):
                extractors.append(head)
        if fit:
            extractors = [clone(extractor) for extractor in extractors]
        features = (fit_together if fit else transform_together)(extractors, X)
        found |= {i: (extractors[k], features[k]) for i, k in number.items()}
    return found


def _has_head(member):
    return (
        type(member) is Pipeline
        and len(member.steps) > 1
        and member.memory is None
        and is_extractor(member.steps[0][1])
    )
