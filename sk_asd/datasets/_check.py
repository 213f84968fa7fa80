"""Findings on the recordings of a clip table, before any training."""

import hashlib
from collections import Counter
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from sk_asd.datasets._audio import audio_blocks, audio_info, read_audio
from sk_asd.datasets._samples import LARGEST, as_samples, is_sample
from sk_asd.utils._containers import check_clip_table
from sk_asd.utils._sklearn import Interval, validate_params

PROBLEMS = (
    "unreadable",
    "truncated",
    "sample_rate",
    "channels",
    "length",
    "nan",
    "silent",
    "clipped",
    "duplicate_label",
    "duplicate",
)

_MIN_RUN = 3  # samples in a row at the rail that make a flat top
_MIN_PEAK = 0.05  # quieter clips have flat tops by quantisation
_NEAR = 0.01  # the band below the rail, as a part of it
_BLOCK = 2**22  # values of a file that is not decoded twice
_GRID = 2.0**31  # steps of the finest integer format
_BELOW = 0.1  # of the loudest clip of the machine


class _Clip(NamedTuple):
    """What one clip looks like; `findings` holds pairs of problem and detail."""

    findings: list
    sr: int | None = None
    n_channels: int | None = None
    n_samples: int | None = None
    digest: bytes | None = None
    rms: float | None = None
    peak: float | None = None
    counts: bool | None = None  # samples are those of an integer format


@validate_params(
    {
        "n_jobs": [Integral, None],
        "sr": [Interval(Integral, 1, None, closed="left"), None],
        "silence_db": [Interval(Real, None, 0, closed="right")],
        "clip_fraction": [Interval(Real, 0, 1, closed="neither")],
        "verbose": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def check_clips(
    clips, *, n_jobs=None, sr=None, silence_db=-80.0, clip_fraction=1e-3, verbose=False
):
    """Read every recording of a clip table and report what is wrong with it.

    Clips are decoded in threads, one clip at a time in each, and long ones piece by piece, so that
    memory stays small.

    Parameters
    ----------
    clips : DataFrame, or sequence of str or path-like
        A clip table, with sound in the column ``path`` or ``audio``, where there are both in
        ``audio``; or names of sound files.
    n_jobs : int, optional
        Number of threads; None means all processors.
    sr : int, optional
        Sample rate that the clips should have, in Hz. By default the most frequent one.
    silence_db : float, default=-80.0
        A clip is silent if its RMS, without the mean, is at most this, in dB of full scale. The
        noise of 16-bit quantisation alone has −101 dB, a quiet but live microphone more than −70.
        See Notes.
    clip_fraction : float, default=1e-3
        A clip is clipped if more than this fraction of its samples lies in flat tops. See Notes.
    verbose : bool, default=False
        Show a progress bar.

    Returns
    -------
    DataFrame
        One row a finding, in the order of the clips, with the columns ``path`` (for clips without
        one: ``"clip <index>"``), ``problem`` and ``detail``. No row if all is well. Problems are

        - "unreadable": the file is missing, or no sound can be decoded from it.
        - "truncated": the header promises more samples than there are.
        - "sample_rate": other than `sr`, or than most clips have.
        - "channels", "length": other than most clips of the machine have.
        - "nan": samples are NaN, infinite, or beyond 1e10 and so no sound in any unit.
        - "silent", "clipped": see `silence_db` and `clip_fraction`.
        - "duplicate_label": the same samples as a clip with another label, or once in the training
          and once in the test split.
        - "duplicate": the same samples as a clip before.

    Raises
    ------
    TypeError, ValueError
        If `clips` is no clip table.

    Notes
    -----
    A loud clip touches full scale now and then; a clipped one stays there. So a sample counts as
    flat top if it is one of at least three in a row at the clip's own highest or lowest value
    (within one step of 16 bits); this finds clipping before the converter, and clips that were
    scaled afterwards, too. Extremes below 0.05 do not count, because quantisation flattens quiet
    clips, nor do those below which the values crowd, as they do in a pure tone: at least half as
    many samples must lie at the extreme as in the 1 % below it.

    Full scale is 1, or the largest sample of the machine where that is more: recordings may be in
    any unit. Where samples are no multiples of the steps of an integer format, nothing says what
    full scale is, and a clip is silent only if it is also 20 dB below the loudest of its machine.

    Duplicates are found by a hash of the decoded samples, not of the files: wav and flac of one
    recording are equal. Silent clips are not compared.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sk_asd.datasets import check_clips
    >>> y = np.sin(np.arange(16000.0))
    >>> clips = pd.DataFrame({"audio": [y, 0 * y, y], "sr": 16000, "machine": "fan"})
    >>> check_clips(clips)[["path", "problem"]].values.tolist()
    [['clip 1', 'silent'], ['clip 2', 'duplicate']]
    """
    clips = check_clip_table(clips)
    names = _names(clips)
    column = "audio" if "audio" in clips.columns else "path"
    rates = clips["sr"] if "sr" in clips.columns else [None] * len(clips)
    jobs = (
        delayed(_examine)(column, sound, rate, clip_fraction)
        for sound, rate in zip(clips[column], rates)
    )
    seen = Parallel(
        n_jobs=-1 if n_jobs is None else n_jobs, prefer="threads", return_as="generator"
    )(jobs)
    seen = list(tqdm(seen, total=len(clips), desc="Checking", unit="clip", disable=not verbose))

    machines = clips["machine"].tolist() if "machine" in clips.columns else [None] * len(clips)
    machines = [None if pd.isna(machine) else machine for machine in machines]
    findings = [list(clip.findings) for clip in seen]
    _compare_levels(seen, machines, silence_db, findings)
    _compare_rates(seen, sr, findings)
    _compare_within_machines(seen, machines, findings)
    _compare_samples(clips, seen, names, findings)
    order = {problem: rank for rank, problem in enumerate(PROBLEMS)}
    rows = [
        (name, problem, detail)
        for name, found in zip(names, findings)
        for problem, detail in sorted(found, key=lambda pair: order[pair[0]])
    ]
    return pd.DataFrame(rows, columns=["path", "problem", "detail"], dtype=object)


def _names(clips):
    """What to call each clip."""
    paths = clips["path"].tolist() if "path" in clips.columns else [None] * len(clips)
    return [f"clip {i}" if pd.isna(p) else str(p) for i, p in zip(clips.index, paths)]


def _rate(sr):
    """Sample rate of a cell, None where it is missing."""
    if pd.isna(sr):
        return None
    if not 0 < float(sr) < np.inf:
        raise ValueError(f"sample rate {sr}, expected a positive number")
    return int(sr)


def _examine(column, sound, sr, clip_fraction):
    """Read one clip and look at it alone."""
    if column == "audio":
        try:
            sr = _rate(sr)
            blocks = [as_samples(sound, "the clip")[:, None]]
        except (ValueError, TypeError) as error:
            return _Clip([("unreadable", str(error))])
        seen = _Summary(blocks)
    else:
        try:
            sr, promised, seen, blocks = _decode(sound)
        except (OSError, ValueError, TypeError) as error:
            return _Clip([("unreadable", str(error))])
        if seen is None or seen.n_samples < promised:
            found = "the last ones" if seen is None else f"{promised - seen.n_samples}"
            detail = f"the header promises {promised} samples, {found} are missing"
            return _Clip([("truncated", detail)])
    clip = _Clip([], sr, seen.n_channels, seen.n_samples)
    if seen.n_samples == 0:
        clip.findings.append(("unreadable", "the clip holds no samples"))
        return clip._replace(n_samples=None)
    size = seen.n_samples * seen.n_channels
    if seen.n_bad:
        wrong = f"NaN, infinite or beyond {LARGEST:.0e}"
        clip.findings.append(("nan", f"{seen.n_bad} of {size} samples are {wrong}"))
        return clip
    if np.array_equal(seen.highest, seen.lowest):
        clip.findings.append(("silent", "all samples are equal"))
        return clip
    flat = max(_flat_fractions(blocks, seen))
    if flat > clip_fraction:
        clip.findings.append(("clipped", f"{flat:.2%} of the samples are in flat tops"))
    start = next(iter(blocks))
    return clip._replace(
        digest=seen.digest,
        rms=seen.rms,
        peak=max(seen.highest.max(), -seen.lowest.min()),
        counts=bool(np.all(start * _GRID == np.rint(start * _GRID))),
    )


def _decode(path):
    """Read a file; long ones piece by piece, so that they are never in memory as a whole.

    Parameters
    ----------
    path : str
        The file.

    Returns
    -------
    sr, promised : int
        Sample rate, and samples that the header promises.
    seen : _Summary or None
        Of what there is; None where a compressed file breaks off.
    blocks : iterable
        The samples of shape (n_samples, n_channels), to be gone through once more.
    """
    info = audio_info(path)
    blocks = _Blocks(path)
    try:
        if info.frames * info.channels <= _BLOCK:
            blocks = list(blocks)
        return info.sr, info.frames + info.missing, _Summary(blocks), blocks
    except ValueError:
        # Compressed formats break off with an error. Where the last sample is out of reach, too,
        # the rest of the file is missing; else only a part of it is corrupt.
        if _is_readable(path, info.frames - 1):
            raise
        return info.sr, info.frames, None, None


class _Blocks:
    """Samples of all channels of a file, piece by piece, as often as they are asked for."""

    def __init__(self, path):
        self._path = path

    def __iter__(self):
        return audio_blocks(self._path)


class _Summary:
    """What one pass over the blocks of a clip tells."""

    def __init__(self, blocks):
        self.n_samples = self.n_channels = self.n_bad = 0
        self.highest = self.lowest = None
        digest, mean, squares = hashlib.blake2b(digest_size=16), 0.0, 0.0
        for y in blocks:
            n, self.n_channels = y.shape
            self.n_bad += y.size - np.count_nonzero(is_sample(y))
            self.n_samples += n
            if self.n_bad or n == 0:
                continue
            digest.update(np.ascontiguousarray(y))
            high, low = y.max(axis=0), y.min(axis=0)
            first = self.highest is None
            self.highest = high if first else np.maximum(self.highest, high)
            self.lowest = low if first else np.minimum(self.lowest, low)
            own = y.mean(axis=0)
            squares += np.sum((y - own) ** 2, axis=0, dtype=np.float64)
            step = own.astype(np.float64) - mean  # to the mean of what came before
            squares += step**2 * n * (self.n_samples - n) / self.n_samples
            mean += step * n / self.n_samples
        self.digest = digest.digest()
        self.rms = np.sqrt(np.mean(squares) / max(1, self.n_samples))


def _is_readable(path, sample):
    """Whether one sample of a file can be decoded."""
    try:
        return len(read_audio(path, start=sample, frames=1)[0]) == 1
    except ValueError:
        return False


def _flat_fractions(blocks, seen):
    """Fraction of samples in flat tops at the extremes of every channel."""
    rails = [
        (channel, sign, rail)
        for sign, extremes in ((1, seen.highest), (-1, -seen.lowest))
        for channel, rail in enumerate(extremes)
        if rail >= _MIN_PEAK
    ]
    counts = np.zeros((3, len(rails)), dtype=int)  # at the rail, below it, in flat tops
    runs = [0] * len(rails)  # samples at the rail up to the end of the block
    for y in blocks:
        for i, (channel, sign, rail) in enumerate(rails):
            values = sign * y[:, channel]
            at_rail = values >= rail - 2**-15
            n_at = np.count_nonzero(at_rail)
            n_near = np.count_nonzero(values >= rail * (1 - _NEAR)) - n_at
            # What was open at the end of the block before is closed here, or goes on.
            open_run = min(runs[i], _MIN_RUN)
            at_rail = np.concatenate([np.ones(open_run, dtype=bool), at_rail])
            edges = np.flatnonzero(np.diff(at_rail, prepend=False, append=False))
            lengths = edges[1::2] - edges[::2]
            n_flat = lengths[lengths >= _MIN_RUN].sum()
            n_flat -= open_run if open_run == _MIN_RUN else 0  # counted before
            counts[:, i] += n_at, n_near, n_flat
            runs[i] = int(lengths[-1]) if len(lengths) and at_rail[-1] else 0
    fractions = [0.0] * seen.n_channels
    for (channel, _, _), (n_at, n_near, n_flat) in zip(rails, counts.T):
        if n_at >= n_near / 2:
            fractions[channel] += n_flat / seen.n_samples
    return fractions


def _compare_levels(seen, machines, silence_db, findings):
    """Report silent clips, by the full scale and the loudest clip of their machine."""
    full, loudest = {}, {}
    for clip, machine in zip(seen, machines):
        if clip.rms is not None:
            full[machine] = max(full.get(machine, 1.0), clip.peak)
            loudest[machine] = max(loudest.get(machine, 0.0), clip.rms)
    for i, (clip, machine) in enumerate(zip(seen, machines)):
        if clip.rms is None:
            continue
        level = 20 * np.log10(max(clip.rms, 1e-30) / full[machine])
        if level <= silence_db and (clip.counts or clip.rms <= _BELOW * loudest[machine]):
            findings[i].append(("silent", f"RMS {level:.1f} dB of full scale"))
            seen[i] = clip._replace(digest=None)  # silence is like silence


def _compare_rates(seen, sr, findings):
    """Report rates other than the wanted, or the most frequent one."""
    rates = Counter(clip.sr for clip in seen if clip.sr is not None)
    if not rates:
        return
    wanted = rates.most_common(1)[0][0] if sr is None else sr
    source = f"{rates[wanted]} of {rates.total()} clips have" if sr is None else "expected"
    for clip, found in zip(seen, findings):
        if clip.sr not in (None, wanted):
            found.append(("sample_rate", f"{clip.sr} Hz; {source} {wanted} Hz"))


def _compare_within_machines(seen, machines, findings):
    """Report channels and lengths other than the most frequent ones of a machine."""
    for problem, field, unit in (
        ("channels", "n_channels", "channels"),
        ("length", "n_samples", "samples"),
    ):
        counts = {}
        for clip, machine in zip(seen, machines):
            if getattr(clip, field) is not None:
                counts.setdefault(machine, Counter())[getattr(clip, field)] += 1
        for clip, machine, found in zip(seen, machines, findings):
            value = getattr(clip, field)
            if value is None:
                continue
            usual, n_usual = counts[machine].most_common(1)[0]
            if value != usual:
                where = "" if machine is None else f" of {machine!r}"
                total = counts[machine].total()
                detail = f"{value} {unit}; {n_usual} of {total} clips{where} have {usual}"
                found.append((problem, detail))


def _compare_samples(clips, seen, names, findings):
    """Report clips with the same samples, and whether their labels or splits contradict."""
    known = [
        clips[column].tolist() if column in clips.columns else [None] * len(clips)
        for column in ("label", "split")
    ]
    known = list(zip(*([None if pd.isna(v) else v for v in values] for values in known)))
    groups = {}
    for i, clip in enumerate(seen):
        if clip.digest is not None:
            groups.setdefault(clip.digest, []).append(i)
    for group in groups.values():
        for place, i in enumerate(group[1:], 1):
            others = group[:place]
            clash = next((j for j in others if _contradict(known[i], known[j])), None)
            if clash is None:
                findings[i].append(("duplicate", f"same samples as {names[others[0]]}"))
            else:
                here, there = (_describe(known[k]) for k in (i, clash))
                detail = f"{here}; same samples as {names[clash]} ({there})"
                findings[i].append(("duplicate_label", detail))


def _contradict(one, other):
    """Whether two clips with the same samples have other labels, or are in other splits."""
    return any(a is not None and b is not None and a != b for a, b in zip(one, other))


def _describe(label_and_split):
    return ", ".join(str(value) for value in label_and_split if value is not None)
