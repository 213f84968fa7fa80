import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.metrics import roc_auc_score

from sk_asd.metrics import dcase_score, dcase_scores

EPS = sys.float_info.epsilon


def make_clips(n=6, machines=("valve", "fan"), sections=("00", "01"), domains=("source", "target")):
    """n normal and n abnormal test clips for each machine, section and domain."""
    rows = [
        {"machine": m, "section": s, "domain": d, "split": "test", "label": label}
        for m in machines
        for s in sections
        for d in domains
        for label in ("normal", "anomaly")
        for _ in range(n)
    ]
    clips = pd.DataFrame(rows)
    clips.insert(0, "path", [f"{m}/{i}.wav" for i, m in enumerate(clips["machine"])])
    return clips


def one_section(labels, domains="source"):
    return pd.DataFrame(
        {
            "path": [f"{i}.wav" for i in range(len(labels))],
            "machine": "fan",
            "section": "00",
            "domain": domains,
            "split": "test",
            "label": labels,
        }
    )


@pytest.fixture
def clips():
    return make_clips()


@pytest.fixture
def scores(clips):
    rng = np.random.default_rng(0)
    return rng.normal(size=len(clips)) + 0.7 * (clips["label"] == "normal").to_numpy()


def harmonic(*values):
    return len(values) / sum(1 / v for v in values)


def test_rules_of_2022_by_hand():
    # Normal source at 9 and 5, normal target at 3; anomalies at 4 (source), 2 and 1 (target).
    clips = one_section(
        ["normal", "normal", "normal", "anomaly", "anomaly", "anomaly"],
        ["source", "source", "target", "source", "target", "target"],
    )
    table = dcase_scores(clips, [9, 5, 3, 4, 2, 1])
    row = table.iloc[0]
    assert (row["machine"], row["section"]) == ("fan", "00")
    assert row["auc_source"] == 1.0  # all six pairs in order
    assert row["auc_target"] == pytest.approx(2 / 3)  # 3 lies under the anomaly at 4
    # ROC of all: 2 of 3 anomalies found at rate 0, the third after 1/3. Area up to 0.1: 0.1 * 2/3.
    area, least, most = 0.1 * 2 / 3, 0.1**2 / 2, 0.1
    pauc = 0.5 * (1 + (area - least) / (most - least))
    assert row["pauc"] == pytest.approx(pauc)
    assert row["hmean"] == pytest.approx(harmonic(1.0, 2 / 3, pauc))


def test_rules_of_2022_against_scikit_learn(clips, scores):
    table = dcase_scores(clips, scores)
    assert list(table.columns) == [
        "machine",
        "section",
        "auc_source",
        "auc_target",
        "pauc",
        "hmean",
    ]
    assert list(zip(table["machine"], table["section"])) == [
        ("fan", "00"),
        ("fan", "01"),
        ("valve", "00"),
        ("valve", "01"),
        ("fan", "hmean"),
        ("valve", "hmean"),
        ("total", "hmean"),
    ]
    numbers = {}
    for i, (machine, section) in enumerate(zip(table["machine"][:4], table["section"][:4])):
        rows = (clips["machine"] == machine) & (clips["section"] == section)
        y, s = (clips["label"] == "anomaly")[rows], -scores[rows]
        expected = [
            roc_auc_score(y[keep], s[keep])
            for domain in ("source", "target")
            for keep in [((clips["domain"][rows] == domain) | y).to_numpy()]
        ]
        expected.append(roc_auc_score(y, s, max_fpr=0.1))
        numbers.setdefault(machine, []).append(expected)
        np.testing.assert_allclose(table.iloc[i, 2:5].astype(float), expected)
        assert table["hmean"][i] == pytest.approx(harmonic(*expected))
    for i, machine in ((4, "fan"), (5, "valve")):
        (a, b) = numbers[machine]
        assert table["hmean"][i] == pytest.approx(harmonic(*a, *b))
        for j in range(3):
            assert table.iloc[i, 2 + j] == pytest.approx(harmonic(a[j], b[j]))
    everything = [v for machine in numbers.values() for section in machine for v in section]
    assert len(everything) == 12
    total = harmonic(*everything)
    assert table["hmean"].iloc[-1] == pytest.approx(total)
    assert dcase_score(clips, scores) == pytest.approx(total)


def test_rules_of_2021_stay_within_the_domain(clips, scores):
    table = dcase_scores(clips, scores, rules=2021)
    metrics = ["auc_source", "auc_target", "pauc_source", "pauc_target"]
    assert list(table.columns) == ["machine", "section", *metrics, "hmean"]
    numbers = []
    for i, (machine, section) in enumerate(zip(table["machine"][:4], table["section"][:4])):
        for name in metrics:
            metric, domain = name.split("_")
            rows = (
                clips[["machine", "section", "domain"]].eq([machine, section, domain]).all(axis=1)
            )
            value = roc_auc_score(
                clips["label"][rows] == "anomaly",
                -scores[rows],
                max_fpr=0.1 if metric == "pauc" else None,
            )
            assert table[name][i] == pytest.approx(value)
            numbers.append(value)
    assert len(numbers) == 16
    assert dcase_score(clips, scores, rules=2021) == pytest.approx(harmonic(*numbers))


def test_rules_of_2020_are_arithmetic_and_know_no_domains(clips, scores):
    rows = clips.eval("machine == 'fan' or section == '00'").to_numpy()  # valve has one section
    clips, scores = clips[rows].drop(columns="domain"), scores[rows]
    table = dcase_scores(clips, scores, rules=2020)
    assert list(table.columns) == ["machine", "section", "auc", "pauc", "mean"]
    values = {}
    for key, part in clips.groupby(["machine", "section"]):
        y, s = part["label"] == "anomaly", -scores[clips.index.isin(part.index)]
        values[key] = roc_auc_score(y, s), roc_auc_score(y, s, max_fpr=0.1)
    for i, key in enumerate([("fan", "00"), ("fan", "01"), ("valve", "00")]):
        assert tuple(table.loc[i, ["auc", "pauc"]]) == pytest.approx(values[key])
        assert table["mean"][i] == pytest.approx(np.mean(values[key]))
    fan = np.mean([values["fan", "00"], values["fan", "01"]])
    valve = np.mean(values["valve", "00"])
    assert list(table["section"][3:]) == ["mean"] * 3
    assert table["mean"][3] == pytest.approx(fan)
    assert dcase_score(clips, scores, rules=2020) == pytest.approx((fan + valve) / 2)


def in_domain(labels, decisions):
    """Precision, recall and F1, as the organisers count them."""
    found = np.asarray(decisions) == -1
    odd = np.asarray(labels) == "anomaly"
    hits = (found & odd).sum()
    precision, recall = hits / max(found.sum(), EPS), hits / max(odd.sum(), EPS)
    return precision, recall, 2 * precision * recall / max(precision + recall, EPS)


def test_decisions_by_hand():
    """Each domain by itself: the anomalies of the other one do not count."""
    clips = one_section(
        ["normal", "normal", "anomaly", "normal", "normal", "anomaly", "anomaly", "anomaly"],
        ["source"] * 3 + ["target"] * 5,
    )
    decisions = [1, -1, -1, 1, -1, -1, 1, 1]
    table = dcase_scores(clips, np.arange(8)[::-1], decisions)
    official = dcase_scores(clips, np.arange(8)[::-1])
    added = [f"{m}_{d}" for d in ("source", "target") for m in ("precision", "recall", "f1")]
    assert list(table.columns) == [*official.columns, *added]
    pd.testing.assert_frame_equal(table[official.columns], official)
    expected = [1 / 2, 1.0, 2 / 3, 1 / 2, 1 / 3, 2 / 5]
    np.testing.assert_allclose(table.loc[0, added].astype(float), expected)
    # A machine and all of a single section.
    np.testing.assert_allclose(table.loc[2, added].astype(float), expected)


@pytest.mark.parametrize("rules", [2020, 2021, 2022])
def test_decisions_of_sections_and_totals(clips, scores, rules):
    decisions = np.where(scores >= 0.4, 1, -1)
    table = dcase_scores(clips, scores, decisions, rules=rules)
    domains = [None] if rules == 2020 else ["source", "target"]
    names = ("precision", "recall", "f1")
    for domain in domains:
        columns = [f"{name}_{domain}" if domain else name for name in names]
        figures = []
        for i in range(4):
            rows = (clips[["machine", "section"]] == table.loc[i, ["machine", "section"]]).all(
                axis=1
            )
            if domain:
                rows &= clips["domain"] == domain
            figures.append(in_domain(clips["label"][rows], decisions[rows]))
        np.testing.assert_allclose(table.loc[:3, columns].astype(float), figures)
        figures = np.array(figures)
        mean = np.mean if rules == 2020 else lambda v, axis: len(v) / (1 / v).sum(axis=axis)
        for i, part in ((4, figures[:2]), (5, figures[2:]), (6, figures)):
            np.testing.assert_allclose(table.loc[i, columns].astype(float), mean(part, axis=0))
    assert (
        dcase_score(clips, scores, rules=rules)
        == table.iloc[-1]["mean" if rules == 2020 else "hmean"]
    )


def test_decisions_that_find_nothing(clips, scores):
    """No alarm is a precision of 0, as the organisers have it, raised to epsilon in means."""
    table = dcase_scores(clips, scores, np.ones(len(clips)))
    figures = table[[c for c in table if c.startswith(("precision", "recall", "f1"))]]
    assert (figures[:4] == 0).all(axis=None)
    np.testing.assert_allclose(figures[4:], EPS)


def test_decisions_where_a_domain_has_one_class(clips, scores):
    decisions = np.where(scores >= 0.4, 1, -1)
    table = dcase_scores(clips, scores, decisions)
    hidden = clips.assign(domain=clips["domain"].mask(clips["label"] == "anomaly"))
    none = dcase_scores(hidden, scores, decisions)
    assert none.filter(regex="precision|recall|f1").isna().all(axis=None)
    pd.testing.assert_frame_equal(none.iloc[:, :6], table.iloc[:, :6])
    keep = ~clips.eval("machine == 'fan' and section == '00' and domain == 'target'").to_numpy()
    part = dcase_scores(clips[keep], scores[keep], decisions[keep])
    assert np.isnan(part["f1_target"][0])
    assert part["f1_source"][0] == table["f1_source"][0]
    assert part["f1_target"][4] == pytest.approx(table["f1_target"][1])


def test_decisions_belong_to_their_clips(clips, scores):
    decisions = pd.Series(np.where(scores >= 0.4, 1, -1), index=clips.index)
    expected = dcase_scores(clips, scores, decisions)
    mixed = dcase_scores(clips, scores, decisions.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(mixed, expected)
    # Those of training clips do not matter.
    both = pd.concat([clips.assign(split="train"), clips], ignore_index=True)
    nothing = np.full(len(clips), np.nan)
    with_train = dcase_scores(both, np.r_[nothing, scores], np.r_[nothing, decisions])
    pd.testing.assert_frame_equal(with_train, expected)
    with pytest.raises(ValueError, match=r"decisions must be one-dim.* 96 clips, got shape \(3,\)"):
        dcase_scores(clips, scores, [1, 1, -1])
    with pytest.raises(ValueError, match=r"1 \(normal\) or -1 \(anomaly\), found 0 \(96 of 96"):
        dcase_scores(clips, scores, np.zeros(len(clips)))


@pytest.mark.parametrize("rules", [2020, 2021, 2022])
def test_perfect_and_worst(clips, rules):
    right = np.where(clips["label"] == "normal", 1.0, 0.0)
    assert dcase_score(clips, right, rules=rules) == 1.0
    table = dcase_scores(clips, -right, rules=rules)
    paucs = [c for c in table.columns if c.startswith("pauc")]
    aucs = [c for c in table.columns if c.startswith("auc")]
    # McClish's least value at 0.1: (1 + (0 - 0.005) / 0.095) / 2.
    np.testing.assert_allclose(table[paucs], 0.5 * (1 - 0.005 / 0.095))
    np.testing.assert_allclose(table[paucs], 0.47368, atol=5e-6)
    assert (table[aucs].iloc[:4] == 0).all(axis=None)
    if rules == 2020:
        assert table["mean"].iloc[-1] == pytest.approx(0.47368 / 2, abs=5e-6)


def test_constant_scores_are_chance(clips):
    assert dcase_score(clips, np.zeros(len(clips))) == pytest.approx(0.5)


def test_harmonic_mean_has_the_official_floor():
    clips = one_section(["normal", "anomaly"])
    table = dcase_scores(clips, [0.0, 1.0])
    pauc = 0.5 * (1 - 0.005 / 0.095)
    assert table["auc_source"][0] == 0.0
    assert table["hmean"][0] == pytest.approx(2 / (1 / EPS + 1 / pauc))
    assert table["hmean"][0] > 0


def test_max_fpr(clips, scores):
    table = dcase_scores(clips, scores, max_fpr=0.3)
    rows = clips.eval("machine == 'fan' and section == '01'").to_numpy()
    expected = roc_auc_score(clips["label"][rows] == "anomaly", -scores[rows], max_fpr=0.3)
    assert table["pauc"][1] == pytest.approx(expected)
    assert dcase_scores(clips, scores, max_fpr=1.0)["pauc"][1] == pytest.approx(
        dcase_scores(clips, scores, rules=2020)["auc"][1]
    )


@pytest.mark.parametrize("rules", [2021, 2022])
def test_missing_domain_is_nan_and_left_out(clips, scores, rules):
    keep = ((clips["domain"] == "source") | (clips["machine"] == "fan")).to_numpy()
    full = dcase_scores(clips, scores, rules=rules)
    table = dcase_scores(clips[keep], scores[keep], rules=rules)
    pd.testing.assert_frame_equal(table.iloc[:2], full.iloc[:2])
    targets = [c for c in table.columns if c.endswith("_target")]
    others = [c for c in table.columns[2:-1] if c not in targets]
    valve = table[table["machine"] == "valve"]
    assert valve[targets].isna().all(axis=None)
    assert table["hmean"][2] == pytest.approx(harmonic(*table.loc[2, others]))
    numbers = table.iloc[:4][[*others, *targets]].to_numpy().ravel()
    numbers = numbers[~np.isnan(numbers)]
    assert len(numbers) == (12 if rules == 2021 else 10)
    assert table["hmean"].iloc[-1] == pytest.approx(harmonic(*numbers))


def test_rules_of_2022_need_no_domain_of_anomalies(clips, scores):
    hidden = clips.assign(domain=clips["domain"].where(clips["label"] == "normal", None))
    pd.testing.assert_frame_equal(dcase_scores(hidden, scores), dcase_scores(clips, scores))
    with (
        pytest.warns(UserWarning, match="48 of 96 test clips have no domain.*do not count"),
        pytest.raises(ValueError, match="domain 'source' are all 'normal'"),
    ):
        dcase_scores(hidden, scores, rules=2021)


def test_training_and_supplemental_rows_are_ignored(clips, scores):
    expected = dcase_scores(clips, scores)
    extra = pd.concat([clips.iloc[:5].assign(split=split) for split in ("train", "supplemental")])
    both = pd.concat([extra, clips])
    # Their scores do not matter, and theirs may be missing.
    both_scores = np.r_[np.full(10, np.nan), scores]
    pd.testing.assert_frame_equal(dcase_scores(both, both_scores), expected)
    without = clips.drop(columns="split")
    pd.testing.assert_frame_equal(dcase_scores(without, scores), expected)


def test_order_of_rows_and_type_of_year_do_not_matter(clips, scores):
    order = np.random.default_rng(1).permutation(len(clips))
    expected = dcase_scores(clips, scores)
    pd.testing.assert_frame_equal(dcase_scores(clips.iloc[order], scores[order]), expected)
    pd.testing.assert_frame_equal(dcase_scores(clips, scores, rules="2022"), expected)


def test_series_is_aligned_by_its_index(clips, scores):
    expected = dcase_scores(clips, scores)
    series = pd.Series(scores, index=clips.index)
    pd.testing.assert_frame_equal(dcase_scores(clips, series.iloc[::-1]), expected)
    repeated = clips.set_axis([0] * len(clips))
    pd.testing.assert_frame_equal(
        dcase_scores(repeated, pd.Series(scores, index=repeated.index)), expected
    )
    with pytest.raises(ValueError, match=r"index of scores is not that of the clips.*to_numpy\(\)"):
        dcase_scores(clips, series.set_axis(series.index + 1))
    with pytest.raises(ValueError, match="index of scores is not that of the clips"):
        dcase_scores(repeated, series)


def test_labelled_array(clips, scores):
    array = xr.DataArray(
        np.zeros((len(clips), 2)),
        dims=("clip", "embedding"),
        coords={c: ("clip", clips[c].to_numpy(dtype=object)) for c in clips},
    )
    pd.testing.assert_frame_equal(dcase_scores(array, scores), dcase_scores(clips, scores))


def test_float32_scores_and_lists(clips, scores):
    rounded = np.round(scores, 1).astype(np.float32)
    pd.testing.assert_frame_equal(
        dcase_scores(clips, rounded), dcase_scores(clips, rounded.astype(float).tolist())
    )


def test_section_without_a_name(clips, scores):
    named = dcase_scores(clips, scores, rules=2020)
    clips = clips[clips["section"] == "00"].assign(section=None)
    table = dcase_scores(clips, pd.Series(scores)[clips.index], rules=2020)
    assert table["section"].tolist() == [None, None, "mean", "mean", "mean"]
    assert table["auc"][:2].tolist() == named["auc"][[0, 2]].tolist()


def test_unlabelled_clips_are_left_out_with_a_warning(clips, scores):
    hidden = clips["section"] == "01"
    kept = dcase_scores(clips[~hidden], scores[~hidden])
    clips.loc[hidden, "label"] = None
    with pytest.warns(UserWarning, match="48 of 96 .* no value in the column 'label'") as caught:
        table = dcase_scores(clips, scores)
    assert caught[0].filename == __file__
    pd.testing.assert_frame_equal(table, kept)
    clips["label"] = None
    with pytest.raises(ValueError, match="None of the 96 test clips has a value.*'label'"):
        dcase_scores(clips, scores)


def test_no_warning_by_default(clips, scores):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rules in (2020, 2021, 2022):
            dcase_scores(clips, scores, rules=rules)


@pytest.mark.parametrize(("label", "other"), [("normal", "anomaly"), ("anomaly", "normal")])
def test_section_with_one_class(clips, scores, label, other):
    keep = (
        clips.eval("machine != 'fan' or section != '01'") | (clips["label"] == label)
    ).to_numpy()
    message = f"the 12 test clips of machine 'fan', section '01' are all '{label}'.*'{other}'"
    others = clips.eval("machine != 'fan' or section != '01'").to_numpy()
    for rules in (2020, 2021, 2022):
        with pytest.warns(UserWarning, match=message if rules != 2021 else "domain 'source' are"):
            table = dcase_scores(clips[keep], scores[keep], rules=rules)
        expected = dcase_scores(clips[others], scores[others], rules=rules)
        assert table.iloc[1, 2:].isna().all()
        pd.testing.assert_frame_equal(table.drop(index=1).reset_index(drop=True), expected)


def test_machine_with_one_class(clips, scores):
    """Its figures are missing, all others and their means are there."""
    keep = clips.eval("machine != 'fan' or label == 'normal'").to_numpy()
    valve = (clips["machine"] == "valve").to_numpy()
    for rules in (2020, 2021, 2022):
        with pytest.warns(UserWarning, match="Their figures are missing"):
            table = dcase_scores(clips[keep], scores[keep], rules=rules)
        expected = dcase_scores(clips[valve], scores[valve], rules=rules)
        fan = table["machine"] == "fan"
        assert fan.sum() == 3
        assert table[fan].iloc[:, 2:].isna().all(axis=None)
        pd.testing.assert_frame_equal(table[~fan].reset_index(drop=True), expected)


@pytest.mark.parametrize("rules", [2020, 2021, 2022, None])
def test_nothing_with_both_classes(clips, scores, rules):
    keep = (clips["label"] == "normal").to_numpy()
    with pytest.raises(ValueError, match=r"An AUC needs both classes.*section '00'"):
        dcase_scores(clips[keep], scores[keep], rules=rules)


def test_without_any_domain_the_rules_are_those_of_2020(clips, scores):
    expected = dcase_scores(clips, scores, rules=2020)
    for table in (clips.drop(columns="domain"), clips.assign(domain=None)):
        with pytest.warns(UserWarning, match="No test clip has a domain: .*rules of 2020"):
            found = dcase_scores(table, scores)
        pd.testing.assert_frame_equal(found, expected)
    with pytest.raises(ValueError, match="48 of 48 test clips have no domain.*rules=2020 need no"):
        dcase_scores(clips.assign(domain=None), scores, rules=2022)


def test_machine_without_domains_among_others(clips, scores):
    """What needs no domain is there."""
    fan = (clips["machine"] == "fan").to_numpy()
    full = dcase_scores(clips, scores)
    with pytest.warns(UserWarning, match="24 of 48 test clips have no domain.*partial AUC alone"):
        table = dcase_scores(clips.assign(domain=clips["domain"].mask(fan)), scores)
    rows = table["machine"] == "fan"
    assert table.loc[rows, ["auc_source", "auc_target"]].isna().all(axis=None)
    pd.testing.assert_series_equal(table["pauc"], full["pauc"])
    valve = table["machine"] == "valve"
    pd.testing.assert_frame_equal(table[valve], full[valve])


def test_domain_with_one_class(clips, scores):
    only_normal = clips.eval("domain == 'target' and machine == 'fan' and label == 'anomaly'")
    keep = ~only_normal.to_numpy()
    assert np.isfinite(dcase_scores(clips[keep], scores[keep]).iloc[0, 2:].astype(float)).all()
    with pytest.warns(UserWarning, match="'fan', section '00', domain 'target' are all 'normal'"):
        table = dcase_scores(clips[keep], scores[keep], rules=2021)
    assert table.iloc[0].isna().tolist() == [False] * 2 + [False, True] * 2 + [False]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_score_that_is_not_finite(clips, scores, bad):
    scores[7] = bad
    with pytest.raises(ValueError, match=f"The score of valve/7.wav is {bad}; 1 of 96"):
        dcase_scores(clips, scores)
    with pytest.raises(ValueError, match=f"The score of clip 7 is {bad}"):
        dcase_scores(clips.drop(columns="path"), scores)


@pytest.mark.parametrize("column", ["machine", "section", "domain", "label"])
def test_missing_column(clips, scores, column):
    with pytest.raises(ValueError, match=f"lack the column '{column}'"):
        dcase_scores(clips.drop(columns=column), scores, rules=2022)


def test_unknown_values(clips, scores):
    bad = clips.copy()
    bad.loc[3, "label"] = "broken"
    with pytest.raises(ValueError, match=r"'label' must hold .*'broken' for valve/3.wav \(1 of 96"):
        dcase_scores(bad, scores)
    bad = clips.copy()
    bad.loc[3, "domain"] = "north"
    with pytest.raises(ValueError, match=r"'domain' must hold .*'north' for valve/3.wav.*=2020"):
        dcase_scores(bad, scores)
    assert 0 < dcase_score(bad, scores, rules=2020) < 1


def test_wrong_arguments(clips, scores):
    with pytest.raises(ValueError, match=r"each of the 96 clips, got shape \(95,\)"):
        dcase_scores(clips, scores[1:])
    with pytest.raises(ValueError, match=r"got shape \(96, 1\)"):
        dcase_scores(clips, scores[:, None])
    with pytest.raises(ValueError, match="rules must be 2020, 2021 or 2022, got 2019"):
        dcase_scores(clips, scores, rules=2019)
    with pytest.raises(TypeError, match=r"clips must be a clip table.*got ndarray"):
        dcase_scores(scores, scores)
    with pytest.raises(ValueError, match="None of the 96 clips has split 'test'"):
        dcase_scores(clips.assign(split="train"), scores)
    with pytest.raises(ValueError, match="None of the 96 clips has split 'test'"):
        dcase_scores(clips.assign(split=np.nan), scores)
    with pytest.raises(ValueError, match="max_fpr"):
        dcase_scores(clips, scores, max_fpr=0)
