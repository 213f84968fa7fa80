import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy import signal
from sklearn.metrics import roc_auc_score

from sk_asd.datasets import check_clips, load_clips, make_machine_sounds
from sk_asd.datasets._machine_models import VALVE_PATTERNS, bearing_rates
from sk_asd.datasets._machine_sounds import ATTRIBUTES, MACHINES, MODELS, machine_unit

SR = 16000
SMALL = {"n_train": 4, "n_test": 8, "n_target_train": 1, "duration": 0.5, "random_state": 0}
KEY = ["machine", "section", "split", "domain", "label"]


def numbered(clips):
    """Sounds by machine, section, split, domain, label and running number."""
    keys = clips[KEY].assign(number=clips.groupby(KEY).cumcount())
    return dict(zip(keys.itertuples(index=False, name=None), clips["audio"]))


def same(one, other):
    assert one.keys() == other.keys()
    for key, y in one.items():
        np.testing.assert_array_equal(y, other[key], err_msg=str(key))


def clean(machine, anomalies=None, *, n_train=0, n_test=0, **options):
    """Noise-free clips of one machine."""
    options = {"random_state": 0, "snr": np.inf} | options
    return make_machine_sounds(
        machine, anomalies=anomalies, n_train=n_train, n_test=n_test, n_target_train=0, **options
    )


def spectrum(y, hz_step=0.5):
    """Power spectrum by Welch's method."""
    return signal.welch(y, SR, nperseg=int(SR / hz_step))


def peak(y, low, high):
    """Frequency and prominence (over the median) of the strongest line between two frequencies."""
    hz, power = spectrum(y)
    band = (hz >= low) & (hz <= high)
    return hz[band][power[band].argmax()], power[band].max() / np.median(power[band])


# --- table ---------------------------------------------------------------------------------------


def test_table():
    clips = make_machine_sounds(["fan", "bearing"], sections=2, **SMALL)
    assert len(clips) == 2 * 2 * 12
    assert list(clips.columns) == [
        *("audio", "sr", "machine", "section", "domain", "split", "label"),
        *("vel", "loc", "m-n", "f-n", "anomaly"),
    ]
    assert all(y.dtype == np.float32 and y.shape == (SR // 2,) for y in clips["audio"])
    assert all(np.isfinite(y).all() and 0 < np.abs(y).max() <= 1 for y in clips["audio"])
    assert clips["sr"].unique().tolist() == [SR]
    counts = clips.groupby(["machine", "section", "split", "domain", "label"]).size()
    assert counts.loc["fan", "01", "train"].to_dict() == {
        ("source", "normal"): 3,
        ("target", "normal"): 1,
    }
    assert counts.xs("test", level="split").unique().tolist() == [2]
    anomalous = clips["label"] == "anomaly"
    assert clips["anomaly"].notna().equals(anomalous)
    assert clips["vel"].dtype == float  # fans have none
    assert clips["vel"].notna().equals(clips["machine"] == "bearing")
    assert set(clips["f-n"][clips["machine"] == "fan"].dropna()) <= set("ABCD")


def test_target_share_and_odd_numbers():
    clips = make_machine_sounds("fan", n_train=30, n_test=6, duration=0.5, random_state=0)
    assert clips[clips["split"] == "train"].groupby("domain").size().to_dict() == {
        "source": 27,
        "target": 3,
    }
    test = clips[clips["split"] == "test"]
    assert test.groupby(["domain", "label"]).size().tolist() == [2, 2, 1, 1]


@pytest.mark.parametrize("machine", MACHINES)
def test_domains_have_the_attributes_of_the_task(machine):
    clips = make_machine_sounds(
        machine, sections=3, n_train=12, n_test=0, n_target_train=6, duration=0.5, random_state=1
    )
    for section, table in enumerate(ATTRIBUTES[machine]):
        own = clips[clips["section"] == f"{section:02d}"]
        assert own[list(table)].notna().any().all()
        rows = {
            domain: set(part[list(table)].astype(str).itertuples(index=False, name=None))
            for domain, part in own.groupby("domain")
        }
        assert not rows["source"] & rows["target"]


def test_every_kind_of_anomaly_is_made():
    for machine in MACHINES:
        kinds = MODELS[machine][2]
        assert len(kinds) >= 3
        clips = make_machine_sounds(
            machine, n_train=0, n_test=4 * len(kinds), duration=0.5, random_state=0
        )
        assert set(clips["anomaly"].dropna()) == set(kinds)
        assert all(kind in make_machine_sounds.__doc__ for kind in kinds)


def test_anomalies_can_be_chosen():
    clips = make_machine_sounds(
        ["fan", "valve"], anomalies=["clogging", "leak"], n_train=0, n_test=8, duration=0.5
    )
    found = clips.dropna(subset="anomaly").groupby("machine")["anomaly"].unique()
    assert found["fan"].tolist() == ["clogging"]
    assert found["valve"].tolist() == ["leak"]


# --- determinism ---------------------------------------------------------------------------------


def test_same_seed_same_sounds_in_threads_too():
    one = make_machine_sounds(["fan", "valve"], **SMALL)
    two = make_machine_sounds(["fan", "valve"], n_jobs=2, **SMALL)
    same(numbered(one), numbered(two))
    pd.testing.assert_frame_equal(one.drop(columns="audio"), two.drop(columns="audio"))


def test_other_seed_other_sounds():
    one = numbered(make_machine_sounds("fan", **SMALL))
    two = numbered(make_machine_sounds("fan", **SMALL | {"random_state": 1}))
    assert not any(np.array_equal(y, two[key]) for key, y in one.items())
    state = np.random.RandomState(0)
    three = make_machine_sounds("fan", **SMALL | {"random_state": state})
    four = make_machine_sounds("fan", **SMALL | {"random_state": state})
    assert not np.array_equal(three["audio"][0], four["audio"][0])
    again = make_machine_sounds("fan", **SMALL | {"random_state": np.random.RandomState(0)})
    same(numbered(three), numbered(again))


def test_no_two_clips_are_alike():
    clips = make_machine_sounds(MACHINES, sections=2, **SMALL)
    assert len({y.tobytes() for y in clips["audio"]}) == len(clips)


def test_clip_depends_on_nothing_beside_it():
    whole = make_machine_sounds(
        ["valve", "fan"], sections=2, **SMALL | {"n_train": 9, "n_target_train": 3, "n_test": 16}
    )
    part = make_machine_sounds("fan", sections=["01"], **SMALL)
    whole, part = numbered(whole), numbered(part)
    same({key: whole[key] for key in part}, part)


def test_global_generator_is_left_alone():
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.RandomState(3).uniform()
    make_machine_sounds("fan", **SMALL)
    assert np.random.uniform() == expected  # noqa: NPY002


# --- folders -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All machines, written; the folder and the table."""
    root = tmp_path_factory.mktemp("sounds") / "new"
    return root, make_machine_sounds(MACHINES, sections=3, root=root, n_jobs=2, **SMALL)


def test_load_clips_finds_the_same_metadata(folder):
    root, clips = folder
    pd.testing.assert_frame_equal(load_clips(root), clips.drop(columns="anomaly"))


@pytest.mark.parametrize("machine", MACHINES)
def test_file_names_tell_all(folder, machine):
    _, clips = folder
    clips = clips[clips["machine"] == machine]
    for clip in clips.to_dict("records"):
        path = Path(clip["path"])
        assert path.parts[-4:-1] == ("dev_data", machine, clip["split"])
        head, section, domain, split, label, number, *tokens = path.stem.split("_")
        assert head == "section"
        assert len(number) == 4
        assert (section, domain, split, label) == tuple(
            clip[c] for c in ("section", "domain", "split", "label")
        )
        table = ATTRIBUTES[machine][int(section)]
        pairs = dict(zip(tokens[::2], tokens[1::2]))
        assert len(tokens) == 2 * len(pairs) > 0
        column = ["source", "target"].index(domain)
        assert all(value in table[key][column] for key, value in pairs.items())
        for key in table:
            value = clip[key]
            if key not in pairs:
                assert pd.isna(value)
            elif isinstance(value, str):
                assert value == pairs[key]
            else:
                assert value == float(pairs[key].rstrip("V"))


def test_files_hold_the_sounds_of_memory(folder):
    _, clips = folder
    memory = make_machine_sounds(MACHINES, sections=3, **SMALL)
    pd.testing.assert_frame_equal(
        memory.drop(columns=["audio", "sr"]), clips.drop(columns="path"), check_like=False
    )
    for path, y in zip(clips["path"][::7], memory["audio"][::7]):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (SR, 1, "PCM_16")
        np.testing.assert_allclose(soundfile.read(path)[0], y, atol=1.01 / 2**15)


def test_folder_is_complete_and_in_good_health(folder):
    root, clips = folder
    assert check_clips(clips).empty
    assert len(list(root.rglob("*.wav"))) == len(clips)
    assert {path.suffix for path in root.rglob("*") if path.is_file()} == {".wav", ".csv"}
    attributes = pd.read_csv(root / "dev_data/fan/attributes_02.csv")
    assert list(attributes.columns) == ["file_name", "d1p", "d1v"]
    assert len(attributes) == 12
    assert all((root / "dev_data" / name).is_file() for name in attributes["file_name"])
    assert set(attributes["d1p"]) == {"n-lv"}
    anomalies = pd.read_csv(root / "dev_data/fan/anomalies.csv")
    faulty = clips[clips["anomaly"].notna() & (clips["machine"] == "fan")]
    assert anomalies["anomaly"].tolist() == faulty["anomaly"].tolist()
    assert [str(root / "dev_data" / name) for name in anomalies["file_name"]] == list(
        faulty["path"]
    )


# --- physics -------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", [0, 1, 2])
def test_fan_blade_pass(section):
    unit = machine_unit("fan", section, 0)
    y = clean("fan", n_train=1, sections=[section])["audio"][0]
    blade_pass = unit["rate"] * unit["blades"]
    hz, prominence = peak(y, 20, 1000)
    assert hz == pytest.approx(blade_pass, rel=0.04)
    assert prominence > 30


def test_fan_damaged_blade_raises_the_shaft_orders_between_blades():
    unit = machine_unit("fan", 0, 0)

    def share(y):
        hz, power = spectrum(y)
        measured = peak(
            y, 0.95 * unit["rate"] * unit["blades"], 1.05 * unit["rate"] * unit["blades"]
        )
        shaft = measured[0] / unit["blades"]
        lines = [np.abs(hz - k * shaft) < 0.05 * shaft for k in range(2, unit["blades"])]
        between = [np.abs(hz - (k + 0.5) * shaft) < 0.05 * shaft for k in range(2, unit["blades"])]
        return power[np.any(lines, 0)].max() / np.median(power[np.any(between, 0)])

    healthy = clean("fan", n_train=1)["audio"][0]
    faulty = clean("fan", "damaged_blade", n_test=4, severity=2.0).dropna(subset="anomaly")
    assert min(share(y) for y in faulty["audio"]) > 5 * share(healthy)


def test_bearing_rates_of_a_known_bearing():
    # SKF 6205-2RS JEM, as the Case Western Reserve bearing data centre lists it.
    rates = bearing_rates(1.0, 9, 7.94 / 39.04)
    assert rates["bpfi"] == pytest.approx(5.4152, rel=1e-3)
    assert rates["bpfo"] == pytest.approx(3.5848, rel=1e-3)
    assert rates["ftf"] == pytest.approx(0.39828, rel=1e-3)
    assert rates["bsf"] == pytest.approx(4.7135 / 2, rel=1e-3)


def envelope_line(y, modes, rate):
    """Strength of the line at `rate` in the envelope spectrum around resonances."""
    best = 0.0
    for mode, quality, _ in modes:
        half = max(2 * mode / quality, 1.5 * rate)
        band = [max(mode - half, 200), min(mode + half, 0.49 * SR)]
        passed = signal.sosfiltfilt(signal.butter(3, band, "bandpass", fs=SR, output="sos"), y)
        envelope = np.abs(signal.hilbert(passed))
        hz, power = spectrum(envelope - envelope.mean(), 1.0)
        near = np.abs(hz / rate - 1) < 0.03
        around = (np.abs(hz / rate - 1) < 0.3) & ~near
        best = max(best, power[near].max() / np.median(power[around]))
    return best


@pytest.mark.parametrize(
    ("kind", "rate"), [("outer_race", "bpfo"), ("inner_race", "bpfi"), ("ball", "bsf")]
)
def test_bearing_envelope_spectrum(kind, rate):
    unit = machine_unit("bearing", 0, 0)
    geometry = unit["balls"], unit["ratio"], unit["contact"]
    clips = clean("bearing", kind, n_test=12, severity=6.0, duration=4.0)
    lines = [
        envelope_line(y, unit["modes"], bearing_rates(vel * 1000 / 60, *geometry)[rate])
        for y, vel in zip(clips["audio"], clips["vel"])
    ]
    faulty = clips["anomaly"].notna().to_numpy()
    lines = np.array(lines)
    assert np.median(lines[faulty]) > 5 * np.median(lines[~faulty])
    assert np.median(lines[~faulty]) < 10


def test_gearbox_mesh_follows_the_voltage_and_wear_raises_sidebands():
    unit = machine_unit("gearbox", 0, 0)

    def sidebands(y, volt):
        mesh = unit["teeth"] * unit["rate_per_volt"] * volt * 0.94  # slowed by the load
        hz, _ = peak(y, 0.965 * mesh, 1.035 * mesh)
        f, power = spectrum(y)
        assert power[f == hz] > 5 * np.median(power[np.abs(f / mesh - 1) < 0.3])
        shaft = hz / unit["teeth"]
        centre = power[np.abs(f - hz) < 0.2 * shaft].max()
        sides = [power[np.abs(f - hz - k * shaft) < 0.2 * shaft].max() for k in (-1, 1)]
        return np.mean(sides) / centre

    clips = clean("gearbox", "wear", n_test=16, severity=2.0)
    ratios = np.array([sidebands(y, volt) for y, volt in zip(clips["audio"], clips["volt"])])
    worn = clips["anomaly"].notna().to_numpy()
    assert np.median(ratios[worn]) > 3 * np.median(ratios[~worn])


def test_slider_strokes_have_the_period_of_their_motion():
    unit = machine_unit("slider", 0, 0)
    clips = clean("slider", n_train=6)
    for y, vel in zip(clips["audio"], clips["vel"]):
        acceleration = 9.81 * 0.3
        cruise = min(vel / 1000, np.sqrt(0.9 * acceleration * unit["stroke"]))
        period = unit["stroke"] / cruise + cruise / acceleration + unit["dwell"]
        envelope = np.sqrt(np.square(y[: len(y) // 160 * 160]).reshape(-1, 160).mean(1))
        envelope -= envelope.mean()
        similar = signal.correlate(envelope, envelope)[len(envelope) - 1 :]
        lags = np.arange(len(similar)) / 100
        near = (lags > 0.6 * period) & (lags < 1.4 * period)
        assert lags[near][similar[near].argmax()] == pytest.approx(period, rel=0.05)


def count_clicks(y):
    """Number of short bursts."""
    power = np.convolve(signal.sosfilt(signal.butter(2, 1000, "high", fs=SR, output="sos"), y) ** 2,
                        np.ones(64) / 64, "same")  # fmt: skip
    return len(signal.find_peaks(power, 0.04 * power.max(), distance=int(0.009 * SR))[0])


def test_valve_clicks():
    options = {"n_test": 16, "severity": 1.2, "random_state": 2}
    kinds = ["missing_click", "late_click", "double_click"]
    clips = clean("valve", kinds, **options)
    surplus = []
    for y, pattern in zip(clips["audio"], clips["pat"]):
        cycle, openings = VALVE_PATTERNS[f"{pattern:02d}"]
        surplus.append(count_clicks(y) - 10.0 / cycle * 2 * len(openings))
    surplus = pd.Series(surplus).groupby(clips["anomaly"].fillna("normal"))
    assert surplus.apply(lambda s: s.abs().max())["normal"] <= 2.5
    assert surplus.max()["missing_click"] < -2.5
    assert surplus.min()["double_click"] > 2.5


def test_toy_whine_follows_the_voltage():
    clips = clean("ToyCar", n_train=12)
    unit = machine_unit("ToyCar", 0, 0)
    relative = []
    for y, volt in zip(clips["audio"], clips["spd"]):
        mesh = unit["pinion"] * unit["rate_per_volt"] * volt
        relative.append(peak(y, 0.85 * mesh, 1.15 * mesh)[0] / mesh)
    spread = pd.Series(relative).groupby(clips["car"]).std()
    assert spread.max() < 0.03


def test_microphone_changes_the_sound_and_not_the_level():
    clips = make_machine_sounds(
        "ToyCar", sections=["02"], n_train=8, n_target_train=4, n_test=0, random_state=0
    )
    assert set(clips["mic"]) == {1, 2}
    level = clips["audio"].map(lambda y: 20 * np.log10(np.sqrt(np.mean(y**2))))
    assert level.between(-38.01, -33.99).all()


@pytest.mark.parametrize("snr", [-6, 0, 12])
@pytest.mark.parametrize("machine", ["fan", "bearing", "slider", "valve"])
def test_snr_is_as_asked(machine, snr):
    options = {"n_train": 3, "n_test": 4, "duration": 4.0, "random_state": 0}
    noisy = make_machine_sounds(machine, snr=snr, **options)
    pure = make_machine_sounds(machine, snr=np.inf, **options)
    for y, machine_alone in zip(noisy["audio"], pure["audio"]):
        y, x = y.astype(float), machine_alone.astype(float)
        part = x * (y @ x) / (x @ x)
        measured = 10 * np.log10((part @ part) / np.square(y - part).sum())
        assert measured == pytest.approx(snr, abs=1.0)


def test_noise_level_attribute():
    options = {"sections": ["02"], "n_train": 12, "n_target_train": 6, "n_test": 0}
    noisy = make_machine_sounds("fan", duration=2.0, random_state=0, **options)
    pure = make_machine_sounds("fan", duration=2.0, random_state=0, snr=np.inf, **options)
    likeness = [abs(np.corrcoef(y, x)[0, 1]) for y, x in zip(noisy["audio"], pure["audio"])]
    by_level = pd.Series(likeness).groupby(noisy["n-lv"]).mean()
    assert by_level.index.tolist() == ["L1", "L2", "L3", "L4"]
    assert by_level.is_monotonic_decreasing


def test_no_severity_no_fault():
    # The same machine noise, without a fault: the spectra of normal and anomalous clips agree.
    for machine in MACHINES:
        for kind in MODELS[machine][2]:
            unit = machine_unit(machine, 0, 0)
            sounds = [MODELS[machine][1](_sound(), unit, {}, fault, 0.0) for fault in (None, kind)]
            power = [signal.welch(y / np.std(y), SR, nperseg=1024)[1] for y in sounds]
            difference = 10 * np.log10(power[1] / power[0])
            assert np.abs(np.median(difference)) < 1.0, (machine, kind)


def _sound():
    from sk_asd.datasets._synthesis import Sound

    return Sound(np.random.default_rng(0), 4 * SR, SR)


def test_loudness_says_nothing():
    clips = make_machine_sounds(
        MACHINES, n_train=0, n_test=80, duration=0.5, random_state=0, n_jobs=2
    )
    level = clips["audio"].map(lambda y: np.sqrt(np.mean(y**2)))
    aucs = [
        roc_auc_score(part["label"] == "anomaly", level[part.index])
        for _, part in clips.groupby("machine")
    ]
    assert 0.44 < np.mean(aucs) < 0.56
    assert all(0.35 < auc < 0.65 for auc in aucs)


# --- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sr", [4000, 44100])
def test_other_rates_and_lengths(sr):
    clips = make_machine_sounds(
        MACHINES, n_train=1, n_test=4, duration=1.25, sr=sr, snr=3, random_state=0
    )
    assert {len(y) for y in clips["audio"]} == {round(1.25 * sr)}
    assert clips["sr"].unique().tolist() == [sr]
    assert all(np.isfinite(y).all() for y in clips["audio"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"machines": ["fan", "toaster"]}, r"Unknown machines \['toaster'\].*'ToyCar'.*'valve'"),
        ({"machines": []}, "must be some of"),
        ({"machines": ["fan", "fan"]}, "repeats"),
        ({"machines": 3}, "'machines' parameter"),
        ({"sections": 0}, "'sections' parameter"),
        ({"sections": ["00", "1x"]}, "`sections` must be.*1x"),
        ({"sections": [100]}, "`sections` must be"),
        ({"sections": [1, "01"]}, "repeats"),
        ({"n_train": -1}, "'n_train' parameter"),
        ({"n_test": -4}, "'n_test' parameter"),
        ({"n_train": 0, "n_test": 0}, "no clip to make"),
        ({"n_train": 3, "n_target_train": 4}, "n_target_train=4 must not exceed n_train=3"),
        ({"anomalies": ["rust"]}, r"unknown are \['rust'\].*'unbalance'"),
        ({"machines": ["fan", "valve"], "anomalies": "leak"}, r"it has none of \['fan'\]"),
        ({"severity": -1.0}, "'severity' parameter"),
        ({"snr": "loud"}, "'snr' parameter"),
        ({"snr": -np.inf}, "'snr' parameter"),
        ({"duration": 0.1}, "'duration' parameter"),
        ({"sr": 100}, "'sr' parameter"),
        ({"random_state": -1}, "'random_state' parameter"),
    ],
)
def test_wrong_parameters(options, message):
    with pytest.raises(ValueError, match=message):
        make_machine_sounds(**{"machines": "fan", **options})


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=f"new or an empty folder.*{tmp_path.name}"):
        make_machine_sounds("fan", root=tmp_path, **SMALL)
    with pytest.raises(NotADirectoryError, match=r"notes\.txt"):
        make_machine_sounds("fan", root=tmp_path / "notes.txt", **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# --- hardness ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_about_as_hard_as_the_task():
    path = Path(__file__).parents[2] / "benchmarks" / "bench_synthetic.py"
    spec = importlib.util.spec_from_file_location("bench_synthetic", path)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    table, _ = bench.run(MACHINES, [5], sections=2, n_train=60, n_test=60, n_jobs=2)
    mean = table.groupby(["machine", "detector"])[bench.METRICS].mean()
    for machine in MACHINES:
        own = mean.loc[machine].drop(index=list(bench.FLOORS))
        best = own.loc[own[["auc_source", "auc_target"]].mean(axis=1).idxmax()]
        # Over domains: with so few clips a single AUC is off by some points.
        assert 0.6 < (best["auc_source"] + best["auc_target"]) / 2 < 0.95, (machine, best)
        assert best["auc_target"] < best["auc_source"], (machine, best)
