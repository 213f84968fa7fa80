"""Synthetic machine sounds with the sections, domains and attributes of DCASE 2022 Task 2."""

import csv
import itertools
import os
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.utils import check_random_state

from sk_asd.datasets import _machine_models as machine_models
from sk_asd.datasets import _toy_models as toy_models
from sk_asd.datasets._audio import write_audio
from sk_asd.datasets._names import typed_column
from sk_asd.datasets._synthesis import (
    Sound,
    decibels,
    factory,
    factory_unit,
    microphone,
    unit_power,
)
from sk_asd.utils._files import replacing
from sk_asd.utils._sklearn import Interval, validate_params

MODELS = {**toy_models.MODELS, **machine_models.MODELS}

# For section number modulo 3: attribute -> (values in the source, values in the target domain).
_VEL = (("6", "10", "14", "18"), ("6", "10", "14", "18"))
_TOY = {
    "car": (("A1", "A2"), ("A1", "A2")),
    "spd": (("28V", "31V"), ("28V", "31V")),
    "mic": (("1",), ("1",)),
    "noise": (("1",), ("1",)),
}
_TOYS = [
    {**_TOY, "car": (("A1", "A2"), ("B1", "B2"))},
    {**_TOY, "spd": (("28V", "31V"), ("25V", "34V"))},
    {**_TOY, "mic": (("1",), ("2",)), "noise": (("1",), ("2",))},
]
ATTRIBUTES = {
    "ToyCar": _TOYS,
    "ToyTrain": _TOYS,
    "bearing": [
        {"vel": (("6", "10", "14", "18"), ("4", "22"))},
        {"vel": _VEL, "loc": (("A", "B"), ("C", "D"))},
        {"vel": _VEL, "f-n": (("A", "B"), ("C", "D"))},
    ],
    "fan": [
        {"m-n": (("W", "X"), ("Y", "Z"))},
        {"f-n": (("A", "B"), ("C", "D"))},
        {"n-lv": (("L1", "L2"), ("L3", "L4"))},
    ],
    "gearbox": [
        {"volt": (("1.0", "1.5", "2.0", "2.5"), ("0.8", "3.0"))},
        {"wt": (("0", "50", "100", "150"), ("30", "200"))},
        {"id": (("05", "08", "13"), ("00", "11"))},
    ],
    "slider": [
        {"vel": (("300", "500", "700", "900"), ("400", "1100"))},
        {"ac": (("0.1", "0.3", "0.5"), ("0.05", "0.8"))},
        {"f-n": (("A", "B"), ("C", "D"))},
    ],
    "valve": [
        {"pat": (("00", "01"), ("02", "03"))},
        {"pat": (("00", "01"), ("00", "01")), "panel": (("open",), ("close",))},
        {"v1pat": (("04", "05"), (None, "05")), "v2pat": ((None, "04"), ("05",))},
    ],
}
MACHINES = tuple(ATTRIBUTES)
DOMAINS = ("source", "target")
SPLITS = ("train", "test")
LABELS = ("normal", "anomaly")

# Noise level in dB relative to the asked one.
_NOISE_LEVELS = {"L1": -1.5, "L2": 1.5, "L3": 3.0, "L4": 5.0}
# Low cut in Hz, frequency in Hz and gain in dB of a broad peak or dip.
_MICROPHONES = {
    ("mic", "2"): (150, 3000, 4.0),
    ("loc", "B"): (60, 2000, 2.0),
    ("loc", "C"): (120, 1200, -4.0),
    ("loc", "D"): (60, 4000, 4.0),
    ("panel", "close"): (40, 5000, -8.0),
}
_LEVEL = (-38.0, -34.0)  # dB re full scale, uniform, whatever the label
_PLACE, _UNIT, _PLAN, _CLIP = range(4)  # first word of the spawn keys


def _generator(entropy, *key):
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=key))


def _choices(machine, section, domain):
    """All combinations of attribute values of a section in a domain, as dictionaries."""
    table = ATTRIBUTES[machine][section % 3]
    column = DOMAINS.index(domain)
    rows = itertools.product(*(values[column] for values in table.values()))
    rows = [{k: v for k, v in zip(table, row) if v is not None} for row in rows]
    return [row for row in rows if row]


def machine_unit(machine, section, random_state):
    """Geometry, resonances and base speed of one machine individual.

    Parameters
    ----------
    machine : str
        Machine type.
    section : int
        Section.
    random_state : int
        The seed given to :func:`make_machine_sounds`.

    Returns
    -------
    dict
        As the model of the machine draws it.
    """
    return MODELS[machine][0](_generator(random_state, _UNIT, MACHINES.index(machine), section))


def _place(machine, section, attributes, entropy):
    """Factory noise of the place where the clip is recorded."""
    for key in ("m-n", "f-n", "noise"):
        if key in attributes:  # the same place for every machine
            return factory_unit(_generator(entropy, _PLACE, *f"{key}_{attributes[key]}".encode()))
    return factory_unit(_generator(entropy, _PLACE, MACHINES.index(machine), section))


def _render(clip, n, sr, snr, severity, entropy):
    """Samples of one clip: machine, factory, microphone and recording level."""
    machine, section, attributes = clip["machine"], int(clip["section"]), clip["attributes"]
    key = (
        MACHINES.index(machine),
        section,
        SPLITS.index(clip["split"]),
        DOMAINS.index(clip["domain"]),
        LABELS.index(clip["label"]),
        clip["index"],
    )
    # Streams of their own, so that the machine stays the same when the noise changes.
    machine_rng, factory_rng, level_rng = (_generator(entropy, _CLIP, *key, i) for i in range(3))
    depth = severity * np.exp(0.3 * level_rng.standard_normal())
    level = level_rng.uniform(*_LEVEL)
    noise_db = -snr + level_rng.uniform(-0.7, 0.7) + _NOISE_LEVELS.get(attributes.get("n-lv"), 0.0)
    _, model, _ = MODELS[machine]
    unit = machine_unit(machine, section, entropy)
    y = model(Sound(machine_rng, n, sr), unit, attributes, clip["anomaly"], depth)
    y = unit_power(y)
    if np.isfinite(noise_db):
        place = _place(machine, section, attributes, entropy)
        y = y + np.float32(decibels(noise_db)) * factory(Sound(factory_rng, n, sr), place)
    for item in attributes.items():
        if item in _MICROPHONES:
            y = microphone(y, sr, *_MICROPHONES[item])
    y = unit_power(y) * np.float32(decibels(level))
    # A sharp click alone in the clip would be cut off by a 16-bit file.
    peak = np.abs(y).max()
    return y * np.float32(0.99 / peak) if peak > 0.99 else y


def _file_name(clip):
    """File name of a clip in the grammar of DCASE 2022 Task 2."""
    stem = "section_{section}_{domain}_{split}_{label}_{index:04d}".format(**clip)
    return "_".join([stem, *itertools.chain(*clip["attributes"].items())]) + ".wav"


def _plan(machine, section, counts, kinds, entropy):
    """What is known about every clip of a section before it sounds."""
    for (split, domain, label), n_clips in counts.items():
        choices = _choices(machine, section, domain)
        key = MACHINES.index(machine), section, SPLITS.index(split), DOMAINS.index(domain)
        rng = _generator(entropy, _PLAN, *key, LABELS.index(label))
        for index in range(n_clips):
            yield {
                "machine": machine,
                "section": f"{section:02d}",
                "domain": domain,
                "split": split,
                "label": label,
                "index": index,
                "attributes": choices[rng.integers(len(choices))],
                "anomaly": kinds[index % len(kinds)] if label == "anomaly" else None,
            }


def _table(plan):
    """Metadata columns of the planned clips, typed as `load_clips` types them."""
    text = ("machine", "section", "domain", "split", "label")
    columns = {name: pd.Series([clip[name] for clip in plan], dtype=object) for name in text}
    for name in dict.fromkeys(itertools.chain(*(clip["attributes"] for clip in plan))):
        columns[name] = typed_column([clip["attributes"].get(name) for clip in plan])
    columns["anomaly"] = pd.Series([clip["anomaly"] for clip in plan], dtype=object)
    return pd.DataFrame(columns)


def _write_rows(path, rows):
    """Write a csv file."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)


def _write_tables(folder, plan):
    """Write ``attributes_<dd>.csv`` of every section, and ``anomalies.csv``, of one machine."""
    names = [f"{clip['machine']}/{clip['split']}/{_file_name(clip)}" for clip in plan]
    for section in sorted({clip["section"] for clip in plan}):
        rows = [
            [name, *itertools.chain(*clip["attributes"].items())]
            for name, clip in zip(names, plan)
            if clip["section"] == section
        ]
        width = max(len(row) for row in rows) // 2
        header = ["file_name", *(f"d{i + 1}{c}" for i in range(width) for c in "pv")]
        rows = [row + [""] * (len(header) - len(row)) for row in rows]
        _write_rows(folder / f"attributes_{section}.csv", [header, *rows])
    faulty = [[name, clip["anomaly"]] for name, clip in zip(names, plan) if clip["anomaly"]]
    _write_rows(folder / "anomalies.csv", [["file_name", "anomaly"], *faulty])


def _check_machines(machines):
    """Machine types as a tuple."""
    machines = (machines,) if isinstance(machines, str) else tuple(machines)
    unknown = [machine for machine in machines if machine not in MACHINES]
    if unknown or not machines:
        raise ValueError(
            f"Unknown machines {unknown}: `machines` must be some of {list(MACHINES)}."
        )
    if len(set(machines)) < len(machines):
        raise ValueError(f"`machines` repeats a machine: {list(machines)}.")
    return machines


def _check_sections(sections):
    """Section numbers as a list."""
    if isinstance(sections, Integral):
        return list(range(sections))
    sections = [sections] if isinstance(sections, str) else list(sections)
    try:
        numbers = [int(section) for section in sections]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or not all(0 <= number < 100 for number in numbers):
        raise ValueError(
            f"`sections` must be a number of sections or a list of some of '00' to '99', "
            f"got {sections}."
        )
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"`sections` repeats a section: {sections}.")
    return numbers


def _check_anomalies(anomalies, machines):
    """Kinds of anomaly of every machine."""
    kinds = {machine: MODELS[machine][2] for machine in machines}
    if anomalies is None:
        return kinds
    wanted = {anomalies} if isinstance(anomalies, str) else set(anomalies)
    unknown = sorted(wanted - set().union(*kinds.values()))
    kinds_left = {m: tuple(kind for kind in kinds[m] if kind in wanted) for m in machines}
    if unknown or not all(kinds_left.values()):
        lacking = [machine for machine in machines if not kinds_left[machine]]
        problem = f"unknown are {unknown}" if unknown else f"it has none of {lacking}"
        raise ValueError(
            f"`anomalies` must name kinds of the machines, for each at least one; {problem}. "
            f"The kinds are {kinds}."
        )
    return kinds_left


def _check_root(root):
    """Folder to write to, which must not hold anything yet."""
    root = Path(os.path.abspath(os.fspath(root)))
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"`root` must be a folder, found a file: {root}")
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"`root` must be a new or an empty folder, this one is not: {root}")
    return root


@validate_params(
    {
        "machines": [str, list, tuple],
        "sections": [Interval(Integral, 1, 100, closed="both"), str, list, tuple],
        "n_train": [Interval(Integral, 0, None, closed="left")],
        "n_test": [Interval(Integral, 0, None, closed="left")],
        "n_target_train": [Interval(Integral, 0, None, closed="left"), None],
        "anomalies": [str, list, tuple, None],
        "severity": [Interval(Real, 0, None, closed="left")],
        "snr": [Interval(Real, None, np.inf, closed="right")],
        "duration": [Interval(Real, 0.5, None, closed="left")],
        "sr": [Interval(Integral, 4000, None, closed="left")],
        "root": [str, os.PathLike, None],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
    },
    prefer_skip_nested_validation=True,
)
def make_machine_sounds(
    machines=("fan", "valve"),
    *,
    sections=1,
    n_train=100,
    n_test=100,
    n_target_train=None,
    anomalies=None,
    severity=1.0,
    snr=0.0,
    duration=10.0,
    sr=16000,
    root=None,
    random_state=None,
    n_jobs=None,
):
    """Make recordings of synthetic machines, normal and anomalous, in a noisy factory.

    Machines, sections, domains and attributes are those of DCASE 2022 Task 2 [1]_; the sounds are
    signal models on physical principles. With the default `severity` and `snr` they are about as
    hard as the recordings of the task.

    Parameters
    ----------
    machines : str or sequence of str, default=("fan", "valve")
        Machine types, of those in the table under Notes.
    sections : int or sequence of str or int, default=1
        Sections of every machine: how many, or which of "00" to "99". Every section is another
        individual of the machine: other geometry, other resonances, other speed.
    n_train : int, default=100
        Normal training clips per machine and section, of both domains.
    n_test : int, default=100
        Test clips per machine and section, evenly normal and anomalous, source and target domain.
    n_target_train : int, default=None
        How many of the `n_train` clips are of the target domain. None is a tenth, at most 10, the
        number of the task.
    anomalies : str or sequence of str, default=None
        Kinds of anomaly; None is all kinds the machine has. The test anomalies go through the kinds
        in turn.
    severity : float, default=1.0
        How bad the faults are. Single clips vary around it by about a third; 0 means no audible
        fault.
    snr : float, default=0.0
        Power of the machine over that of the factory noise in dB, in front of the microphone.
        Single clips vary by up to 0.7 dB around it; the attribute ``n-lv`` (fans of sections 02,
        05, …) makes the noise 1.5 dB weaker (L1) to 5 dB stronger (L4). ``float("inf")`` gives
        machines without noise.
    duration : float, default=10.0
        Seconds of a clip, at least 0.5. Valves and slide rails need some seconds to show their
        rhythm.
    sr : int, default=16000
        Sample rate in Hz, at least 4000.
    root : str or path-like, default=None
        Folder, new or empty, to which the clips are written as the task has them: 16-bit files
        ``dev_data/<machine>/<split>/section_<dd>_<domain>_<split>_<label>_<dddd>_<attributes>.wav``
        and ``dev_data/<machine>/attributes_<dd>.csv``. The kinds of anomaly, for which these names
        have no place, are in ``dev_data/<machine>/anomalies.csv``. None keeps the sounds in memory.
    random_state : int, RandomState instance or None, default=None
        Pass an int for sounds that are the same in every call. A clip then depends on its machine,
        section, split, domain, label and number alone (and on `anomalies`, `severity`, `snr`,
        `duration` and `sr`), not on how many others are made beside it.
    n_jobs : int, default=None
        Threads.

    Returns
    -------
    DataFrame
        Clip table in the order of :func:`load_clips`: by machine, split and file name. Its columns
        are those that `load_clips` finds in the folder, ``path``, ``machine``, ``section``,
        ``domain``, ``split``, ``label`` and the attributes, and last ``anomaly``, the kind of
        anomaly or None. Sounds in memory are in ``audio`` (float32 arrays of shape
        ``(duration * sr,)`` within ±1) with the rate in ``sr``, instead of ``path``.

    Raises
    ------
    ValueError
        If a machine, section, kind or number is none of the possible ones, or no clip is asked for.
    FileExistsError, NotADirectoryError
        If `root` is a folder that is not empty, or a file.

    See Also
    --------
    load_clips : Makes the clip table of a folder, such as one written here.

    Notes
    -----
    ==========  =========================================  =========================================
    machine     normal sound                               anomalies
    ==========  =========================================  =========================================
    fan         blade-pass harmonics at rotation × blades  ``unbalance``, ``damaged_blade``,
                with slight speed wander, turbulence       ``clogging``, ``over_voltage``
    bearing     shaft harmonics, rolling noise             ``outer_race``, ``inner_race``, ``ball``
                                                           (resonances struck at BPFO, BPFI and BSF
                                                           [2]_), ``eccentric_shaft``
    gearbox     mesh tone of two gears with sidebands      ``broken_tooth``, ``wear``,
                                                           ``eccentric_gear``, ``lack_of_oil``
    slider      strokes: friction and belt follow the      ``rail_damage`` (a click at one place of
                speed, knocks at the ends                  the stroke), ``loose_belt``,
                                                           ``no_grease`` (squeal)
    valve       solenoid clicks in a timed pattern, flow   ``missing_click``, ``late_click``,
                                                           ``double_click``, ``leak``
    ToyCar      motor whine at a speed set by the voltage  ``bent_shaft``, ``melted_gear``,
                                                           ``deformed_tire``, ``over_voltage``
    ToyTrain    the same, near and far on a closed track,  ``flat_wheel``, ``broken_axle``,
                axles over the joints of the rails         ``disjointed_rail``, ``obstruction``,
                                                           ``over_voltage``
    ==========  =========================================  =========================================

    Domains differ in attributes, in a way that depends on the section number modulo 3, as in the
    task: mixed-in machine, factory noise or noise level of the fan (``m-n``, ``f-n``, ``n-lv``),
    speed, place of the microphone or noise of the bearing (``vel``, ``loc``, ``f-n``), voltage,
    load or copy of the gearbox (``volt``, ``wt``, ``id``), speed, acceleration or noise of the
    slider (``vel``, ``ac``, ``f-n``), pattern, panel or patterns of two valves (``pat``, ``panel``,
    ``v1pat``, ``v2pat``), and model, voltage, or microphone and noise of the toys (``car``,
    ``spd``, ``mic``, ``noise``).

    The loudness of a clip is random and says nothing about its label.

    References
    ----------
    .. [1] K. Dohi et al., "Description and Discussion on DCASE 2022 Challenge Task 2: Unsupervised
       Anomalous Sound Detection for Machine Condition Monitoring Applying Domain Generalization
       Techniques", DCASE Workshop 2022.
    .. [2] R. B. Randall and J. Antoni, "Rolling element bearing diagnostics - A tutorial",
       Mechanical Systems and Signal Processing 25, 2011.

    Examples
    --------
    >>> from sk_asd.datasets import make_machine_sounds
    >>> clips = make_machine_sounds("bearing", n_train=3, n_test=4, duration=1.0, random_state=0)
    >>> clips["audio"][0].shape
    (16000,)
    >>> clips.groupby(["split", "label"]).size().to_dict()
    {('test', 'anomaly'): 2, ('test', 'normal'): 2, ('train', 'normal'): 3}
    """
    machines = _check_machines(machines)
    sections = _check_sections(sections)
    kinds = _check_anomalies(anomalies, machines)
    if n_target_train is None:
        n_target_train = min(n_train // 10, 10)
    if n_target_train > n_train:
        raise ValueError(f"n_target_train={n_target_train} must not exceed n_train={n_train}.")
    if n_train + n_test == 0:
        raise ValueError("n_train and n_test are both 0: there is no clip to make.")
    root = None if root is None else _check_root(root)
    entropy = random_state
    if not isinstance(entropy, Integral):
        entropy = int(check_random_state(random_state).randint(2**31))

    counts = {
        ("train", "source", "normal"): n_train - n_target_train,
        ("train", "target", "normal"): n_target_train,
    }
    quarters = itertools.product(["test"], DOMAINS, LABELS)
    counts |= {key: (n_test + 3 - i) // 4 for i, key in enumerate(quarters)}
    plan = [
        clip
        for machine in machines
        for section in sections
        for clip in _plan(machine, section, counts, kinds[machine], entropy)
    ]
    plan.sort(key=lambda clip: (clip["machine"], clip["split"], _file_name(clip)))

    paths = [None] * len(plan)
    if root is not None:
        folders = [root / "dev_data" / clip["machine"] / clip["split"] for clip in plan]
        for folder in set(folders):
            folder.mkdir(parents=True)
        paths = [str(folder / _file_name(clip)) for folder, clip in zip(folders, plan)]
    n = round(duration * sr)
    sounds = Parallel(n_jobs=n_jobs, prefer="threads")(
        delayed(_make)(clip, n, sr, snr, severity, entropy, path) for clip, path in zip(plan, paths)
    )
    table = _table(plan)
    if root is not None:
        for machine in machines:
            own = [clip for clip in plan if clip["machine"] == machine]
            _write_tables(root / "dev_data" / machine, own)
        table.insert(0, "path", pd.Series(paths, dtype=object))
        return table
    audio = np.empty(len(plan), dtype=object)
    audio[:] = sounds
    table.insert(0, "audio", audio)
    table.insert(1, "sr", sr)
    return table


def _make(clip, n, sr, snr, severity, entropy, path):
    """Render a clip, and write it where there is a path."""
    y = _render(clip, n, sr, snr, severity, entropy)
    if path is None:
        return y
    return write_audio(path, y, sr, subtype="PCM_16")
