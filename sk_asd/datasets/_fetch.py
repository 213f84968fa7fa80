"""The recordings of DCASE Challenge Task 2, from where they are published."""

import contextlib
import datetime
import json
import logging
import os
import re
import shutil
from numbers import Integral, Real
from pathlib import Path

from sk_asd.datasets._archives import LICENCES, find_archives
from sk_asd.datasets._audio import audio_suffixes
from sk_asd.datasets._download import LARGEST, download, get_json, naming_folder, unpack
from sk_asd.datasets._ground_truth import read_ground_truth
from sk_asd.datasets._load import (
    _audio_files,
    _join_attribute_tables,
    _join_ground_truth,
    _read_rows,
    _report_unknown,
    _table,
)
from sk_asd.utils._sklearn import Interval, validate_params
from sk_asd.utils._text import printable

ZENODO = "https://zenodo.org"
_CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", re.IGNORECASE)
_N_SHOWN = 10  # names in a message


@validate_params(
    {
        "year": [Integral],
        "machine": [str, list, tuple],
        "subset": [str],
        "data_home": [str, os.PathLike, None],
        "ground_truth": [str, os.PathLike, list, tuple, None],
        "download_if_missing": ["boolean"],
        "n_retries": [Interval(Integral, 0, None, closed="left")],
        "delay": [Interval(Real, 0, None, closed="left")],
        "base_url": [str],
        "verbose": ["verbose"],
    },
    prefer_skip_nested_validation=True,
)
def fetch_dcase(
    year,
    machine,
    subset="dev",
    *,
    data_home=None,
    ground_truth=None,
    download_if_missing=True,
    n_retries=3,
    delay=1.0,
    base_url=ZENODO,
    verbose=True,
):
    """Download recordings of DCASE Challenge Task 2 and make a clip table of them.

    What is there already is not downloaded again, and what was downloaded in part is resumed. An
    archive is checked against its checksum, unpacked, and deleted. One machine and subset takes 0.2
    to 2 GB, and for a while twice that.

    Parameters
    ----------
    year : {2020, 2021, 2022, 2023, 2024, 2025}
        Year of the challenge.
    machine : str or list of str
        One or more machines, such as ``"fan"``; ``"all"`` for all that the subset has.
    subset : {"dev", "train", "eval", "all"}, default="dev"
        What to fetch:

        - "dev": development data, training clips and labelled test clips;
        - "train": additional training data, normal clips of the sections (until 2022) or machines
          (from 2023 on) of the evaluation;
        - "eval": evaluation data, test clips without labels;
        - "all": those of the three that there are of the machine.
    data_home : str or path-like, default=None
        Folder for the data of all years. None: the environment variable ``SK_ASD_DATA_HOME``, and
        where that is not set, the user's cache folder.
    ground_truth : str, path-like or sequence of those, optional
        Files of the organisers with the labels of the evaluation data, as for :func:`load_clips`.
        They are not part of the archives.
    download_if_missing : bool, default=True
        Whether to download what is missing. If False, raise an error.
    n_retries : int, default=3
        Failures of the connection in a row after which to give up. A download that went on for a
        while starts to count anew.
    delay : float, default=1.0
        Seconds before the first retry; doubled before each further one. If the server asks for a
        longer wait, it gets it, up to two minutes.
    base_url : str, default="https://zenodo.org"
        Address of Zenodo, or of a mirror with the same paths.
    verbose : bool or int, default=True
        Whether to print the licences and, in a terminal, progress.

    Returns
    -------
    DataFrame
        Clip table of what was asked for, as :func:`load_clips` makes it, whatever else is in the
        folder. ``clips.attrs["licences"]`` has the licence by archive.

    Raises
    ------
    ValueError
        If the year, machine or subset does not exist; if a checksum is wrong or an archive is
        broken, which is then deleted; if the record is malformed; if an archive holds other than
        the recordings of the machine, a member that would be written elsewhere, or more than is
        plausible for its size.
    FileNotFoundError
        If the server does not have the archive, or with ``download_if_missing=False``, if the
        data are not there.
    ConnectionError
        If the server cannot be reached, or fails time and again. What was downloaded is kept.
    OSError
        If there is too little space, the folder cannot be written, or the server sends more than
        the record says, or than 16 GiB.

    See Also
    --------
    load_clips : Makes a clip table of any folder.

    Notes
    -----
    The data come to lie as the challenge lays them out, in
    ``<data_home>/dcase<year>/<dev_data|eval_data>/<machine>/<train|test>/``, so that the folder of
    a year can be given to all that takes a folder of recordings. Beside the split folders, a file
    ``<archive>.json`` records source, checksum and licence. Data that were put there by hand are
    taken as they are.

    The checksums are those of the record on Zenodo; of 2020 and 2023 they are known here, and those
    archives can be had while the record cannot be asked. The licence is that which the record
    names; the page of the record may have further conditions of use.

    References
    ----------
    https://dcase.community/challenge2022/task-unsupervised-anomalous-sound-detection-for-machine-
    condition-monitoring, and the pages of the other years.

    Examples
    --------
    >>> from sk_asd.datasets import fetch_dcase
    >>> clips = fetch_dcase(2022, "fan", "dev")  # doctest: +SKIP
    >>> train = clips[clips["split"] == "train"]  # doctest: +SKIP
    """
    archives = find_archives(int(year), machine, subset)
    home = year_folder(year, data_home)
    missing = [archive for archive in archives if not is_present(home, archive)]
    if missing and not download_if_missing:
        raise FileNotFoundError(
            f"Not in {home}: the data of {', '.join(a.name for a in missing)}. Pass "
            "download_if_missing=True to download them."
        )
    licences, records = {}, {}
    for archive in archives:
        if archive in missing:
            _fetch(archive, home, records, base_url, n_retries, delay, bool(verbose))
        licences[archive.name] = licence = _licence(home, archive)
        if verbose:
            print(f"{archive.name}: licence {licence}; conditions of use: {_page(archive)}")
    clips = _load(home, archives, ground_truth)
    clips.attrs["licences"] = licences
    return clips


def year_folder(year, data_home=None):
    """Folder of the data of one year.

    Parameters
    ----------
    year : int
        The year.
    data_home : str or path-like, default=None
        As for :func:`fetch_dcase`.

    Returns
    -------
    pathlib.Path
        Absolute; it need not exist.
    """
    home = data_home or os.environ.get("SK_ASD_DATA_HOME")
    if not home:
        import pooch

        home = pooch.os_cache("sk_asd")
    return Path(home).expanduser().absolute() / f"dcase{year}"


def is_present(home, archive):
    """Whether all split folders of an archive are there with recordings in them."""
    return _has_splits(home / archive.folder, archive)


def _has_splits(folder, archive):
    return all(_has_audio(folder / split) for split in archive.splits)


def _has_audio(folder):
    if not folder.is_dir():
        return False
    return any(os.path.splitext(e.name)[1].lower() in audio_suffixes() for e in os.scandir(folder))


def _page(archive, base_url=ZENODO):
    return f"{base_url.rstrip('/')}/records/{archive.record}"


def _fetch(archive, home, records, base_url, n_retries, delay, bar):
    """Download and unpack one archive.

    Parameters
    ----------
    archive : Archive
        The archive.
    home : pathlib.Path
        Folder of the year.
    records : dict
        Records that were asked already, by number; extended in place.
    base_url, n_retries, delay, bar
        As for :func:`fetch_dcase` and :func:`~sk_asd.datasets._download.download`.
    """
    import pooch

    if archive.record not in records:
        records[archive.record] = _record(archive, base_url, n_retries, delay)
    record = records[archive.record]
    checksum, size = _entry(archive, record)

    downloads = home / "downloads"
    part = downloads / f"{archive.name}.part"
    url = f"{_page(archive, base_url)}/files/{archive.name}?download=1"

    def resume(url, output_file, pooch):
        # The archive itself, and at least once more its size when it is unpacked.
        download(url, part, size=size, n_retries=n_retries, delay=delay, bar=bar, extra=1)
        os.replace(part, output_file)

    with _quiet(pooch.get_logger()):
        path = pooch.retrieve(
            url, known_hash=checksum, fname=archive.name, path=downloads, downloader=resume
        )
    path = Path(path)
    _unpack(
        path,
        archive,
        home,
        {
            "archive": archive.name,
            "record": _page(archive),
            "title": _metadata(record, "title"),
            "licence": _licence_of(record) or LICENCES.get(archive.record) or "not named",
            "checksum": checksum,
            "fetched": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    )
    path.unlink()
    with contextlib.suppress(OSError):  # another archive may be waiting there
        downloads.rmdir()


def _record(archive, base_url, n_retries, delay):
    """What Zenodo says of a record; nothing where it does not answer and is not needed."""
    url = f"{base_url.rstrip('/')}/api/records/{archive.record}"
    try:
        return get_json(url, n_retries=n_retries, delay=delay)
    except OSError:
        if archive.md5 is None:
            raise
        return {}


def _entry(archive, record):
    """Checksum and size of an archive, by its record; None where they are not said and not needed.

    Raises
    ------
    ValueError
        If the record is malformed, or has no checksum where it is needed.
    """
    page = _page(archive)
    files = record.get("files", [])
    if not isinstance(files, list) or not all(
        isinstance(file, dict) and isinstance(file.get("key"), str) for file in files
    ):
        raise ValueError(f"Record {page} is malformed: expected a list of files with their keys.")
    found = [file for file in files if file["key"] == archive.name]
    checksum, size = (found[0].get(key) if found else None for key in ("checksum", "size"))
    if size is not None and (type(size) is not int or not 0 < size <= LARGEST):
        raise ValueError(
            f"Record {page} is malformed: {archive.name} has the size {size!r}, expected a number "
            f"of bytes up to {LARGEST:,}."
        )
    if archive.md5:  # what is known here is worth more
        return f"md5:{archive.md5}", size
    if checksum is None:
        names = ", ".join(printable(file["key"]) for file in files[:_N_SHOWN]) or "no files"
        more = f" and {len(files) - _N_SHOWN} more" if len(files) > _N_SHOWN else ""
        raise ValueError(
            f"Record {page} has no checksum of {archive.name}; it lists {names}{more}."
        )
    if not isinstance(checksum, str) or not _CHECKSUM.fullmatch(checksum):
        raise ValueError(
            f"Record {page} is malformed: {archive.name} has the checksum {checksum!r}."
        )
    return checksum, size


def _metadata(record, *keys):
    """Text among the metadata of a record, or None."""
    for key in ("metadata", *keys):
        record = record.get(key) if isinstance(record, dict) else None
    return printable(record) if isinstance(record, str) and record else None


def _licence_of(record):
    names = (("license", "id"), ("license", "title"), ("license",))
    return next(filter(None, (_metadata(record, *name) for name in names)), None)


@contextlib.contextmanager
def _quiet(logger):
    """No talk of each step; errors are raised."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _unpack(path, archive, home, source):
    """Unpack an archive beside its place, look at it, and move it there folder by folder."""
    scratch = path.parent / f".{path.stem}"  # hidden: no recordings there yet
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    try:
        scratch.mkdir()
        unpack(path, scratch)
        folder = _machine_folder(scratch, archive)
        with naming_folder(home):
            (folder / f"{path.stem}.json").write_text(
                json.dumps(source, indent=2) + "\n", encoding="utf-8"
            )
            _move(folder, home / archive.folder, archive)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _machine_folder(scratch, archive):
    """Folder of the machine in an unpacked archive."""
    candidates = [scratch, *sorted(p for p in scratch.rglob(archive.machine) if p.is_dir())]
    for folder in candidates:
        if _has_splits(folder, archive):
            return folder
    found = sorted(p.relative_to(scratch).as_posix() for p in scratch.rglob("*") if p.is_dir())
    wanted = " and ".join(f"{archive.machine}/{split}" for split in archive.splits)
    raise ValueError(
        f"{archive.name} was expected to hold recordings in {wanted}; its folders are "
        f"{', '.join(found[:10]) or 'none'}."
    )


def _move(source, target, archive):
    """Move the content of a folder; where a folder has content already, it is left as it is.

    Folders are moved whole and those that tell that the archive is there last, so that whatever
    stops this, the next call finds either all or too little.
    """
    target.mkdir(parents=True, exist_ok=True)
    for child in sorted(source.iterdir(), key=lambda p: (p.name in archive.splits, p.name)):
        place = target / child.name
        if child.is_dir() and place.is_dir():
            if any(place.iterdir()):
                continue
            place.rmdir()
        os.replace(child, place)
    if not _has_splits(target, archive):
        raise OSError(
            f"{target} has a folder {' or '.join(archive.splits)} without recordings; move it away."
        )


def _licence(home, archive):
    """Licence as recorded beside the data."""
    path = home / archive.folder / f"{Path(archive.name).stem}.json"
    try:
        return printable(str(json.loads(path.read_text("utf-8"))["licence"]))
    except (OSError, ValueError, KeyError, TypeError):  # put there by hand
        return LICENCES.get(archive.record, "not recorded")


def _load(home, archives, ground_truth):
    """Clip table of the archives, whatever else is in their folders."""
    files = set()
    for archive in archives:
        folder = home / archive.folder
        tests = [folder / name for name in archive.test_folders]
        for file in _audio_files(folder):
            in_test = any(test in file.parents for test in tests)
            if archive.subset == "dev" or in_test == (archive.subset == "eval"):
                files.add(file)
    rows, unknown = _read_rows(sorted(files, key=lambda path: path.parts), home, "dcase")
    if unknown:
        _report_unknown(unknown, "dcase", "warn")
    _join_attribute_tables(rows)
    if ground_truth is not None:
        _join_ground_truth(rows, read_ground_truth(ground_truth))
    return _table(rows)
