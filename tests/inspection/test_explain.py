"""The most abnormal clips in the report: what is gathered, shown and to be heard."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline

from sk_asd.detectors import KNNDetector
from sk_asd.ensemble import GroupedDetector, ScoreEnsemble
from sk_asd.features import TimePooling
from sk_asd.inspection import anomaly_map, explain_clips, nearest_normal, write_report
from sk_asd.inspection._sounds import excerpt, seconds_and_rate, wav_uri

BY = ["machine", "section"]


@pytest.fixture(scope="module")
def ensemble(pooling, train):
    """Two members, fitted."""
    from sklearn.base import clone

    detector = GroupedDetector(KNNDetector(), by=BY)
    members = [
        ("spread", clone(pooling)),
        ("peaks", make_pipeline(clone(pooling[0]), TimePooling(("max",)), detector)),
    ]
    return ScoreEnsemble(members, by=BY).fit(train)


@pytest.fixture(scope="module")
def report(ensemble, train, test, tmp_path_factory):
    """A report of an ensemble, with three clips of every machine explained."""
    scores = ensemble.score_samples(test)
    thresholds = np.full(len(test), ensemble.offset_)
    explain = []
    for machine in ("fan", "valve"):
        rows = (test["machine"] == machine).to_numpy()
        explain += explain_clips(
            ensemble, test[rows], train, scores=scores[rows], thresholds=thresholds[rows], n_clips=3
        )
    path = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(
        path,
        test,
        {"both": scores},
        thresholds={"both": thresholds},
        title="both on /a/folder/with_a_long_name/and_many_more/folders/without_a_space",
        explain=explain,
    )


class TestGathering:
    def test_the_lowest_scores_first(self, pooling, train, test):
        scores = pooling.score_samples(test)
        found = explain_clips(pooling, test, train, n_clips=4)
        order = np.argsort(scores)[:4]
        assert_allclose([clip["score"] for clip in found], scores[order])
        assert [clip["machine"] for clip in found] == test["machine"].iloc[order].tolist()
        assert [clip["threshold"] for clip in found] == [None] * 4
        nearest = nearest_normal(pooling, test.iloc[order], train)
        for clip, position, distance in zip(found, order, nearest["distance"]):
            one = test.iloc[[position]]
            assert_allclose(clip["map"].values, anomaly_map(pooling, one)[0])
            assert_allclose(clip["spectrogram"].values, pooling[0].transform(one)[0])
            assert_allclose(clip["nearest"]["distance"], distance)
            assert clip["nearest"]["n_compared"] == 16
            assert clip["contributions"] is None
            assert clip["sound"][1] == 16000
            np.testing.assert_array_equal(clip["sound"][0], one["audio"].iloc[0])

    def test_who_contributed(self, ensemble, test):
        (clip,) = explain_clips(ensemble, test, n_clips=1)
        assert clip["nearest"] is None
        assert_allclose(clip["contributions"].contributions.sum(), clip["score"])
        loudest = clip["contributions"].contributions.idxmin()
        assert clip["map"].values.attrs["member"] == loudest

    def test_few_are_compared(self, pooling, train, test):
        (clip,) = explain_clips(pooling, test, train, n_clips=1, max_train=7)
        assert clip["nearest"]["n_compared"] == 7

    def test_errors(self, pooling, test):
        with pytest.raises(TypeError, match="Expected a clip table"):
            explain_clips(pooling, np.zeros((2, 100)))
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            explain_clips(pooling, test, scores=[1.0])


class TestSounds:
    def test_as_long_as_there_is_space(self):
        assert seconds_and_rate(1e9) == (10.0, 16000)
        assert seconds_and_rate(2 * 16000 * 5) == (5.0, 16000)
        assert seconds_and_rate(2 * 8000 * 6) == (6.0, 8000)

    def test_an_excerpt_is_around_what_matters(self):
        y = np.arange(16000, dtype="float32") / 16000
        cut, sr, start = excerpt((y, 1600), 2.0, 1600, centre=5.0)
        assert (sr, start, len(cut)) == (1600, 4.0, 3200)
        assert cut[0] == y[6400]
        assert excerpt((y, 1600), 2.0, 1600, centre=99.0)[2] == 8.0
        assert excerpt((y, 1600), 99.0, 1600, centre=5.0)[2] == 0.0
        cut, sr, _ = excerpt((y, 32000), 10.0, 16000)
        assert (sr, len(cut)) == (16000, 8000)

    def test_wav(self):
        y = np.sin(np.arange(800)).astype("float32") / 4
        kind, data = wav_uri(y, 8000, gain=2.0).split(",")
        assert kind == "data:audio/wav;base64"
        read, sr = sf.read(io.BytesIO(base64.b64decode(data)))
        assert sr == 8000
        assert_allclose(read, 2 * y, atol=1e-4)


class TestReport:
    def test_parts(self, report):
        text = report.read_text(encoding="utf-8")
        assert len(re.findall(r'<article id="clip-\d+"', text)) == 6
        # Clip, neighbour, map, contributions; clip and neighbour to be heard.
        assert text.count('src="data:image/png;base64') == 6 * 4
        assert text.count('<audio controls preload="none" src="data:audio/wav;base64') == 6 * 2
        assert text.count("share of squared distance") >= 6
        assert "of 16 training clips" in text
        assert "map of member" in text
        assert not re.search(r"https?:|//|<script", re.sub(r'"data:[^"]*"', "", text))

    def test_pictures_and_sounds_can_be_read(self, report):
        from PIL import Image

        text = report.read_text(encoding="utf-8")
        for data in re.findall(r'"data:image/png;base64,([^"]*)"', text):
            assert min(Image.open(io.BytesIO(base64.b64decode(data))).size) > 150
        sounds = re.findall(r'"data:audio/wav;base64,([^"]*)"', text)
        for data in sounds:
            y, sr = sf.read(io.BytesIO(base64.b64decode(data)))
            assert (sr, len(y)) == (16000, 16000)
        # The louder of a clip and its neighbour is just not clipped.
        levels = [abs(sf.read(io.BytesIO(base64.b64decode(d)))[0]).max() for d in sounds]
        assert_allclose(np.max(np.reshape(levels, (6, 2)), axis=1), 0.9, atol=1e-3)

    def test_every_sound_has_its_own_times(self, pooling, test, train, tmp_path):
        fan = test[test["machine"] == "fan"]
        (clip,) = explain_clips(pooling, fan, train, n_clips=1)
        clip["sound"] = (np.ones(16000 * 30), 16000)
        clip["map"].values = clip["map"].values.assign_coords(
            frame=np.linspace(0, 30, clip["map"].values.sizes["frame"])
        )
        path = write_report(tmp_path / "r.html", fan, {"one": np.zeros(len(fan))}, explain=[clip])
        text = path.read_text(encoding="utf-8")
        (of_other,) = re.findall(r"Nearest normal clip: [^,]*, ([^<]*)</figcaption>", text)
        assert of_other == "0.0 to 1.0 s"

    @pytest.mark.slow
    def test_a_large_report_stays_small(self, pooling, test, train, tmp_path):
        """Seven machines with five clips of 20 seconds: 45 MB of sound, uncut."""
        (clip,) = explain_clips(pooling, test[test["machine"] == "fan"], train, n_clips=1)
        noise = np.random.default_rng(0).normal(size=20 * 16000)
        clip["sound"] = clip["nearest"]["sound"] = (noise, 16000)
        machines = [f"fan {i}" for i in range(7)]
        table = pd.concat([test[test["machine"] == "fan"].assign(machine=m) for m in machines])
        scores = np.random.default_rng(0).normal(size=len(table))
        explain = [{**clip, "machine": machine} for machine in machines for _ in range(5)]
        path = write_report(tmp_path / "r.html", table, {"one": scores}, explain=explain)
        assert 5e6 < path.stat().st_size < 15e6

    def test_clips_of_other_machines_are_refused(self, pooling, train, test, tmp_path):
        explain = explain_clips(pooling, test[test["machine"] == "fan"], n_clips=1)
        valve = test[test["machine"] == "valve"]
        with pytest.raises(ValueError, match=r"explain has clips of \['fan'\]"):
            write_report(tmp_path / "r.html", valve, {"a": np.zeros(len(valve))}, explain=explain)


def chromium():
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium on the PATH")
    return found


# Reports into the page what a reader would miss: broken pictures and sounds, what sticks out.
_PROBE = """
<script>
window.problems = [];
window.addEventListener("error", e => problems.push(e.message || e.target.tagName), true);
window.addEventListener("load", async () => {
  for (const image of document.images)
    if (!image.complete || !image.naturalWidth) problems.push("image " + image.alt);
  const sounds = [...document.querySelectorAll("audio")];
  const seconds = await Promise.all(sounds.map(audio => new Promise(done => {
    audio.addEventListener("loadedmetadata", () => done(audio.duration));
    audio.addEventListener("error", () => done(0));
    audio.preload = "metadata"; audio.load();
  })));
  if (seconds.some(s => !(s > 0.9 && s < 1.1))) problems.push("sounds " + seconds);
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth) problems.push("wider than the window");
  parent.document.body.dataset.checked = JSON.stringify({problems, n: sounds.length,
    images: document.images.length, width: innerWidth,
    parts: [...document.querySelectorAll("[id]")].map(e => e.id),
    requests: performance.getEntriesByType("resource").map(e => e.name)
      .filter(name => !name.startsWith("data:"))});
});
</script>
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(report, tmp_path, width):
    """No message on the console, no request, every picture and sound is there."""
    # In a frame, since a window of a browser is never as narrow as a phone.
    text = report.read_text(encoding="utf-8").replace("</head>", _PROBE + "</head>")
    page = tmp_path / "framed.html"
    page.write_text(
        f'<body><iframe style="width: {width}px; height: 800px; border: 0" '
        f'srcdoc="{html.escape(text)}"></iframe></body>',
        encoding="utf-8",
    )
    command = [
        *(chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900"),
        *("--enable-logging=stderr", "--v=0", "--virtual-time-budget=20000", "--dump-dom"),
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line for line in done.stderr.splitlines() if ":CONSOLE" in line] == []
    found = json.loads(html.unescape(re.search(r'data-checked="([^"]*)"', done.stdout).group(1)))
    assert found["width"] == width
    assert found["problems"] == []
    assert found["requests"] == []
    assert found["n"] == 12
    assert found["images"] == 6 * 4 + 2 * 4
    for part in ("overview", "tables", "machine-1", "machine-2", "group-4", "clip-6"):
        assert part in found["parts"]


def test_pyplot_is_left_alone(report):
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_integers_look_and_sound_as_what_they_stand_for(pooling, train, test):
    int16 = [np.round(wave * 32768).astype(np.int16) for wave in test["audio"]]
    same = [wave / np.float32(32768) for wave in int16]
    found = [explain_clips(pooling, test.assign(audio=waves), train) for waves in (int16, same)]
    assert len(found[0]) > 0
    for one, other in zip(*found):
        np.testing.assert_array_equal(one["sound"][0], other["sound"][0])
        assert one["sound"][0].dtype == np.float32
        np.testing.assert_array_equal(one["spectrogram"].values, other["spectrogram"].values)
