"""Files of the challenge, and metrics from them against scikit-learn alone."""

import csv
import re
import sys
from statistics import harmonic_mean

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.metrics import roc_auc_score

from sk_asd.metrics import dcase_scores, read_submission, write_submission

MACHINES = ("bearing", "fan", "gearbox", "slider", "ToyCar", "ToyTrain", "valve")
SECTIONS = ("00", "01", "02")
EPS = sys.float_info.epsilon


def make_submission_set():
    """7 machines x 3 sections x 200 clips, and scores that are hard on a metric."""
    rng = np.random.default_rng(0)
    rows, scores = [], []
    for machine in MACHINES:
        for section in SECTIONS:
            # Of this section the organisers gave no target clips.
            domains = (
                ("source",) if (machine, section) == ("gearbox", "01") else ("source", "target")
            )
            for domain in domains:
                for label in ("normal", "anomaly"):
                    for i in range(100 // len(domains)):
                        name = f"section_{section}_{domain}_test_{label}_{i:04d}_vel_{i % 4}.wav"
                        rows.append(
                            {
                                "path": f"/data/{machine}/test/{name}",
                                "machine": machine,
                                "section": section,
                                "domain": domain,
                                "split": "test",
                                "label": label,
                            }
                        )
                        value = rng.normal() - 0.8 * (label == "anomaly")
                        if (machine, section) == ("fan", "02"):
                            value = np.round(value)  # ties, some of them between the classes
                        elif (machine, section) == ("valve", "00"):
                            value = 1.0  # all tied
                        elif (machine, section) == ("slider", "01"):
                            value = float(label == "anomaly")  # every anomaly looks more normal
                        scores.append(value)
    order = rng.permutation(len(rows))
    return pd.DataFrame(rows).iloc[order], np.array(scores)[order]


@pytest.fixture(scope="module")
def made():
    return make_submission_set()


def test_metrics_of_a_submission_equal_those_of_scikit_learn_alone(made, tmp_path):
    clips, scores = made
    files = write_submission(clips, scores, np.where(scores >= 0, 1, -1), tmp_path)
    assert len(files) == 2 * 7 * 3

    # From the files as an organiser would: labels and domains are in the names.
    numbers = {}
    for machine in MACHINES:
        for section in SECTIONS:
            with open(tmp_path / f"anomaly_score_{machine}_section_{section}_test.csv") as stream:
                rows = list(csv.reader(stream))
            assert len(rows) == 200
            y = np.array(["_anomaly_" in name for name, _ in rows])
            target = np.array(["_target_" in name for name, _ in rows])
            s = np.array([float(value) for _, value in rows])
            aucs = [
                roc_auc_score(y[keep], s[keep])
                for normal in (~target, target)
                if (normal & ~y).any()
                for keep in [y | normal]
            ]
            numbers[machine, section] = [*aucs, roc_auc_score(y, s, max_fpr=0.1)]
    assert len(numbers["gearbox", "01"]) == 2  # no AUC of the target
    assert numbers["valve", "00"] == [0.5, 0.5, 0.5]
    # AUC 0, and the least pAUC: McClish's scale ends at 1/2 (1 - 0.005 / 0.095).
    assert numbers["slider", "01"] == [0.0, 0.0, pytest.approx(0.4736842)]

    def mean(groups):
        return harmonic_mean([max(value, EPS) for group in groups for value in group])

    submission = read_submission(tmp_path, clips)
    table = dcase_scores(clips, submission["score"]).set_index(["machine", "section"])
    assert len(table) == 7 * 3 + 7 + 1
    columns = ["auc_source", "auc_target", "pauc"]
    for key, expected in numbers.items():
        found = table.loc[key, columns].dropna().tolist()
        np.testing.assert_allclose(found, expected, rtol=1e-14, atol=0)
        assert table.loc[key, "hmean"] == pytest.approx(mean([expected]), rel=1e-12)
    for machine in MACHINES:
        expected = mean([numbers[machine, section] for section in SECTIONS])
        assert table.loc[(machine, "hmean"), "hmean"] == pytest.approx(expected, rel=1e-12)
    assert len([v for group in numbers.values() for v in group]) == 63 - 1
    total = table.loc[("total", "hmean"), "hmean"]
    assert total == pytest.approx(mean(numbers.values()), rel=1e-12)
    # Without the two zeros the total is a number to look at.
    del numbers["slider", "01"]
    rest = clips[(clips["machine"] != "slider") | (clips["section"] != "01")]
    total = dcase_scores(rest, submission["score"].loc[rest.index])["hmean"].iloc[-1]
    assert total == pytest.approx(mean(numbers.values()), rel=1e-12)
    assert 0.6 < total < 0.75


def test_scores_and_decisions_read_back_exactly(made, tmp_path):
    clips, scores = made
    decisions = np.where(scores >= 0.123, 1, -1)
    write_submission(clips, scores, decisions, tmp_path)
    table = read_submission(tmp_path, clips)
    pd.testing.assert_index_equal(table.index, clips.index)
    np.testing.assert_array_equal(table["score"], scores)
    np.testing.assert_array_equal(table["decision"], decisions)
    turned = clips.iloc[::-1]
    np.testing.assert_array_equal(read_submission(tmp_path, turned)["score"], scores[::-1])


def small(**columns):
    """Three test clips of two sections, the second out of order, and a training clip."""
    table = {
        "path": ["/x/b.wav", "/x/train.wav", "/x/a.flac", "/y/a.wav"],
        "machine": "fan",
        "section": ["03", "03", "03", "04"],
        "domain": ["source", "source", "target", "source"],
        "split": ["test", "train", "test", "test"],
    }
    return pd.DataFrame({**table, **columns}, index=[7, 5, 3, 1])


SCORES = [-1.5, np.nan, 0.1 + 0.2, 0.0]
DECISIONS = [-1, 1, 1, 1]


def test_format(tmp_path):
    files = write_submission(small(), SCORES, DECISIONS, tmp_path / "new" / "folder")
    assert [file.name for file in files] == [
        "anomaly_score_fan_section_03_test.csv",
        "decision_result_fan_section_03_test.csv",
        "anomaly_score_fan_section_04_test.csv",
        "decision_result_fan_section_04_test.csv",
    ]
    assert [file.read_bytes() for file in files] == [
        b"a.flac,-0.30000000000000004\nb.wav,1.5\n",
        b"a.flac,0\nb.wav,1\n",
        b"a.wav,0.0\n",
        b"a.wav,0\n",
    ]
    assert sorted(files[0].parent.iterdir()) == sorted(files)
    table = read_submission(tmp_path / "new" / "folder", small())
    assert table.to_dict("index") == {
        7: {"score": -1.5, "decision": -1},
        3: {"score": 0.1 + 0.2, "decision": 1},
        1: {"score": 0.0, "decision": 1},
    }


def test_format_of_2021(tmp_path):
    write_submission(small(), SCORES, DECISIONS, tmp_path, rules=2021)
    tails = ["03_source", "03_target", "04_source"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"{kind}_fan_section_{tail}_test.csv"
        for kind in ("anomaly_score", "decision_result")
        for tail in tails
    ]
    table = read_submission(tmp_path, small(), rules=2021)
    assert table["score"].tolist() == [-1.5, 0.1 + 0.2, 0.0]


def test_format_of_2020(tmp_path):
    clips = small().drop(columns="domain")
    write_submission(clips, SCORES, DECISIONS, tmp_path, rules=2020)
    names = ["anomaly_score_fan_id_03.csv", "anomaly_score_fan_id_04.csv"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert list(read_submission(tmp_path, clips, rules=2020)) == ["score"]


def test_scores_without_decisions(tmp_path):
    write_submission(small(), SCORES, None, tmp_path)
    assert list(read_submission(tmp_path, small())) == ["score"]


def test_labelled_array_and_series(tmp_path):
    clips = small()
    coords = {name: ("clip", clips[name].to_numpy(dtype=object)) for name in clips}
    array = xr.DataArray(np.zeros((4, 2)), dims=("clip", "embedding"), coords=coords)
    write_submission(array, SCORES, DECISIONS, tmp_path / "array")
    table = read_submission(tmp_path / "array", array)
    assert table["score"].to_dict() == {0: -1.5, 2: 0.1 + 0.2, 3: 0.0}
    # A Series is aligned by its index.
    series = pd.Series(SCORES, index=clips.index).iloc[::-1]
    write_submission(clips, series, pd.Series(DECISIONS, index=clips.index), tmp_path / "series")
    for file in (tmp_path / "array").iterdir():
        assert (tmp_path / "series" / file.name).read_bytes() == file.read_bytes()


def test_names_are_found_whatever_their_suffix(tmp_path):
    write_submission(small(), SCORES, DECISIONS, tmp_path)
    clips = small(path=["b.flac", "train.flac", "a.wav", "a.flac"])
    assert read_submission(tmp_path, clips)["score"].tolist() == [-1.5, 0.1 + 0.2, 0.0]


@pytest.mark.parametrize(
    "names", [["\ufeffa.wav", "\ufeffb.wav"], ["a\\.wav", "b\\.wav"], [" a", "a"]]
)
def test_odd_names_read_back(tmp_path, names):
    """Byte order marks that begin a file, names that look like folders, or like each other."""
    clips = pd.DataFrame({"path": names, "machine": "fan", "section": "03"})
    write_submission(clips, [1.0, 2.0], None, tmp_path)
    assert read_submission(tmp_path, clips)["score"].tolist() == [1, 2]


def test_paths_of_any_system_are_read(tmp_path):
    write_submission(small(), SCORES, None, tmp_path)
    path = tmp_path / "anomaly_score_fan_section_03_test.csv"
    path.write_text("C:\\data\\a.wav,1\n data/b.wav ,2\n")
    found = read_submission(tmp_path, small())["score"]
    assert sorted(found)[:2] == [-2, -1]


def test_older_files_are_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    write_submission(small(), SCORES, DECISIONS, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    class Full:
        def __init__(self, stream, **options):
            stream.write("half a row")

        def writerows(self, rows):
            raise OSError("disk full")

    monkeypatch.setattr(csv, "writer", Full)
    with pytest.raises(OSError, match="disk full"):
        write_submission(small(), [9, 9, 9, 9], DECISIONS, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "scores", "decisions", "rules", "message"),
    [
        ({}, SCORES[:3], DECISIONS, 2022, r"scores must be .* 4 clips, got shape \(3,\)"),
        ({}, SCORES, DECISIONS[:3], 2022, r"decisions must be .* 4 clips, got shape \(3,\)"),
        ({}, [np.nan] * 4, DECISIONS, 2022, r"3 of 3 scores are not finite, .* b\.wav"),
        ({}, SCORES, [0, 1, 1, 0], 2022, r"1 \(normal\) or -1 \(anomaly\), found 0 \(2 of 3 clips"),
        ({}, SCORES, pd.Series(DECISIONS), 2022, "index of decisions is not that of the clips"),
        ({}, SCORES, DECISIONS, 2019, "rules must be 2020, 2021 or 2022"),
        ({"machine": None}, SCORES, DECISIONS, 2022, "machine is unknown for 3 of 3 .*b.wav"),
        ({"section": None}, SCORES, DECISIONS, 2022, "section is unknown for 3 of 3"),
        ({"domain": None}, SCORES, DECISIONS, 2021, "domain is unknown for 3 of 3"),
        ({"domain": "moon"}, SCORES, DECISIONS, 2021, r"'source' or 'target', found \['moon'\]"),
        ({"split": "train"}, SCORES, DECISIONS, 2022, "None of the 4 clips has split 'test'"),
        ({"machine": "a/b"}, SCORES, DECISIONS, 2022, "machine 'a/b' cannot be a part of a file"),
        ({"section": "/../00"}, SCORES, DECISIONS, 2020, "section '/../00' cannot be a part"),
        ({"path": "/x/a.wav"}, SCORES, DECISIONS, 2022, "and section are called a"),
    ],
)
def test_what_cannot_be_written(tmp_path, change, scores, decisions, rules, message):
    with pytest.raises(ValueError, match=message):
        write_submission(small(**change), scores, decisions, tmp_path / "new", rules=rules)
    assert not (tmp_path / "new").exists()


def test_column_that_is_missing(tmp_path):
    with pytest.raises(ValueError, match="clips lack the column 'section'"):
        write_submission(small().drop(columns="section"), SCORES, DECISIONS, tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("anomaly_score", "a.wav,1\n", "must list the 2 test clips: it lacks b, and none should"),
        ("anomaly_score", "a,1\nb,2\nc,3\n", "it lacks none, and c should not be there"),
        ("anomaly_score", "a,1\nb,2\na,1\n", "line 3: a is there twice"),
        (
            "anomaly_score",
            "a,1\nb\n",
            r"line 2: expected <file name>,<finite number>, found \['b'\]",
        ),
        ("anomaly_score", "a,1\nb,2,3\n", "line 2: expected"),
        pytest.param(
            "anomaly_score", f"a,{'1' * 200_000}\n", "is no csv file: field larger", id="long"
        ),
        ("anomaly_score", "a,nan\nb,2\n", "line 1: expected .*'nan'"),
        ("anomaly_score", "file,score\na,1\nb,2\n", "line 1: expected"),
        ("decision_result", "a,0\nb,-1\n", "line 2: expected <file name>,<0 or 1>, found"),
    ],
)
def test_what_cannot_be_read(tmp_path, name, text, message):
    write_submission(small(), SCORES, DECISIONS, tmp_path)
    path = tmp_path / f"{name}_fan_section_03_test.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}.*{message}"):
        read_submission(tmp_path, small())


@pytest.mark.parametrize("name", ["anomaly_score", "decision_result"])
def test_file_that_is_missing(tmp_path, name):
    write_submission(small(), SCORES, DECISIONS, tmp_path)
    (tmp_path / f"{name}_fan_section_04_test.csv").unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}_fan_section_04_test.csv"):
        read_submission(tmp_path, small())


NUMBERS = {
    "int": 3,
    "float": 3.0,
    "text": "3",
    "text of a float": "3.0",
    "int8": np.int8(3),
    "Int64": pd.array([3] * 4, dtype="Int64"),
    "Float64": pd.array([3.0] * 4, dtype="Float64"),
    "string": pd.array(["03"] * 4, dtype="string"),
    "category": pd.Categorical([3] * 4),
}


@pytest.mark.parametrize("rules", [2020, 2021, 2022])
@pytest.mark.parametrize("kind", NUMBERS)
def test_sections_that_csv_has_made_numbers(tmp_path, rules, kind):
    """Files are named as the evaluators look for them, and are read back with any spelling."""
    clips = pd.DataFrame({"path": [f"{i}.wav" for i in range(4)], "machine": "fan"})
    clips = clips.assign(domain="source", section="03")
    scores = [0.5, 0.25, -1.0, 2.0]
    table = clips.assign(section=NUMBERS[kind])
    (file,) = write_submission(table, scores, None, tmp_path, rules=rules)
    assert (
        file.name
        == {
            2020: "anomaly_score_fan_id_03.csv",
            2021: "anomaly_score_fan_section_03_source_test.csv",
            2022: "anomaly_score_fan_section_03_test.csv",
        }[rules]
    )
    for known in (clips, table):
        assert read_submission(tmp_path, known, rules=rules)["score"].tolist() == scores


def test_sections_of_both_spellings_are_one(tmp_path):
    clips = pd.DataFrame({"path": ["a.wav", "b.wav"], "machine": "fan", "section": ["0", "00"]})
    (file,) = write_submission(clips, [1.0, 2.0], None, tmp_path)
    assert file.read_text() == "a.wav,-1.0\nb.wav,-2.0\n"


def test_sections_that_are_no_numbers_keep_their_names(tmp_path):
    names = ["left", "0.5", "100", "7b", "-1"]
    clips = pd.DataFrame({"path": [f"{n}.wav" for n in names], "machine": "fan", "section": names})
    files = write_submission(clips, np.zeros(5), None, tmp_path)
    assert {f.name.split("_")[4] for f in files} == set(names)
