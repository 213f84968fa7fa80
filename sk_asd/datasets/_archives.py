"""The archives of DCASE Challenge Task 2 on Zenodo, as data.

Records and file names are those of the organisers' download lists (`nttcslab/dcase2023_task2_
baseline_ae`, ``datasets/download_path_*.yaml``). Checksums of 2020 and 2023 are those that soundata
pins; for the other years none is published elsewhere, and the record itself is asked.
"""

from numbers import Integral
from typing import NamedTuple

SUBSETS = {
    "dev": "development data: training and labelled test clips",
    "train": "additional training data: normal clips of the sections or machines of the evaluation",
    "eval": "evaluation data: test clips without labels",
}

# Of each year: machines of the development data, machines of the other two where they differ, and
# record and file name of each subset.
_SAME = None
_YEARS = {
    2020: (
        "ToyCar ToyConveyor fan pump slider valve",
        _SAME,
        {
            "dev": (3678171, "dev_data_{}.zip"),
            "train": (3727685, "eval_data_train_{}.zip"),
            "eval": (3841772, "eval_data_test_{}.zip"),
        },
    ),
    2021: (
        "ToyCar ToyTrain fan gearbox pump slider valve",
        _SAME,
        {
            "dev": (4562016, "dev_data_{}.zip"),
            "train": (4660992, "eval_data_{}_train.zip"),
            "eval": (4884786, "eval_data_{}_test.zip"),
        },
    ),
    2022: (
        "ToyCar ToyTrain bearing fan gearbox slider valve",
        _SAME,
        {
            "dev": (6355122, "dev_{}.zip"),
            "train": (6462969, "eval_data_{}_train.zip"),
            "eval": (6586456, "eval_data_{}_test.zip"),
        },
    ),
    2023: (
        "ToyCar ToyTrain bearing fan gearbox slider valve",
        "ToyDrone ToyNscale ToyTank Vacuum bandsaw grinder shaker",
        {
            "dev": (7882613, "dev_{}.zip"),
            "train": (7830345, "eval_data_{}_train.zip"),
            "eval": (7860847, "eval_data_{}_test.zip"),
        },
    ),
    2024: (
        "ToyCar ToyTrain bearing fan gearbox slider valve",
        "3DPrinter AirCompressor BrushlessMotor HairDryer HoveringDrone RoboticArm Scanner "
        "ToothBrush ToyCircuit",
        {
            "dev": (10902294, "dev_{}.zip"),
            "train": (11259435, "eval_data_{}_train.zip"),
            "eval": (11363076, "eval_data_{}_test.zip"),
        },
    ),
    2025: (
        "ToyCar ToyTrain bearing fan gearbox slider valve",
        "AutoTrash BandSealer CoffeeGrinder HomeCamera Polisher ScrewFeeder ToyPet ToyRCCar",
        {
            "dev": (15097779, "dev_{}.zip"),
            "train": (15392814, "eval_data_{}_train.zip"),
            "eval": (15519362, "eval_data_{}_test.zip"),
        },
    ),
}
# Archives that were replaced by a second release.
_RENAMED = {
    (11259435, "3DPrinter"): "eval_data_3DPrinter_train_r2.zip",
    (11259435, "RoboticArm"): "eval_data_RoboticArm_train_r2.zip",
}
# Licences that stand where the record cannot be asked.
LICENCES = dict.fromkeys((3678171, 3727685, 3841772), "CC BY-NC-SA 4.0")

_MD5 = {
    3678171: {
        "ToyCar": "4dec75ca8d9f666aa9e4c1894a740501",
        "ToyConveyor": "03b6aa1bfd09a39d53af0ba39f71fa91",
        "fan": "649bdfc06263ae7a838963f43b6641e6",
        "pump": "90e7091ef722b7238a7f1009365779cd",
        "slider": "da24a757719f0d94d5aa2d646bbfdc86",
        "valve": "34d2672f55bb041589ef79c10dc89934",
    },
    3727685: {
        "ToyCar": "a5d4ccd498af70b04dd74b644b820006",
        "ToyConveyor": "0e808ac0b761e9fb13d5e0c65caff00d",
        "fan": "567798854130c8019df8b664c095ed1e",
        "pump": "4e33ae9c0db5cc88437675f5e317caee",
        "slider": "f84f186f4295fc23754abcdd1b0580a7",
        "valve": "057cdd560caffb8305449541afd28c6d",
    },
    3841772: {
        "ToyCar": "bea2bdd612f616be8f2b8eb087b32c7c",
        "ToyConveyor": "ccfcc9847c7d3404d7ee9d6d9e0b2ba2",
        "fan": "1eb9356a768cadfd0f2e59a5c57e578b",
        "pump": "23a8f8f924be218c69df67fe07360348",
        "slider": "0193c769073840332ce3aad84b1ccaa2",
        "valve": "f69c551d2088691050d20cccca9d631c",
    },
    7882613: {
        "ToyCar": "4e3bf15f4101ed4ed4f1fecde2e2b2a3",
        "ToyTrain": "6b02a6c65eebb3b8b1ae59a6b25bb897",
        "bearing": "8a813bc8d8f156b5395bfccdfac7673c",
        "fan": "9348591e96fb0ad499a1e33b082562fc",
        "gearbox": "b6e55f6a31faa0fc8569ec0afdd53ccf",
        "slider": "b3f8dee36b4718c36d659a4fd1c4afe0",
        "valve": "b2051a2022eadb53cd97581120811cae",
    },
    7830345: {
        "ToyDrone": "7fea367d1384a1521ae24f72203238de",
        "ToyNscale": "9332822f3e47afd984c01f2ecb5ca3af",
        "ToyTank": "b1fd3ab7de7561290df2d477de1c9d33",
        "Vacuum": "1c8de33d9a8c7850a1f7aaddb97d87be",
        "bandsaw": "9274dfe63de028743823f1123f8b4b47",
        "grinder": "17569c1f9df23621a0dbabc430684a35",
        "shaker": "35f821b5645b731fb5a1750e33b95fc3",
    },
    7860847: {
        "ToyDrone": "fdae7b8d1f4cadb2bea88bc93e2367db",
        "ToyNscale": "62f5f5043d8fb3a305b1c2e1025872de",
        "ToyTank": "f5639bf58c47169c622751f19c6fc321",
        "Vacuum": "a32524fd8c45b574a560685b38acc4e1",
        "bandsaw": "2a8e8f39f6584ab366a8f4da52d4d7a6",
        "grinder": "631b3e1608b6077772829a6e68c82c77",
        "shaker": "ba98c98caa96051ec80e24e44b8fca56",
    },
}


class Archive(NamedTuple):
    """One archive.

    Attributes
    ----------
    year : int
        Year of the challenge.
    subset : {"dev", "train", "eval"}
        Part of the data.
    machine : str
        The machine.
    record : int
        Number of the record on Zenodo.
    name : str
        File name in the record.
    md5 : str or None
        Checksum, where it is known.
    """

    year: int
    subset: str
    machine: str
    record: int
    name: str
    md5: str | None

    @property
    def folder(self):
        """Folder of the machine within that of the year, as the challenge lays it out."""
        return f"{'dev_data' if self.subset == 'dev' else 'eval_data'}/{self.machine}"

    @property
    def test_folders(self):
        """Folders of test clips in the folder of the machine."""
        return ("source_test", "target_test") if self.year == 2021 else ("test",)

    @property
    def splits(self):
        """Folders in the folder of the machine that the archive must bring."""
        train = {"dev": ("train",), "train": ("train",), "eval": ()}[self.subset]
        return train + (() if self.subset == "train" else self.test_folders)


def years():
    """Years that have archives, in order."""
    return list(_YEARS)


def machines_of(year, subset):
    """Machines of a subset, in order.

    Raises
    ------
    ValueError
        If there is nothing of that year.
    """
    if not isinstance(year, Integral) or year not in _YEARS:
        raise ValueError(
            f"No archives of DCASE Task 2 of year {year!r}; there are those of "
            f"{', '.join(map(str, _YEARS))}."
        )
    dev, other, _ = _YEARS[year]
    return (dev if subset == "dev" or other is _SAME else other).split()


def find_archives(year, machine, subset):
    """Archives of one or more machines.

    Parameters
    ----------
    year : int
        Year of the challenge.
    machine : str or sequence of str
        Machines; ``"all"`` for all of the subset.
    subset : {"dev", "train", "eval", "all"}
        Part of the data; ``"all"`` for those that there are of the machine.

    Returns
    -------
    list of Archive
        At least one, without repetition.

    Raises
    ------
    ValueError
        If the year, machine or subset does not exist; the message says what does.
    """
    known = {name: machines_of(year, name) for name in SUBSETS}
    if subset != "all" and subset not in known:
        raise ValueError(f"subset must be {', '.join(SUBSETS)} or all, got {subset!r}.")
    subsets = list(SUBSETS) if subset == "all" else [subset]
    wanted = [machine] if isinstance(machine, str) else list(machine)
    if not wanted:
        raise ValueError("machine is empty; give a name, several, or 'all'.")
    found = {}
    for name in wanted:
        pairs = [(s, m) for s in subsets for m in known[s] if name in (m, "all")]
        if not pairs:
            there = "; ".join(f"{s}: {', '.join(machines)}" for s, machines in known.items())
            raise ValueError(
                f"No archive of machine {name!r}, subset {subset!r}, in DCASE {year} Task 2. "
                f"There are {there}."
            )
        found |= {pair: _archive(year, *pair) for pair in pairs}
    return list(found.values())


def _archive(year, subset, machine):
    record, pattern = _YEARS[year][2][subset]
    name = _RENAMED.get((record, machine), pattern.format(machine))
    return Archive(year, subset, machine, record, name, _MD5.get(record, {}).get(machine))
