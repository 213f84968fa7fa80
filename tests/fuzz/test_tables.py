"""Csv files with bytes that do not belong there: they are read, or refused by name."""

import pytest

from sk_asd.datasets import load_clips
from sk_asd.metrics import read_submission
from sk_asd.metrics._score_file import read_scores

N_MUTATIONS, N_NOISE = 200, 20  # of each kind of file
N_CLIPS = 4
ODD = [b"\xff", b"\xff\xfe", b"\xe9", b"\0", b'"', b"\r", b"\r\n", b"\n\n", b",", b",,,,", b" "]
ODD += [b"\xef\xbb\xbf", b"nan", b"inf", b"1e400", b"9" * 5000, b"x" * 140_000]
LABELS = ["normal", "anomaly"]
NAMES = [f"section_00_{i:04d}.wav" for i in range(N_CLIPS)]
FULL = [f"section_00_source_test_{LABELS[i % 2]}_{i:04d}_v_1.wav" for i in range(N_CLIPS)]
ROWS = {
    "attributes_00.csv": ["file_name,d1p,d1v", *(f"fan/test/{name},vel,1" for name in NAMES)],
    "ground_truth_fan_section_00_test.csv": [f"{name},1" for name in NAMES],
    "eval_data_list_2023.csv": ["fan", *map(",".join, zip(NAMES, FULL))],
    "anomaly_score_fan_section_00_test.csv": [f"{name},0.5" for name in NAMES],
    "scores.csv": ["path,score,threshold", *(f"fan/test/{name},0.5,0.5" for name in NAMES)],
}


@pytest.fixture(params=ROWS)
def table(request, tmp_path):
    """Where a file lies, and a function that reads it."""
    root, kind = tmp_path / "data", request.param
    test = root / "fan" / "test"
    test.mkdir(parents=True)
    for name in NAMES:
        (test / name).touch()
    clips = load_clips(root)
    path = (test.parent if kind == "attributes_00.csv" else tmp_path) / kind
    readers = {
        "attributes_00.csv": lambda: load_clips(root),
        "anomaly_score_fan_section_00_test.csv": lambda: read_submission(tmp_path, clips),
        "scores.csv": lambda: read_scores(str(path)),
    }
    return path, readers.get(kind, lambda: load_clips(root, ground_truth=path))


def mutated(content, rng):
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place, odd = int(rng.integers(len(content) + 1)), ODD[rng.integers(len(ODD))]
        end = place + (len(odd[:8]) if rng.random() < 0.4 else 0)
        content[place:end] = odd
    return bytes(content)


@pytest.mark.filterwarnings("ignore:The ground truth has no label")
def test_mutated_tables(table, rng):
    path, read = table
    whole = "".join(f"{row}\n" for row in ROWS[path.name]).encode()
    contents = [mutated(whole, rng) for _ in range(N_MUTATIONS)]
    contents += [rng.bytes(300) for _ in range(N_NOISE)]
    path.write_bytes(whole)
    assert len(read()) == N_CLIPS
    messages = []
    for content in contents:
        path.write_bytes(content)
        try:
            read()
        except (OSError, ValueError) as error:
            messages.append(str(error))
    # What names other machines than there are has been read.
    known = (path.name, "The ground truth lists none of the test clips")
    assert [told for told in messages if not any(part in told for part in known)] == []
