import numpy as np
import pytest

from sk_asd.datasets._names import parse_attributes, parse_name, stem_of, typed_column

# name: (section, domain, split, label, index, attributes)
NAMES = {
    # 2020
    "normal_id_01_00000000.wav": ("01", None, None, "normal", 0, {}),
    "anomaly_id_04_00000263.wav": ("04", None, None, "anomaly", 263, {}),
    "id_05_00000012.wav": ("05", None, None, None, 12, {}),
    # 2021
    "section_00_source_train_normal_0025_strength_1_ambient.wav": (
        *("00", "source", "train", "normal", 25),
        {"strength": "1", "extra": "ambient"},
    ),
    "section_00_source_train_normal_0000_0_g_25_mm_2000_mV_none.wav": (
        *("00", "source", "train", "normal", 0),
        {"g": "0", "mm": "25", "mV": "2000", "extra": "none"},
    ),
    "section_00_source_train_normal_0000_pattern_00_no_pump.wav": (
        *("00", "source", "train", "normal", 0),
        {"pattern": "00", "extra": "no_pump"},
    ),
    "section_00_source_train_normal_0000_A1Spd28VMic1.wav": (
        *("00", "source", "train", "normal", 0),
        {"extra": "A1Spd28VMic1"},
    ),
    "section_02_target_test_anomaly_0099.wav": ("02", "target", "test", "anomaly", 99, {}),
    "section_03_source_test_0199.wav": ("03", "source", "test", None, 199, {}),
    # 2022
    "section_02_target_train_normal_0009_v1pat_04_v2pat_05.wav": (
        *("02", "target", "train", "normal", 9),
        {"v1pat": "04", "v2pat": "05"},
    ),
    "section_05_source_test_normal_0001_v2pat_05.wav": (
        *("05", "source", "test", "normal", 1),
        {"v2pat": "05"},
    ),
    "section_01_source_train_normal_0003_f-n_A_ac_0.03.wav": (
        *("01", "source", "train", "normal", 3),
        {"f-n": "A", "ac": "0.03"},
    ),
    "section_03_0000.wav": ("03", None, None, None, 0, {}),
    "section_03_test_0000.wav": ("03", None, "test", None, 0, {}),
    "section_00_source_test_anomaly_0000_car_A1_spd_28V_mic_1_noise_1.wav": (
        *("00", "source", "test", "anomaly", 0),
        {"car": "A1", "spd": "28V", "mic": "1", "noise": "1"},
    ),
    # 2023, 2024
    "section_00_source_train_normal_0989_.wav": ("00", "source", "train", "normal", 989, {}),
    "section_00_target_test_normal_0200_noAttribute.wav": (
        *("00", "target", "test", "normal", 200),
        {},
    ),
    "section_00_source_normal_0035_weight15_BckgF": (
        *("00", "source", None, "normal", 35),
        {"weight": "15", "Bckg": "F"},
    ),
    "section_00_target_test_anomaly_0065_spd1300_BckgB.wav": (
        *("00", "target", "test", "anomaly", 65),
        {"spd": "1300", "Bckg": "B"},
    ),
    "section_00_source_test_anomaly_0001_damage1.wav": (
        *("00", "source", "test", "anomaly", 1),
        {"damage": "1"},
    ),
    # 2025
    "section_00_machine_source_0000_noAttribute.wav": (
        *("00", "source", None, None, 0),
        {"kind": "machine"},
    ),
    "section_00_machine_0100_.wav": ("00", None, None, None, 100, {"kind": "machine"}),
    "section_00_noise_supplemental_normal_0000.wav": (
        *("00", None, "supplemental", "normal", 0),
        {"kind": "noise"},
    ),
    # any suffix of a sound file, and none
    "dev/slider/train/section_00_source_train_normal_0001_id_00.flac": (
        *("00", "source", "train", "normal", 1),
        {"id": "00"},
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_all_years(name):
    assert tuple(parse_name(name)) == NAMES[name]


@pytest.mark.parametrize(
    "name",
    [
        "recording.wav",
        "section.wav",
        "section_00.wav",
        "section_xx_0000.wav",
        "section_00_source_train_normal.wav",  # no running number
        "section_00_sauce_train_normal_0000.wav",
        "section_00_source_target_0000.wav",  # two domains
        "section_00_source_source_0000.wav",
        "my_section_00_source_train_normal_0000.wav",
        "normal_id_01.wav",
        "weird_id_01_00000000.wav",
        "1-100032-A-0.flac",
        "00000000.wav",
    ],
)
def test_other_names(name):
    assert parse_name(name) is None


def test_words_come_from_tokens_not_from_substrings():
    clip = parse_name("source/section_00_target_test_anomaly_0000_place_resource-normal.wav")
    assert (clip.domain, clip.label) == ("target", "anomaly")
    assert clip.attributes == {"place": "resource-normal"}


def test_keys_that_are_columns_of_a_clip_table_are_renamed():
    attributes = parse_attributes(["machine", "2", "frame", "steel", "vel", "3"])
    assert attributes == {"attr_machine": "2", "attr_frame": "steel", "vel": "3"}


def test_stem_keeps_decimal_values():
    assert stem_of("a/b/section_00_0000_ac_0.03.WAV") == "section_00_0000_ac_0.03"
    assert stem_of("section_00_0000_ac_0.03") == "section_00_0000_ac_0.03"
    assert stem_of("a\\b\\id_00_0.flac ") == "id_00_0"


@pytest.mark.parametrize(
    ("values", "expected", "dtype"),
    [
        (["00", "03", "11"], [0, 3, 11], np.int64),
        (["28V", "31V"], [28, 31], np.int64),
        (["0.8", "1", "-2"], [0.8, 1.0, -2.0], np.float64),
        (["6mm", None, "10mm"], [6.0, np.nan, 10.0], np.float64),
        (["28V", "31"], ["28V", "31"], object),
        (["28V", "3A"], ["28V", "3A"], object),
        (["A1", "B2", None], ["A1", "B2", None], object),
        (["1", "x"], ["1", "x"], object),
        (["nan", "inf"], ["nan", "inf"], object),
        ([None, None], [None, None], object),
    ],
)
def test_typed_column(values, expected, dtype):
    column = typed_column(values)
    assert column.dtype == dtype
    np.testing.assert_array_equal(column.to_numpy(), np.array(expected, dtype=dtype))
