import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sk_asd.datasets import load_clips
from sk_asd.datasets._load import _read_rows

BASE = ["path", "machine", "section", "domain", "split", "label"]


@pytest.fixture
def tree(tmp_path, write_tone):
    """Return a function that writes a dataset: folders of clips, given as relative paths."""

    def write(*names, root="data"):
        for n, name in enumerate(names):
            write_tone(tmp_path / root / name, frequency=200 + 10 * n, n_samples=160)
        return tmp_path / root

    return write


def rows(clips, *columns):
    """Rows of a table as tuples, with None for everything missing."""
    part = clips[list(columns or BASE[1:])].astype(object)
    return list(part.where(part.notna(), None).itertuples(index=False, name=None))


def test_table_has_sorted_absolute_paths_and_typed_columns(tree, monkeypatch):
    root = tree(
        "valve/train/section_00_source_train_normal_0001_pat_01.wav",
        "fan/train/section_00_source_train_normal_0000_m-n_W.flac",
        "valve/train/section_00_source_train_normal_0000_pat_00.wav",
    )
    monkeypatch.chdir(root.parent)
    clips = load_clips("data")
    assert list(clips.columns) == [*BASE, "m-n", "pat"]
    assert clips.path.tolist() == [
        str(root / "fan/train/section_00_source_train_normal_0000_m-n_W.flac"),
        str(root / "valve/train/section_00_source_train_normal_0000_pat_00.wav"),
        str(root / "valve/train/section_00_source_train_normal_0001_pat_01.wav"),
    ]
    assert all(type(path) is str for path in clips.path)
    assert clips["m-n"].tolist() == ["W", None, None]
    np.testing.assert_array_equal(clips["pat"], [np.nan, 0, 1])
    assert clips.index.equals(pd.RangeIndex(3))
    pd.testing.assert_frame_equal(clips, load_clips(str(root)))


def test_2020(tree):
    root = tree(
        "dev_data/fan/train/normal_id_00_00000000.wav",
        "dev_data/fan/test/normal_id_00_00000001.wav",
        "dev_data/fan/test/anomaly_id_02_00000000.wav",
        "eval_data/fan/train/normal_id_01_00000000.wav",
        "eval_data/fan/test/id_05_00000000.wav",
    )
    assert rows(load_clips(root)) == [
        ("fan", "02", None, "test", "anomaly"),
        ("fan", "00", None, "test", "normal"),
        ("fan", "00", None, "train", "normal"),
        ("fan", "05", None, "test", None),
        ("fan", "01", None, "train", "normal"),
    ]


def test_2021(tree):
    root = tree(
        "dev_data/fan/source_test/section_00_source_test_anomaly_0000.wav",
        "dev_data/fan/target_test/section_00_target_test_normal_0000.wav",
        "dev_data/fan/train/section_00_source_train_normal_0000_strength_1_ambient.wav",
        "eval_data/fan/target_test/section_03_target_test_0000.wav",
    )
    clips = load_clips(root)
    assert rows(clips) == [
        ("fan", "00", "source", "test", "anomaly"),
        ("fan", "00", "target", "test", "normal"),
        ("fan", "00", "source", "train", "normal"),
        ("fan", "03", "target", "test", None),
    ]
    assert rows(clips, "strength", "extra")[2] == (1.0, "ambient")


def test_2022(tree):
    root = tree(
        "dev_data/ToyCar/test/section_00_source_test_anomaly_0000_car_A1_spd_28V_mic_1_noise_1.wav",
        "dev_data/ToyCar/train/section_00_target_train_normal_0000_car_B1_spd_31V_mic_1_noise_1.wav",
        "dev_data/valve/train/section_02_source_train_normal_0000_v1pat_04.wav",
        "dev_data/valve/train/section_02_target_train_normal_0001_v1pat_04_v2pat_05.wav",
        "eval_data/valve/test/section_03_0000.wav",
        "eval_data/valve/test/section_04_test_0000.wav",
    )
    clips = load_clips(root)
    assert rows(clips) == [
        ("ToyCar", "00", "source", "test", "anomaly"),
        ("ToyCar", "00", "target", "train", "normal"),
        ("valve", "02", "source", "train", "normal"),
        ("valve", "02", "target", "train", "normal"),
        ("valve", "03", None, "test", None),
        ("valve", "04", None, "test", None),
    ]
    assert clips["car"].tolist() == ["A1", "B1", None, None, None, None]
    np.testing.assert_array_equal(clips["spd"], [28, 31] + 4 * [np.nan])
    np.testing.assert_array_equal(clips["v2pat"], 3 * [np.nan] + [5] + 2 * [np.nan])


def test_2023_and_2024(tree):
    root = tree(
        "dev_data/raw/gearbox/test/section_00_source_test_normal_0001_noAttribute.wav",
        "dev_data/raw/gearbox/train/section_00_source_train_normal_0001_.wav",
        "eval_data/raw/RoboticArm/test/section_00_0001.wav",
        "eval_data/raw/RoboticArm/test_rename/section_00_target_normal_0091_weight35_BckgE.wav",
        "eval_data/raw/RoboticArm/train/section_00_source_train_normal_0000_weight05_BckgA.wav",
    )
    clips = load_clips(root)
    assert rows(clips) == [
        ("gearbox", "00", "source", "test", "normal"),
        ("gearbox", "00", "source", "train", "normal"),
        ("RoboticArm", "00", None, "test", None),
        ("RoboticArm", "00", "target", "test", "normal"),
        ("RoboticArm", "00", "source", "train", "normal"),
    ]
    np.testing.assert_array_equal(clips["weight"], [np.nan] * 3 + [35, 5])
    assert clips["Bckg"].tolist() == [None, None, None, "E", "A"]
    assert "noAttribute" not in clips.columns


def test_2025(tree):
    root = tree(
        "dev_bearing/bearing/supplemental/section_00_machine_source_0000_noAttribute.wav",
        "eval_data/ToyPet/supplemental/section_00_noise_0001_.wav",
        "eval_data/ToyPet/train/section_00_source_train_normal_0001_noAttribute.wav",
    )
    clips = load_clips(root)
    assert rows(clips, *BASE[1:], "kind") == [
        ("bearing", "00", "source", "supplemental", None, "machine"),
        ("ToyPet", "00", None, "supplemental", None, "noise"),
        ("ToyPet", "00", "source", "train", "normal", None),
    ]


def test_2026_two_channels(tree, write_tone):
    root = tree("Sander/test/section_00_0000.wav")
    name = "section_00_source_train_normal_0000_nzl_1_pow_3.wav"
    write_tone(root / "Sander" / "train" / name, n_channels=2)
    clips = load_clips(root)
    assert rows(clips, *BASE[1:], "nzl", "pow")[1] == (
        *("Sander", "00", "source", "train", "normal"),
        *(1.0, 3.0),
    )


def test_any_part_of_a_dataset_can_be_the_root(tree):
    name = "section_00_source_test_anomaly_0000_vel_3.wav"
    root = tree(f"test/dev_data/slider/test/{name}")  # the user's own folder is called test, too
    expected = [("slider", "00", "source", "test", "anomaly")]
    for part in ("", "test", "test/dev_data", "test/dev_data/slider", "test/dev_data/slider/test"):
        assert rows(load_clips(root / part)) == expected, part


def test_clips_in_the_folder_of_a_machine(tree):
    root = tree(
        "fan/normal_id_00_00000000.wav",
        "fan/section_01_source_train_normal_0000.wav",
    )
    expected = [
        ("fan", "00", None, None, "normal"),
        ("fan", "01", "source", "train", "normal"),
    ]
    assert rows(load_clips(root)) == expected
    assert rows(load_clips(root / "fan")) == expected


def test_domain_is_no_substring_of_the_path(tree):
    root = tree("open-source/target/fan/test/section_00_0000.wav", root="source_data")
    assert rows(load_clips(root)) == [("fan", "00", None, "test", None)]


def test_folder_says_the_split_and_name_the_rest(tree):
    root = tree("fan/train/section_00_target_test_normal_0000.wav")
    assert rows(load_clips(root)) == [("fan", "00", "target", "train", "normal")]
    root = tree("fan/source_test/section_00_0000.wav", root="other")
    assert rows(load_clips(root)) == [("fan", "00", "source", "test", None)]


def test_plain_tree(tree):
    root = tree(
        "pump A/test/abnormal/1.wav",
        "pump A/test/normal/day 2/1.wav",
        "pump A/train/3.wav",
        "pump A/train/normal/section_07/1.wav",
        "pump B/Test/x.wav",
        "pump B/id_02/target/test/anomaly/x.wav",
    )
    assert rows(load_clips(root)) == [
        ("pump A", "00", None, "test", "anomaly"),
        ("pump A", "00", None, "test", "normal"),
        ("pump A", "00", None, "train", "normal"),
        ("pump A", "07", None, "train", "normal"),
        ("pump B", "00", None, "test", None),
        ("pump B", "02", "target", "test", "anomaly"),
    ]
    for part in ("pump A", "pump A/test", "pump A/test/abnormal"):
        assert rows(load_clips(root / part))[0] == ("pump A", "00", None, "test", "anomaly")


def test_tree_without_split(tree):
    root = tree("-6_dB/fan/id_04/abnormal/00000000.wav", "-6_dB/fan/id_04/normal/00000000.wav")
    assert rows(load_clips(root)) == [
        ("fan", "04", None, None, "anomaly"),
        ("fan", "04", None, None, "normal"),
    ]


def test_flat_folder(tree):
    root = tree("b.flac", "a.wav", root="my pump")
    clips = load_clips(root)
    assert list(clips.columns) == BASE
    assert rows(clips) == 2 * [("my pump", "00", None, "train", "normal")]


def test_flat_folder_inside_folders_called_test(tree):
    root = tree("test/lab/a.wav")
    assert rows(load_clips(root / "test/lab")) == [("lab", "00", None, "train", "normal")]


def test_layout_can_be_named(tree):
    root = tree("pump/a.wav", "fan/b.wav")
    with pytest.raises(ValueError, match=r"2 recordings fit no known layout \(layout='auto'\)"):
        load_clips(root)
    assert [r[0] for r in rows(load_clips(root, layout="flat"))] == ["fan", "pump"]
    with pytest.raises(ValueError, match="layout='tree'"):
        load_clips(root, layout="tree")
    with pytest.raises(ValueError, match="layout='dcase'"):
        load_clips(root, layout="dcase")
    with pytest.raises(ValueError, match="'layout' parameter of load_clips"):
        load_clips(root, layout="nested")


def test_unknown_names(tree):
    root = tree(
        "fan/train/section_00_source_train_normal_0000.wav",
        "fan/train/copy of section_00_source_train_normal_0000.wav",
    )
    with pytest.raises(ValueError, match=r"1 recordings fit no .*copy of section_00.*Known are"):
        load_clips(root)
    with pytest.warns(UserWarning, match="1 recordings fit no known layout") as record:
        clips = load_clips(root, on_unknown="warn")
    assert len(record) == 1
    assert record[0].filename == __file__
    assert rows(clips) == [
        5 * (None,),
        ("fan", "00", "source", "train", "normal"),
    ]
    assert clips.path[0].endswith("copy of section_00_source_train_normal_0000.wav")


def test_warning_on_many_unknown_names_is_short(tree):
    root = tree("train/section_00_0000.wav", *(f"train/clip {n}.wav" for n in range(12)))
    with pytest.warns(UserWarning, match=r"12 recordings fit .*clip 0\.wav.* and 7 more"):
        load_clips(root, on_unknown="warn")


def test_other_and_hidden_files_are_ignored(tree):
    root = tree(
        "fan/train/section_00_source_train_normal_0000.wav",
        "fan/train/._section_00_source_train_normal_0000.wav",
        ".cache/fan/train/section_00_source_train_normal_0001.wav",
    )
    (root / "fan" / "readme.txt").write_text("hello")
    (root / "fan" / "train" / "section_00_source_train_normal_0002.npy").write_text("")
    assert len(load_clips(root)) == 1


def test_bad_roots(tmp_path, write_tone):
    with pytest.raises(FileNotFoundError, match=r"No such folder: .*absent"):
        load_clips(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match=r"No recordings in folder .*empty"):
        load_clips(tmp_path / "empty")
    with pytest.raises(NotADirectoryError, match=r"found a file: .*clip\.wav"):
        load_clips(write_tone(tmp_path / "clip.wav"))
    with pytest.raises(ValueError, match="'root' parameter"):
        load_clips(None)


def test_attribute_table_fills_in_what_names_lack(tree):
    root = tree(
        "valve/train/section_05_source_train_normal_0000.wav",
        "valve/train/section_05_source_train_normal_0001.wav",
        "valve/train/section_05_source_train_normal_0002_v1pat_04.wav",
        "valve/train/section_05_source_train_normal_0003.wav",
        "valve/test/section_05_0000.wav",
    )
    (root / "valve" / "attributes_05.csv").write_text(
        "file_name,d1p,d1v,d2p,d2v,full\n"
        "valve/train/section_05_source_train_normal_0000.wav,v1pat,05,v2pat,04\n"
        "valve/train/section_05_source_train_normal_0001.wav,v1pat,04\n"  # ragged
        "valve/train/section_05_source_train_normal_0002_v1pat_04.wav,v1pat,07\n"
        "valve/train/section_05_source_train_normal_0003.wav,noAttribute,,\n"
        # As in the evaluator's own table: a wrong key, and the full name right after it.
        "valve/test/section_05_0000.wav,v1pat,05,"
        "valve/test/section_05_source_test_normal_0000_v2pat_06.wav\n"
    )
    clips = load_clips(root)
    assert rows(clips, "split", "v1pat", "v2pat") == [
        ("test", None, 6.0),
        ("train", 5.0, 4.0),
        ("train", 4.0, None),
        ("train", 4.0, None),  # the name has the last word
        ("train", None, None),
    ]
    # The table names the test clip's domain and label in passing: they are not taken from there.
    assert rows(clips, "domain", "label")[0] == (None, None)


def test_attribute_table_of_another_encoding(tree):
    root = tree("valve/train/section_05_source_train_normal_0000.wav")
    (root / "valve" / "attributes_05.csv").write_bytes(
        b"\n\nsection_05_source_train_normal_0000.wav,Stra\xdfe,3\n"
    )
    assert load_clips(root)["Stra\udcdfe"].tolist() == [3]


@pytest.mark.parametrize("name", ["section_00_source_train_normal_0000.wav", "any.wav"])
def test_the_root_of_the_file_system_is_no_name_of_a_machine(name):
    """As in a container where /train is mounted."""
    root = Path("/train")
    ((row,), unknown) = _read_rows([root / name], root, "auto")
    assert (row["machine"], row["split"], unknown) == ("machine", "train", [])
    ((row,), _) = _read_rows([Path("/any.wav")], Path("/"), "flat")
    assert row["machine"] == "machine"


class TestGroundTruth:
    @pytest.fixture
    def data(self, tree):
        return tree(
            "dev_data/fan/test/section_00_source_test_normal_0000.wav",
            "eval_data/fan/test/section_03_0000.wav",
            "eval_data/fan/test/section_03_0001.wav",
            "eval_data/fan/train/section_03_source_train_normal_0000.wav",
        )

    @pytest.fixture
    def evaluator(self, tmp_path):
        """Return a function that writes files of a repository as the evaluators are."""

        def write(**files):
            for name, text in files.items():
                path = tmp_path / "evaluator" / name.replace("__", "/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_suffix(".csv").write_text(text, errors="surrogateescape")
            return tmp_path / "evaluator"

        return write

    def test_labels_and_domains(self, data, evaluator):
        folder = evaluator(
            ground_truth_data__ground_truth_fan_section_03_test=(
                "section_03_0000.wav,1\nsection_03_0001.wav,0\n"
            ),
            ground_truth_domain__ground_truth_fan_section_03_test=(
                "section_03_0000.wav,0\nsection_03_0001.wav,1\n"
            ),
            # belongs to other clips, as for the toys of 2022
            ground_truth_attributes__ground_truth_fan_section_03_test="section_03_0000.wav,x\n",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clips = load_clips(data, ground_truth=folder)
        expected = [
            ("fan", "00", "source", "test", "normal"),
            ("fan", "03", "source", "test", "anomaly"),
            ("fan", "03", "target", "test", "normal"),
            ("fan", "03", "source", "train", "normal"),
        ]
        assert rows(clips) == expected
        parts = [folder / "ground_truth_data", str(folder / "ground_truth_domain")]
        assert rows(load_clips(data, ground_truth=parts)) == expected
        file = parts[0] / "ground_truth_fan_section_03_test.csv"
        assert rows(load_clips(data, ground_truth=file), "domain", "label") == [
            ("source", "normal"),
            (None, "anomaly"),
            (None, "normal"),
            ("source", "normal"),
        ]

    def test_2020_list(self, tree, evaluator):
        root = tree("fan/test/id_05_00000000.wav", "fan/test/id_05_00000001.flac")
        folder = evaluator(
            eval_data_list=(
                "fan\nid_05_00000000.wav,anomaly_id_05_00000007.wav,1\n"
                "id_05_00000001.wav,normal_id_05_00000000.wav,0\npump\n"
                "id_05_00000000.wav,normal_id_05_00000001.wav,0\n"
            )
        )
        clips = load_clips(root, ground_truth=folder / "eval_data_list.csv")
        assert rows(clips, "domain", "label") == [(None, "anomaly"), (None, "normal")]

    def test_2021_domains_have_indices_of_their_own(self, tree, evaluator):
        root = tree(
            "fan/source_test/section_03_source_test_0000.wav",
            "fan/target_test/section_03_target_test_0000.wav",
        )
        folder = evaluator(
            ground_truth_fan_section_03_source_test="section_03_source_test_0000.wav,0\n",
            ground_truth_fan_section_03_target_test="section_03_target_test_0000.wav,1\n",
        )
        clips = load_clips(root, ground_truth=folder)
        assert rows(clips, "domain", "label") == [("source", "normal"), ("target", "anomaly")]

    def test_list_of_later_years_gives_attributes_too(self, tree, evaluator):
        root = tree("RoboticArm/test/section_00_0000.wav", "3DPrinter/test/section_00_0001.wav")
        folder = evaluator(
            eval_data_list_2024=(
                "3DPrinter\nsection_00_0001.wav,section_00_target_test_anomaly_0001_mdl_B_spd_2.wav\n"
                "RoboticArm\nsection_00_0000.wav,section_00_source_normal_0035_weight15_BckgF.wav\n"
            )
        )
        clips = load_clips(root, ground_truth=folder)
        assert rows(clips, *BASE[1:], "mdl", "weight") == [
            ("3DPrinter", "00", "target", "test", "anomaly", "B", None),
            ("RoboticArm", "00", "source", "test", "normal", None, 15.0),
        ]

    def test_list_of_2022_is_not_believed_for_toys(self, tree, evaluator):
        root = tree(
            "ToyCar/test/section_04_0000.wav",
            "fan/test/section_04_0000.wav",
        )
        text = "section_04_0000.wav,section_04_target_test_anomaly_0000_vel_2.wav\n"
        file = (
            evaluator(eval_data_list_2022=f"fan\n{text}ToyCar\n{text}") / "eval_data_list_2022.csv"
        )
        wrong = "wrong for ToyCar and ToyTrain of 2022: 1 of its entries"
        with (
            pytest.warns(UserWarning, match="has no label for 1 test clips") as lacking,
            pytest.warns(UserWarning, match=wrong) as skipped,
        ):
            clips = load_clips(root, ground_truth=file)
        assert {w.filename for w in [*lacking, *skipped]} == {__file__}
        assert rows(clips, "machine", "domain", "label") == [
            ("ToyCar", None, None),
            ("fan", "target", "anomaly"),
        ]

    def test_names_are_not_overruled(self, tree, evaluator):
        root = tree("fan/test/section_03_0000.wav", "fan/test/section_03_anomaly_0001.wav")
        folder = evaluator(
            ground_truth_fan_section_03_test="section_03_0000.wav,0\nsection_03_0001.wav,0\n"
        )
        clips = load_clips(root, ground_truth=folder)
        assert clips.label.tolist() == ["normal", "anomaly"]

    def test_clips_that_are_not_listed(self, data, evaluator):
        folder = evaluator(ground_truth_fan_section_03_test="section_03_0001.wav,0\n")
        with pytest.warns(UserWarning, match=r"no label for 1 test clips, such as .*03_0000\.wav"):
            clips = load_clips(data, ground_truth=folder)
        assert clips.label.tolist() == ["normal", None, "normal", "normal"]

    def test_ground_truth_of_something_else(self, data, evaluator):
        folder = evaluator(ground_truth_pump_section_03_test="section_03_0001.wav,0\n")
        with pytest.raises(
            ValueError, match=r"lists none of the test clips.*\['pump'\].*\['fan'\]"
        ):
            load_clips(data, ground_truth=folder)

    def test_contradiction(self, data, evaluator):
        folder = evaluator(
            a__ground_truth_fan_section_03_test="section_03_0001.wav,0\n",
            b__ground_truth_fan_section_03_test="section_03_0001.wav,1\n",
        )
        with pytest.raises(ValueError, match=r"disagree on the label of \('fan', '03', None, 1\)"):
            load_clips(data, ground_truth=folder)

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("section_03_0000.wav,1\nsection_03_0001.wav,yes\n", r"line 2: expected .*'yes'"),
            ("clip.wav,1\n", "line 1: expected <clip name>"),
            ("section_03_0000.wav,1,0\n", "line 1: expected <clip name>"),
            ("", "Found no entry"),
            pytest.param(f"{'x' * 200_000},1\n", r"section_03_test\.csv is no csv file", id="long"),
            ("clip\udcff.wav,1\n", r"section_03_test\.csv, line 1: expected <clip name>"),
        ],
    )
    def test_faulty_file(self, data, evaluator, text, match):
        folder = evaluator(ground_truth_fan_section_03_test=text)
        with pytest.raises(ValueError, match=match):
            load_clips(data, ground_truth=folder)

    def test_faulty_list(self, data, evaluator):
        folder = evaluator(eval_data_list="fan\nsection_03_0000.wav,something.wav\n")
        with pytest.raises(ValueError, match=r"eval_data_list\.csv, line 2: expected .*full name"):
            load_clips(data, ground_truth=folder)

    def test_files_of_other_kinds(self, data, evaluator, tmp_path):
        folder = evaluator(scores="section_03_0000.wav,1\n")
        with pytest.raises(ValueError, match=r"scores\.csv is no ground truth"):
            load_clips(data, ground_truth=folder / "scores.csv")
        with pytest.raises(ValueError, match=r"No ground truth in folder .*evaluator"):
            load_clips(data, ground_truth=folder)
        with pytest.raises(FileNotFoundError, match=r"No such file or folder .*absent"):
            load_clips(data, ground_truth=tmp_path / "absent")


class TestRealRecordings:
    def test_counts_and_labels_as_in_the_manifest(self, real_data):
        manifest = pd.read_csv(real_data / "MANIFEST.csv", dtype=str)
        clips = pd.concat(
            [load_clips(real_data / name) for name in ("dcase_real", "mimii_m6db")],
            ignore_index=True,
        )
        clips["path"] = [str(p)[len(str(real_data)) + 1 :] for p in clips["path"]]
        pd.testing.assert_frame_equal(
            clips[BASE].sort_values("path", ignore_index=True),
            manifest[BASE].sort_values("path", ignore_index=True),
            check_dtype=False,
        )

    def test_sections_of_the_dcase_recordings(self, real_data):
        clips = load_clips(real_data / "dcase_real")
        counts = clips.groupby(["machine", "section", "split", "label"]).size()
        assert counts.to_dict() == {
            ("slider", "00", "train", "normal"): 75,
            ("slider", "00", "test", "normal"): 100,
            ("slider", "00", "test", "anomaly"): 80,
            ("slider", "02", "train", "normal"): 60,
            ("slider", "02", "test", "normal"): 40,
            ("slider", "02", "test", "anomaly"): 80,
            ("valve", "00", "train", "normal"): 40,
            ("valve", "00", "test", "normal"): 60,
            ("valve", "00", "test", "anomaly"): 100,
        }
        valve = clips[clips.machine == "valve"]
        assert set(zip(valve["domain"], valve["pat"])) == {
            ("source", 0),
            ("source", 1),
            ("target", 2),
            ("target", 3),
        }

    def test_one_split_folder_equals_that_part_of_the_whole(self, real_data):
        whole = load_clips(real_data / "dcase_real")
        part = load_clips(real_data / "dcase_real" / "dev_data" / "valve" / "test")
        expected = whole[(whole.machine == "valve") & (whole.split == "test")]
        pd.testing.assert_frame_equal(
            part, expected[part.columns].reset_index(drop=True), check_dtype=False
        )

    def test_folder_of_general_audio_is_flat(self, real_data):
        clips = load_clips(real_data / "general_audio")
        assert len(clips) == 300
        assert set(rows(clips)) == {("general_audio", "00", None, "train", "normal")}

    def test_everything_at_once_names_what_does_not_fit(self, real_data):
        with pytest.raises(ValueError, match=r"812 recordings .*compressor"):
            load_clips(real_data)
