"""The HTML report: self-contained, complete, escaped."""

import base64
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from sk_asd.inspection import write_report
from sk_asd.inspection._figure import bare_figure, kinds_of, svg_uri
from sk_asd.inspection._report import percent_rows

VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags in order of nesting, their attributes, and all text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text, self.rows = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def attributes(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def make_clips(machines=("fan", "valve"), domains=("source", "target")):
    """Four normal clips and four anomalies per machine, section and domain."""
    rows = [
        {
            "path": f"/somewhere/{machine}/test/section_{section}_{domain}_{label}_{i}.wav",
            "machine": machine,
            "section": section,
            "domain": domain,
            "label": label,
        }
        for machine in machines
        for section in ("00", "01")
        for domain in domains
        for label in ("normal", "anomaly")
        for i in range(4)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def clips():
    return make_clips()


@pytest.fixture
def scores(clips):
    rng = np.random.default_rng(0)
    normal = (clips["label"] == "normal").to_numpy()
    return {
        "good": np.where(normal, 1.0, -1.0) + 0.01 * rng.normal(size=len(clips)),
        "poor": rng.normal(size=len(clips)),
    }


def read(path):
    return Page(path.read_text(encoding="utf-8"))


def test_report_is_whole_and_needs_nothing_else(tmp_path, clips, scores):
    limits = {"good": np.zeros(len(clips))}
    path = write_report(
        tmp_path / "report.html", clips, scores, thresholds=limits, settings={"Seed": 7}
    )
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert text.startswith("<!DOCTYPE html>")
    for _, attrs in page.tags:
        assert all(v.startswith(("data:", "#")) for k, v in attrs.items() if k in ("src", "href"))
    assert not re.search(r"https?:|//", re.sub(r'"data:[^"]*"', "", text))
    assert "url(" not in text
    assert "@import" not in text
    assert "<script" not in text
    assert "viewport" in [attrs.get("name") for attrs in page.attributes("meta")]
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    machines = {"machine-1", "machine-2"}
    groups = {f"group-{i}" for i in range(1, 5)}
    assert {"overview", "tables", "machines"} | machines | groups == set(ids)
    assert {attrs["href"] for attrs in page.attributes("a")} == {f"#{name}" for name in machines}
    # A histogram and a ROC curve per system, machine and section, each a sound SVG.
    images = page.attributes("img")
    assert len(images) == 2 * 2 * 4
    assert all(image["alt"] for image in images)
    for image in images:
        kind, data = image["src"].split(",")
        assert kind == "data:image/svg+xml;base64"
        svg = ElementTree.fromstring(base64.b64decode(data))
        assert svg.tag.endswith("}svg")
    text = " ".join(page.text)
    assert "32 normal, 32 anomaly" in text or "32 anomaly, 32 normal" in text
    assert "fan (section 00, 01)" in text
    assert "Seed" in text
    assert "At the threshold 8 of 8 anomalies are found, with 0 false alarms among 8" in text


def test_report_shows_the_figures_of_the_official_table(tmp_path, clips, scores):
    from sk_asd.metrics import dcase_scores

    page = read(write_report(tmp_path / "report.html", clips, {"poor": scores["poor"]}))
    first = dcase_scores(clips, scores["poor"]).iloc[0]
    expected = [f"{100 * first[c]:.2f}" for c in ("auc_source", "auc_target", "pauc", "hmean")]
    assert page.rows[1] == ["fan", "00", *expected]


def test_report_shows_precision_recall_and_f1_where_thresholds_are_known(tmp_path, clips, scores):
    from sk_asd.metrics import dcase_scores

    poor = scores["poor"]
    limits = np.full(len(poor), np.median(poor))
    path = write_report(tmp_path / "r.html", clips, {"poor": poor}, thresholds={"poor": limits})
    page = read(path)
    header = next(i for i, row in enumerate(page.rows) if row[-1:] == ["F1 target"])
    assert page.rows[header][2:5] == ["precision source", "recall source", "F1 source"]
    first = dcase_scores(clips, poor, np.where(poor < limits, -1, 1)).iloc[0, 6:]
    assert page.rows[header + 1] == ["fan", "00", *(f"{100 * f:.2f}" for f in first)]
    assert "poor, decisions" in " ".join(page.text)


def test_lowest_scores_are_listed_first(tmp_path):
    clips = make_clips(machines=["fan"])
    scores = np.arange(len(clips), dtype=float)[::-1]
    scores[3] = -5.0
    limits = {"mine": np.full(len(clips), -1.0)}
    page = read(write_report(tmp_path / "r.html", clips, {"mine": scores}, thresholds=limits))
    listed = [row for row in page.rows if row[0].endswith(".wav")]
    assert listed[0] == ["section_00_source_normal_3.wav", "source", "normal", "-5", "anomaly"]
    assert len(listed) == 2 * 5
    assert [float(row[3]) for row in listed[:5]] == sorted(float(row[3]) for row in listed[:5])


def test_one_false_alarm_is_one(tmp_path):
    clips = make_clips(machines=["fan"])
    scores = np.where(clips["label"] == "normal", 1.0, -1.0)
    scores[0] = -2.0
    limits = {"mine": np.zeros(len(clips))}
    path = write_report(tmp_path / "r.html", clips, {"mine": scores}, thresholds=limits)
    text = path.read_text(encoding="utf-8")
    assert "with 1 false alarm among 8 normal" in text
    assert "with 0 false alarms among 8 normal" in text


def test_torch_is_not_loaded_for_scores_alone():
    code = "import sys, sk_asd.inspection._report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_name_is_escaped(tmp_path):
    evil = "<script>alert('x')</script>&\""
    clips = make_clips(machines=[evil])
    clips["path"] = [f"/a/{evil}{i}.wav".replace("</", "<") for i in range(len(clips))]
    scores = {f"sys{evil}": np.arange(len(clips), dtype=float)}
    path = write_report(
        tmp_path / "r.html", clips, scores, title=f"T{evil}", settings={f"k{evil}": f"v{evil}"}
    )
    page = read(path)
    assert "script" not in {tag for tag, _ in page.tags}
    assert f"T{evil}" in page.text
    assert f"sys{evil}" in page.text
    assert any(evil in image["alt"] for image in page.attributes("img"))


def test_clips_without_domain_or_path(tmp_path):
    clips = make_clips(domains=[None]).drop(columns="path")
    scores = np.tile([2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0], 4)
    page = read(write_report(tmp_path / "r.html", clips, {"mine": scores}, rules="2020"))
    assert page.rows[1][:4] == ["fan", "00", "100.00", "100.00"]
    assert len(page.attributes("img")) == 2 * 4


def test_report_is_replaced_only_when_complete(tmp_path, clips, scores):
    path = tmp_path / "report.html"
    path.write_text("before")
    with pytest.raises(ValueError, match="'good': found NaN as the score of 1 of"):
        write_report(path, clips, {"good": np.r_[np.nan, scores["good"][1:]]})
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("scores", "thresholds", "error", "match"),
    [
        ([1.0], None, TypeError, "scores must be a dict"),
        ({}, None, ValueError, "scores names no system"),
        ({"a": [1.0]}, None, ValueError, "inconsistent numbers of samples"),
        ({"a": np.arange(64)}, {"b": np.zeros(64)}, ValueError, r"without scores: \['b'\]"),
    ],
)
def test_bad_input(tmp_path, clips, scores, thresholds, error, match):
    with pytest.raises(error, match=match):
        write_report(tmp_path / "r.html", clips, scores, thresholds=thresholds)


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_missing_library_is_named_with_the_way_to_get_it(
    tmp_path, clips, scores, monkeypatch, missing
):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf'{missing}.*pip install "sk_asd\[report\]"'):
        write_report(tmp_path / "r.html", clips, scores)


def test_percent_rows():
    table = pd.DataFrame({"machine": ["fan"], "auc_source": [0.5], "pauc": [np.nan]})
    headers, rows = percent_rows(table)
    assert headers == ["machine", "AUC source", "pAUC"]
    decided = pd.DataFrame({"f1_target": [0.5], "precision": [0.25], "hmean": [1.0]})
    assert percent_rows(decided)[0] == ["F1 target", "precision", "hmean"]
    assert rows[0][:2] == ["fan", 50.0]
    assert np.isnan(rows[0][2])


def test_every_machine_has_a_table_of_its_own(tmp_path, clips, scores):
    page = read(write_report(tmp_path / "r.html", clips, {"poor": scores["poor"]}))
    whole, fan, valve = (i for i, row in enumerate(page.rows) if row[-1:] == ["hmean"])
    assert page.rows[fan] == page.rows[whole][1:]
    for own, rows in ((fan, slice(whole + 1, whole + 3)), (valve, slice(whole + 3, whole + 5))):
        assert page.rows[own + 1 : own + 3] == [row[1:] for row in page.rows[rows]]


def test_kinds():
    kinds = kinds_of(["normal", "normal", "anomaly", None], ["source", None, "target", "source"])
    assert kinds.tolist() == ["normal, source", "normal", "anomaly", "unknown"]


def test_figures_are_reproducible_and_leave_no_global_state():
    def picture():
        figure, ax = bare_figure()
        ax.plot([0, 1], [0, 1])
        return svg_uri(figure)

    assert picture() == picture()
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


def test_only_labelled_test_clips_are_shown(tmp_path, clips, scores):
    extra = clips.iloc[:6].assign(
        path=[f"/somewhere/extra_{i}.wav" for i in range(6)],
        split=["train"] * 3 + ["test"] * 3,
        label=["normal"] * 3 + [None] * 3,
    )
    table = pd.concat([clips.assign(split="test"), extra], ignore_index=True)
    # Lowest of all, so that they would head the list of the most abnormal clips.
    more = {name: np.append(values, np.full(6, -9.0)) for name, values in scores.items()}
    text = write_report(tmp_path / "a.html", table, more).read_text(encoding="utf-8")
    assert "extra_" not in text
    assert ">nan<" not in text
