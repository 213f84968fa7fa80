"""File names as the organisers wrote them from 2020 to 2025, any other text, and whole folders."""

import string
import tempfile
import unicodedata
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sk_asd.datasets import load_clips
from sk_asd.datasets._load import _FOLDERS, _SECTION_FOLDER
from sk_asd.datasets._names import _TAKEN, ClipName, column_name, parse_name, typed_column

# Words that the grammars have a meaning for are no keys, nor are those glued to a number.
KEYS = st.from_regex(r"[a-z][a-z0-9]{0,4}-?[a-z]", fullmatch=True).filter(
    lambda word: word not in ("no", *_TAKEN)
)
VALUES = st.one_of(
    st.integers(0, 10**6).map(str),
    st.decimals(0, 100, places=2).map(str),
    st.from_regex(r"[A-Z]{1,3}", fullmatch=True),
    st.from_regex(r"[0-9]{1,4}[A-Z]", fullmatch=True),
)
# Pairs whose key is glued to the value, as in 2024.
GLUED = st.tuples(st.from_regex(r"[a-z]{2,8}", fullmatch=True), st.integers(0, 9999).map(str))
DOMAINS = st.sampled_from(["source", "target"])
LABELS = st.sampled_from(["normal", "anomaly"])
SECTIONS = st.integers(0, 99)
SUFFIXES = st.sampled_from([".wav", ".flac", ".WAV", ""])


def _clip(section, index, domain=None, split=None, label=None, attributes=None):
    return ClipName(f"{section:02d}", domain, split, label, index, attributes or {})


@st.composite
def names_2020(draw):
    section, index = draw(SECTIONS), draw(st.integers(0, 10**8 - 1))
    label = draw(st.one_of(st.none(), LABELS))
    name = f"id_{section:02d}_{index:08d}"
    return (f"{label}_{name}" if label else name), _clip(section, index, label=label)


@st.composite
def names_since_2021(draw):
    """Train and test clips of 2021 to 2025, those of the evaluation, supplemental ones."""
    section, index = draw(SECTIONS), draw(st.integers(0, 9999))
    kind = draw(st.sampled_from(["all", "2021", "bare", "test", "no split", "supplemental"]))
    said = {"domain": draw(DOMAINS), "split": draw(st.sampled_from(["train", "test"]))}
    said["label"] = draw(LABELS)
    extra, words = {}, []
    if kind == "2021":
        said |= {"split": "test", "label": None}
    elif kind == "bare":
        said = {}
    elif kind == "test":
        said = {"split": "test"}
    elif kind == "no split":
        said["split"] = None
    elif kind == "supplemental":
        extra = {"kind": draw(st.sampled_from(["machine", "noise"]))}
        said = {"domain": draw(DOMAINS)}
        words.append(extra["kind"])
    words += [word for word in said.values() if word]
    style = draw(st.sampled_from(["pairs", "glued", "noAttribute", "_", "none"]))
    if style == "pairs":
        attributes = draw(st.dictionaries(KEYS, VALUES, max_size=4))
        tail = [part for pair in attributes.items() for part in pair]
    elif style == "glued":
        attributes = dict(draw(st.lists(GLUED, min_size=1, max_size=3, unique_by=lambda p: p[0])))
        tail = [key + value for key, value in attributes.items()]
    else:
        attributes, tail = {}, {"noAttribute": ["noAttribute"], "_": [""]}.get(style, [])
    named = {column_name(key): value for key, value in attributes.items()}
    name = "_".join(["section", f"{section:02d}", *words, f"{index:04d}", *tail])
    return name, _clip(section, index, **said, attributes=extra | named)


NAMES = st.one_of(names_2020(), names_since_2021())


@settings(max_examples=500, deadline=None)
@given(NAMES, SUFFIXES)
def test_every_name_of_the_challenge_is_read(pair, suffix):
    name, expected = pair
    assert parse_name(name + suffix) == expected
    assert parse_name(f"/data/section_99_test_0000/{name}{suffix}") == expected


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(
        st.text(),
        st.lists(
            st.sampled_from(["section", "id", "00", "٣", "²", "normal", "test", "", "1e9", "."]),
        ).map("_".join),
    )
)
@example("section_" + "9" * 5000 + "_0000")
@example("section_00_" + "9" * 5000)
@example("normal_id_00_" + "9" * 5000)
def test_any_other_text_is_read_or_is_none(text):
    clip = parse_name(text)
    if clip is not None:
        assert clip.section == f"{int(clip.section):02d}"
        assert clip.section.isascii()
        assert clip.index >= 0
        assert clip.domain in (None, "source", "target")
        assert clip.split in (None, "train", "test", "supplemental")
        assert clip.label in (None, "normal", "anomaly")
        assert all(isinstance(part, str) for pair in clip.attributes.items() for part in pair)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.none(),
            st.text(max_size=5),
            st.from_regex(r"[+-]?[0-9]{1,30}(\.[0-9]{1,4})?[A-Za-z%]{0,2}", fullmatch=True),
        ),
        min_size=1,
        max_size=6,
    )
)
@example(["99999999999999999999"])
@example(["9" * 400, None])
def test_a_column_keeps_every_value(values):
    column = typed_column(values)
    assert len(column) == len(values)
    if column.dtype == object:
        assert column.tolist() == values
    else:
        missing = [value is None for value in values]
        assert column.isna().tolist() == missing
        for number, value in zip(column, values):
            if value is not None:
                text = value.rstrip("%" + string.ascii_letters)
                assert type(number)(text) == number


# Composed, as names are read: some characters, such as U+F900, are another one in that form.
MACHINES = (
    st.text(
        st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]),
        min_size=1,
        max_size=12,
    )
    .map(lambda name: unicodedata.normalize("NFC", name))
    .filter(lambda name: not name.startswith(".") and meaningless(name))
)


def meaningless(name):
    """Whether a folder of that name is no split, label, domain or section."""
    return name.lower() not in _FOLDERS and not _SECTION_FOLDER.fullmatch(name.lower())


@st.composite
def folders(draw):
    """Names in the folders of a dataset, and what is to be read of them."""
    rows = {}
    for machine in draw(st.lists(MACHINES, min_size=1, max_size=3, unique=True)):
        for name, clip in draw(st.lists(names_since_2021(), min_size=1, max_size=4)):
            split = draw(st.sampled_from(["train", "test", "supplemental", None]))
            # The folder has the last word on the split.
            place = Path(machine, split, f"{name}.wav") if split else Path(machine, f"{name}.wav")
            rows[place.as_posix()] = machine, clip._replace(split=split or clip.split)
    return rows


@settings(max_examples=60, deadline=None)
@given(folders())
def test_a_dataset_is_read_as_it_was_written(rows):
    with tempfile.TemporaryDirectory() as root:
        for place in rows:
            file = Path(root, place)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        clips = load_clips(root)
        places = [Path(path).relative_to(root).as_posix() for path in clips["path"]]
    assert places == sorted(rows, key=lambda place: Path(place).parts)
    for found, place in zip(clips.to_dict("records"), places):
        machine, clip = rows[place]
        label = clip.label or ("normal" if clip.split == "train" else None)
        expected = [machine, clip.section, clip.domain, clip.split, label]
        assert [found[c] for c in ("machine", "section", "domain", "split", "label")] == expected
        for key, value in clip.attributes.items():
            # Numbers where all clips have one, without their common unit.
            text = str(found[key])
            assert text == value or float(found[key]) == float(value.rstrip(string.ascii_letters))


@settings(max_examples=60, deadline=None)
@given(st.lists(MACHINES, min_size=1, max_size=4, unique=True), st.data())
def test_a_tree_of_any_names_is_read_as_it_was_written(machines, data):
    stems = st.from_regex(r"[A-Za-z][A-Za-z0-9 ]{0,8}", fullmatch=True)
    rows = {}
    for machine in machines:
        split = data.draw(st.sampled_from(["train", "test"]))
        label = data.draw(LABELS)
        rows[f"{machine}/{split}/{label}/{data.draw(stems)}.flac"] = [machine, split, label]
    with tempfile.TemporaryDirectory() as root:
        for place in rows:
            Path(root, place).parent.mkdir(parents=True)
            Path(root, place).touch()
        clips = load_clips(root)
        places = [Path(path).relative_to(root).as_posix() for path in clips["path"]]
    found = clips[["machine", "split", "label"]].to_numpy().tolist()
    assert dict(zip(places, found)) == rows
    assert (clips["section"] == "00").all()
