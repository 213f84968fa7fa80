"""The report's figures against the report's own arithmetic."""

from statistics import harmonic_mean

import pytest

from sk_asd.systems import REPORT_RESULTS, _tables, report_results

SYSTEMS = {
    (number, system): results
    for number, table in REPORT_RESULTS.items()
    for system, results in table.get("hmean", {}).items()
}
PRINTED = {key: row for key, row in SYSTEMS.items() if "total" in row}
# Totals that the report leaves out.
MISSING = {"SC": 83.02, "SC-wav2vec": 63.29, "WSP-NFCDEE": 69.25, "IMDN": 68.27}


def total(row):
    return harmonic_mean([row[machine] for machine in _tables.MACHINES])


def test_all_tables_are_there():
    assert list(REPORT_RESULTS) == list(range(1, 11))
    assert len(SYSTEMS) == 12
    assert all(
        set(_tables.MACHINES) <= set(row) <= {*_tables.MACHINES, "total"}
        for row in SYSTEMS.values()
    )
    assert all(30 < value < 100 for row in SYSTEMS.values() for value in row.values())


@pytest.mark.parametrize("key", PRINTED, ids=lambda key: key[1])
def test_printed_totals_are_harmonic_means_of_their_rows(key):
    assert PRINTED[key]["total"] == round(total(PRINTED[key]), 2)


def test_totals_that_are_not_printed():
    lacking = {system: row for (_, system), row in SYSTEMS.items() if "total" not in row}
    assert {system: round(total(row), 2) for system, row in lacking.items()} == MISSING


def test_statements_in_the_text():
    best = PRINTED[10, "submission-1"]["total"]
    assert (best, PRINTED[1, "baseline-AE"]["total"]) == (86.81, 52.61)
    # "higher 30.80% than the best baseline": percentage points.
    assert best - PRINTED[2, "baseline-MobileNetV2"]["total"] == pytest.approx(30.80)


def test_settings_are_those_that_the_builders_use():
    assert REPORT_RESULTS[3]["parameters"] is _tables.SC
    assert REPORT_RESULTS[8]["parameters"] is _tables.IMDN
    # The misprint: Table 7 repeats Table 8, with networks that a normalizing flow does not have.
    assert REPORT_RESULTS[7]["parameters"] == REPORT_RESULTS[8]["parameters"]
    assert {row["detector"] for row in REPORT_RESULTS[5]["parameters"].values()} == {
        *("mahalanobis", "knn", "lof", "cosine")
    }


def test_layers_of_ignn_fit_together():
    sizes = [pair for _, pair in REPORT_RESULTS[6]["layers"]]
    assert [out for _, out in sizes[:-2]] == [into for into, _ in sizes[1:-1]]
    assert sizes[-1] == ("(nF-1)×128", "2×nC×nMels")


def test_tidy_table():
    table = report_results()
    assert list(table) == ["table", "system", "machine", "metric", "value"]
    assert len(table) == 12 * 7 + len(PRINTED)
    assert not table.duplicated(["table", "system", "machine"]).any()
    assert table["value"].dtype == float
    assert set(table["metric"]) == {"hmean"}
    pivot = table.pivot(index="system", columns="machine", values="value")
    assert pivot.loc["AEGAN-AD", "ToyCar"] == 79.16
    assert pivot.loc["submission-4", "total"] == 84.18


def test_tidy_table_with_settings():
    table = report_results(parameters=True)
    settings = table[table["metric"] != "hmean"]
    # SC: four each and one number of mel bins; SC-wav2vec: one each; Tables 7 and 8: four each.
    assert settings.groupby("table").size().to_dict() == {3: 29, 5: 7, 7: 28, 8: 28}
    valve = settings[(settings["table"] == 8) & (settings["machine"] == "valve")]
    assert dict(zip(valve["metric"], valve["value"])) == {
        "n_mels": 64,
        "n_fft": 1024,
        "n_frames": 30,
        "network": "ignn",
    }
