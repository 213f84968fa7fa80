"""Csv files: from spreadsheets, and for them."""

import csv

import pandas as pd
import pytest

from sk_asd.datasets._csv import csv_rows, read_table, write_table
from sk_asd.metrics._score_file import read_scores

TEXT = "path,score\nfan/a.wav,-0.5\nfan/b.wav,1.5\n"
ODD = [
    "=HYPERLINK(1).wav",
    "+49.wav",
    "-1.wav",
    "@SUM(A1).wav",
    "\tx.wav",
    "\rx.wav",
    "\nx.wav",
    "  =1+1.wav",
    "＝1.wav",
    "'=1.wav",
    "''=1.wav",
    "'plain.wav",
    "'",
    "a=1.wav",
    '"=1".wav',
    "x,=1.wav",
    "odd\udcff=.wav",
    "-",
]


def test_text_that_is_a_formula_is_guarded_and_comes_back(tmp_path):
    """Numbers stay numbers, also negative ones, alone and among texts."""
    table = pd.DataFrame({"path": ODD, "score": [-1.5] * len(ODD)})
    table["=value"] = pd.Series([-2.5, "-2.5"] * (len(ODD) // 2), dtype=object)
    write_table(table, tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "score", "'=value"]
    assert not any(row[0].lstrip(" ").startswith(tuple("=+-@\t\r\n＝")) for row in rows)
    assert {row[1] for row in rows} == {"-1.5"}
    assert [row[2] for row in rows[:2]] == ["-2.5", "'-2.5"]
    again = read_table(tmp_path / "t.csv", "scores", ["path", "score"])
    assert again["path"].tolist() == ODD
    assert list(again.columns) == ["path", "score", "=value"]


def test_tables_that_no_spreadsheet_would_change_are_as_pandas_writes_them(tmp_path):
    table = pd.DataFrame({"path": ["a.wav", "b c.wav"], "score": [0.1, -3e-9], "none": [None, "x"]})
    write_table(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == table.to_csv(index=False, lineterminator="\n")


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode("utf-8-sig"),
        TEXT.replace("\n", "\r\n").encode(),
        (TEXT + ",\n,\n").encode(),
        (TEXT + "\n   , \n\n").encode(),
        TEXT.replace("\n", ",,\n").encode(),
        TEXT.replace("path", " path ").encode(),
    ],
)
def test_what_spreadsheets_add_is_left_out(tmp_path, data):
    (tmp_path / "s.csv").write_bytes(data)
    table = read_scores(tmp_path / "s.csv")
    assert table.to_dict("list") == {"path": ["fan/a.wav", "fan/b.wav"], "score": [-0.5, 1.5]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TEXT.encode("utf-16"), "is not UTF-8 but UTF-16 .*'CSV UTF-8'"),
        (TEXT.encode("utf-16-be"), "row 1, has NUL bytes: expected UTF-8"),
        (TEXT.replace("b.wav", "b\0.wav").encode(), "row 3, has NUL bytes"),
        (TEXT.replace(",", ";").encode(), "separated by semicolons, expected commas"),
        (TEXT.replace(",", "\t").encode(), "separated by tabs, expected commas"),
        (TEXT.replace("-0.5", '"-0,5"').encode(), "'-0,5', expected a decimal point"),
        (TEXT.replace("-0.5", "-0,5").encode(), "row 2: expected 2 cells, found 3"),
        (TEXT.replace(",1.5", "").encode(), "row 3: expected 2 cells, found 1"),
        (TEXT.replace("path,score", "path,score,score").encode(), "several columns score"),
        (TEXT.replace("score", "level").encode(), "lacks the column score; it has path, level"),
        (TEXT.replace("fan/b.wav", "").encode(), "no path in row 3"),
        (TEXT.replace("b.wav", "a.wav").encode(), "several rows for fan/a.wav"),
        (TEXT.replace("1.5", '"1.5').encode() + b'"' * 200_000, "is no csv file|no finite number"),
        (b"", "lacks the column path and score; it has none"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, data, message):
    (tmp_path / "s.csv").write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        read_scores(tmp_path / "s.csv")
    assert str(tmp_path / "s.csv") in str(caught.value)


def test_line_breaks_inside_cells(tmp_path):
    (tmp_path / "s.csv").write_text('path,score,note\n"a\nb.wav",1,"x\ny"\nc.wav,2,\n')
    table = read_table(tmp_path / "s.csv", "scores", ["path"])
    assert table["path"].tolist() == ["a\nb.wav", "c.wav"]
    assert list(table.index) == [2, 3]


def test_files_of_the_challenge_are_left_as_they_are(tmp_path):
    (tmp_path / "s.csv").write_text("'=a.wav,1\n,\n")
    assert list(csv_rows(tmp_path / "s.csv")) == [(1, ["'=a.wav", "1"])]
