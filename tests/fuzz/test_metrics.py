"""The official metrics on random labels, ties included, and the files of submissions."""

import tempfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, roc_curve

from sk_asd.metrics import dcase_score, dcase_scores, read_submission, write_submission

MACHINES = ["fan", "ToyCar", "Ventil ü"]
# Few values, so that there are ties within and between classes, and some that differ by a rounding.
SCORES = st.one_of(
    st.sampled_from([-1.0, 0.0, 0.5, 0.5 + 1e-16, 0.5 + 1e-12, 1e300, -1e300, 5e-324]),
    st.floats(-10, 10),
)


@st.composite
def tables(draw):
    """Test clips of some sections, both classes in each, and their scores."""
    rows = []
    places = st.tuples(st.sampled_from(MACHINES), st.sampled_from(["00", "01", "05"]))
    for machine, section in draw(st.lists(places, min_size=1, max_size=4, unique=True)):
        clips = draw(st.lists(st.tuples(DOMAINS, LABELS, SCORES), max_size=12))
        # Under the rules of 2021 both domains have both classes.
        clips += [(d, label, draw(SCORES)) for d in DOMAIN_NAMES for label in LABEL_NAMES]
        rows += [(machine, section, *clip) for clip in draw(st.permutations(clips))]
    columns = ["machine", "section", "domain", "label", "score"]
    table = pd.DataFrame(rows, columns=columns).sample(frac=1, random_state=draw(st.integers(0, 9)))
    return table.drop(columns="score"), table["score"].to_numpy()


DOMAIN_NAMES, LABEL_NAMES = ("source", "target"), ("normal", "anomaly")
DOMAINS, LABELS = st.sampled_from(DOMAIN_NAMES), st.sampled_from(LABEL_NAMES)


def areas(is_anomaly, scores, max_fpr=0.1):
    """AUC by counting pairs, and McClish's partial AUC from scikit-learn's ROC curve."""
    odd, normal = -scores[is_anomaly], -scores[~is_anomaly]
    pairs = (odd[:, None] > normal).mean() + 0.5 * (odd[:, None] == normal).mean()
    fpr, tpr, _ = roc_curve(is_anomaly, -scores, drop_intermediate=False)
    inside = fpr <= max_fpr
    end = np.interp(max_fpr, fpr, tpr)  # where the curve is vertical, that adds nothing
    area = auc([*fpr[inside], max_fpr], [*tpr[inside], end])
    least = max_fpr**2 / 2
    return pairs, 0.5 * (1 + (area - least) / (max_fpr - least))


def expected(clips, scores, rules):
    """Values of every machine and section, in order, and the total."""
    values = {}
    for place in sorted(set(zip(clips["machine"], clips["section"]))):
        rows = ((clips["machine"] == place[0]) & (clips["section"] == place[1])).to_numpy()
        odd = (clips["label"] == "anomaly").to_numpy()
        in_domain = [(clips["domain"] == domain).to_numpy() for domain in DOMAIN_NAMES]
        whole = areas(odd[rows], scores[rows])
        if rules == 2020:
            values[place] = list(whole)
        elif rules == 2021:
            found = [areas(odd[rows & d], scores[rows & d]) for d in in_domain]
            values[place] = [a for a, _ in found] + [p for _, p in found]
        else:
            chosen = [rows & (d | odd) for d in in_domain]
            values[place] = [*(areas(odd[c], scores[c])[0] for c in chosen), whole[1]]
    if rules == 2020:
        machines = {machine for machine, _ in values}
        means = [np.mean([v for (m, _), v in values.items() if m == name]) for name in machines]
        return values, np.mean(means)
    everything = np.maximum(np.concatenate(list(values.values())), np.finfo(float).eps)
    return values, len(everything) / np.sum(1 / everything)


@pytest.mark.parametrize("rules", [2020, 2021, 2022])
@settings(max_examples=40, deadline=None)
@given(tables())
def test_against_an_own_computation(rules, table):
    clips, scores = table
    found = dcase_scores(clips, scores, rules=rules)
    values, total = expected(clips, scores, rules)
    sections = found[~found["section"].isin(["hmean", "mean"])]
    assert list(zip(sections["machine"], sections["section"])) == list(values)
    np.testing.assert_allclose(sections.iloc[:, 2:-1], list(values.values()), atol=1e-12)
    assert dcase_score(clips, scores, rules=rules) == pytest.approx(total, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_the_scale_do_not_matter(table, random):
    clips, scores = table
    order = random.sample(range(len(clips)), len(clips))
    total = dcase_score(clips, scores)
    assert dcase_score(clips.iloc[order], scores[order]) == pytest.approx(total, rel=1e-12)
    ranks = np.unique(scores, return_inverse=True)[1]
    assert dcase_score(clips, ranks / 7 - 3) == pytest.approx(total, rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(tables(), st.data())
def test_a_submission_is_read_back_as_it_was_written(table, data):
    clips, scores = table
    # Whatever a file may be called.
    text = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=8)
    names = st.one_of(text, st.sampled_from(["\r", "\n", "\r\n", '"', ",", "\udcff", "\x1a", "\\"]))
    stems = data.draw(st.lists(names, min_size=len(clips), max_size=len(clips)))
    clips = clips.assign(path=[f"{i}{stem}x.wav" for i, stem in enumerate(stems)])
    decisions = np.where(scores >= 0, 1, -1)
    with tempfile.TemporaryDirectory() as folder:
        write_submission(clips, scores, decisions, folder)
        found = read_submission(folder, clips)
    np.testing.assert_array_equal(found["score"], scores)
    np.testing.assert_array_equal(found["decision"], decisions)
