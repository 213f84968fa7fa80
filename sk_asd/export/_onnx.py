"""Write a fitted system as an ONNX graph and check it."""

import contextlib
import io
import itertools
import json
import logging
import os
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sk_asd import __version__
from sk_asd.datasets import make_machine_sounds
from sk_asd.export._mirror import Mirror
from sk_asd.metrics import anomaly_score
from sk_asd.utils._containers import check_clip_table
from sk_asd.utils._files import replacing

_BATCH = 7
_LARGEST = 2**31 - 1  # bytes, of one protobuf message
_N_SYNTHETIC = 8
_SHORTEST = 0.5  # seconds that make_machine_sounds can do
_NOT_A_FEATURE = {"cache_dir", "n_jobs", "device", "model"}


@dataclass(frozen=True)
class ExportReport:
    """What `export_onnx` has written and seen.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    groups : list of dict
        Groups in the order of the input ``group``, each its values by column; one empty dict for a
        system without groups.
    n_clips : int
        Clips whose scores were compared.
    max_difference : float
        Largest difference between a score of onnxruntime and that of the system.
    """

    path: Path
    groups: list
    n_clips: int
    max_difference: float


def export_onnx(pipeline, path, *, clips=None, groups=None, opset=20, rtol=1e-4, atol=1e-4):
    """Write a fitted system as one ONNX graph: waveforms in, anomaly scores out.

    Features, networks, detectors, and in an ensemble standardisation and weights, are all in the
    graph, so that onnxruntime alone gives the scores, on any machine and from any language. They
    are compared with those of the system before the file appears.

    Parameters
    ----------
    pipeline : Pipeline or ScoreEnsemble
        A fitted system that begins with :class:`~sk_asd.features.STFT`,
        :class:`~sk_asd.features.LogMel` or :class:`~sk_asd.features.Wav2Vec`. What may follow is
        in the notes.
    path : str or path-like
        The file to write, such as ``"model.onnx"``. Its folder must exist.
    clips : DataFrame, default=None
        Clip table whose scores are compared, of the groups that are exported; clips of others are
        left out. None takes synthetic machines of the length and rate of the training clips. Real
        clips show more: the parity of a graph is that of the sounds it is shown with.
    groups : sequence, default=None
        Groups to export: values of the column that detectors are grouped by, such as ``["00"]``,
        or tuples for several columns. None is all.
    opset : int, default=20
        Version of the operators, 18 or later.
    rtol, atol : float, default=1e-4
        Largest difference that scores may have is ``atol + rtol * abs(score)``.

    Returns
    -------
    ExportReport
        With ``path``, ``groups``, ``n_clips`` and ``max_difference``.

    Raises
    ------
    ImportError
        If the packages of the extra ``onnx`` are missing.
    FileNotFoundError, IsADirectoryError
        If the folder of `path` does not exist, or `path` is a folder.
    ValueError
        If a part of the system cannot be exported, with its place and the reason; if `groups` or
        `clips` do not fit the system; if a score differs by more than the tolerances.

    Notes
    -----
    **Inputs**: ``waveform``, float32 of shape ``(batch, n_samples)``, at the rate of the training
    clips and as long as they are, samples in [-1, 1] as read from a file; any batch. Where there
    is more than one group, ``group``, int64 of shape ``(batch,)``: positions in the list of groups.
    **Output**: ``anomaly_score``, float32 of shape ``(batch,)``, high = abnormal, which is
    :func:`~sk_asd.metrics.anomaly_score`.

    **Metadata** of the model, all text: ``sr``, ``n_samples``, ``threshold`` (anomaly score above
    which a clip is called abnormal; JSON: a number, or with the input ``group`` a list in its
    order), ``groups`` and ``features`` (JSON), ``versions`` (JSON).

    **What is exported**: STFT, LogMel, and Wav2Vec and Wav2VecPretrainer with a model of the first
    version, followed by TimePooling, SectionEmbedder or MultiHeadEmbedder with any network that
    torch can export; StandardScaler and PCA, also in :class:`~sk_asd.features.KeepLabels`;
    KNNDetector and LOFDetector with cosine or Euclidean distance, CosineDetector,
    MahalanobisDetector and GaussianMixtureDetector; GroupedDetector; and ScoreEnsemble of such
    systems. Reading, resampling and bringing clips to one length stay outside, and so does
    ``unseen="pool"``: the graph knows the groups it lists.

    Features and networks compute in float32, detectors in float64. A training clip that is scored
    again by a k-NN detector lies at distance 0 from itself, and rounding makes that a distance;
    compare clips that the system has not seen.

    Examples
    --------
    >>> import tempfile
    >>> from sk_asd import export_onnx
    >>> from sk_asd.datasets import make_machine_sounds
    >>> from sk_asd.features import LogMel
    >>> from sk_asd.systems import make_pooling
    >>> clips = make_machine_sounds(("fan",), n_train=10, n_test=2, duration=1.0, random_state=0)
    >>> system = make_pooling(feature=LogMel(n_fft=512, n_mels=16))
    >>> system = system.fit(clips[clips.split == "train"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = export_onnx(system, f"{folder}/fan.onnx", clips=clips[clips.split == "test"])
    >>> report.groups, report.max_difference < 1e-4
    ([{'machine': 'fan', 'section': '00'}], True)
    """
    _require_extra()
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected the name of a file.")
    if not isinstance(opset, int) or opset < 18:
        raise ValueError(f"opset must be an integer of at least 18, got {opset!r}.")
    mirror = Mirror(pipeline, groups)
    clips = _synthetic(mirror) if clips is None else _of_groups(clips, mirror.groups)
    model = to_model(mirror, opset)
    content = serialised(model)
    difference = _check_parity(content, mirror, pipeline, clips, rtol, atol)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return ExportReport(path, mirror.groups.as_dicts(), len(clips), difference)


def to_model(mirror, opset):
    """Graph of a mirrored system, with metadata.

    Parameters
    ----------
    mirror : Mirror
        The system.
    opset : int
        Version of the operators.

    Returns
    -------
    onnx.ModelProto
        The model.
    """
    inputs = [torch.zeros(2, mirror.n_samples)]
    names = ["waveform"]
    if len(mirror.groups.names) > 1:
        inputs.append(torch.zeros(2, dtype=torch.int64))
        names.append("group")
    batch = torch.export.Dim("batch")
    try:
        with _silence():
            program = torch.onnx.export(
                mirror,
                tuple(inputs),
                dynamo=True,
                input_names=names,
                output_names=["anomaly_score"],
                dynamic_shapes=({0: batch},) * len(inputs),
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:
        if not _is_exporters(error):
            raise
        raise ValueError(
            "torch cannot export the network of the system to ONNX: "
            f"{str(error.__cause__ or error).strip().splitlines()[0]}"
        ) from error
    _share(program.model)
    model = program.model_proto
    # The exporter passes over a version that it cannot write.
    written = next(entry.version for entry in model.opset_import if entry.domain == "")
    if written != opset:
        raise ValueError(f"opset={opset}: the installed torch and onnx write {written} instead.")
    model.producer_name, model.producer_version = "sk_asd", __version__
    for key, value in metadata(mirror).items():
        model.metadata_props.add(key=key, value=value)
    return model


def metadata(mirror):
    """What a user of the graph must know, as texts.

    Parameters
    ----------
    mirror : Mirror
        The system.

    Returns
    -------
    dict of str to str
        Names and values.
    """
    several = len(mirror.groups.names) > 1
    features = [
        {"name": type(e).__name__}
        | {
            name: value
            for name, value in e.get_params(deep=False).items()
            if name not in _NOT_A_FEATURE and isinstance(value, (str, int, float, type(None)))
        }
        for e in mirror.extractors
    ]
    packages = ("torch", "onnx", "onnxscript", "scikit-learn", "numpy")
    return {
        "sr": str(mirror.sr),
        "n_samples": str(mirror.n_samples),
        "threshold": json.dumps(mirror.thresholds if several else mirror.thresholds[0]),
        "groups": json.dumps(mirror.groups.as_dicts()),
        "features": json.dumps([f for i, f in enumerate(features) if f not in features[:i]]),
        "versions": json.dumps({"sk_asd": __version__} | {p: version(p) for p in packages}),
    }


def _require_extra():
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'Export needs onnx, onnxruntime and onnxscript: pip install "sk_asd[onnx]" ({error}).'
        ) from error


def _is_exporters(error):
    return type(error).__module__.split(".")[0] in ("torch", "onnxscript", "onnx_ir")


def _share(model):
    """Compute once what members of an ensemble have in common, their features above all."""
    from onnx_ir.passes import common

    common.DeduplicateHashedInitializersPass()(model)
    common.CommonSubexpressionEliminationPass()(model)


def serialised(model):
    """Bytes of a file with the graph.

    Parameters
    ----------
    model : onnx.ModelProto
        The graph.

    Returns
    -------
    bytes
        The same ones for the same graph.

    Raises
    ------
    ValueError
        If they are more than a file can hold.
    """
    size = model.ByteSize()
    if size > _LARGEST:
        raise ValueError(
            f"The graph takes {size / 1e9:.1f} GB, and a file of ONNX holds 2 GB at most: export "
            "fewer `groups` to a file."
        )
    return model.SerializeToString(deterministic=True)


@contextlib.contextmanager
def _silence():
    """Without what the exporter tells its developers, such as all operations of a network."""
    nowhere = io.StringIO()
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _synthetic(mirror):
    """Clips of synthetic machines, at least one a group."""
    names = mirror.groups.names
    n_clips = max(_N_SYNTHETIC, len(names))
    table = make_machine_sounds(
        n_train=-(-n_clips // 2),
        n_test=0,
        sr=mirror.sr,
        duration=max(_SHORTEST, mirror.n_samples / mirror.sr),
        random_state=0,
    )[:n_clips]
    waves = [np.resize(wave, mirror.n_samples) for wave in table["audio"]]
    clips = pd.DataFrame({"audio": pd.Series(waves, dtype=object), "sr": mirror.sr})
    for i, column in enumerate(mirror.groups.columns):
        clips[column] = [names[row % len(names)][i] for row in range(n_clips)]
    return clips


def _of_groups(clips, groups):
    """Clips of the groups that are exported."""
    clips = check_clip_table(clips)
    if not groups.columns:
        return clips
    kept = np.array([name in groups.names for name in groups.of(clips)])
    if not kept.any():
        raise ValueError(
            f"None of the {len(clips)} clips to compare is of a group that is exported: "
            f"{groups.names[:6]}, values of the columns {list(groups.columns)}."
        )
    return clips[kept]


def _check_parity(content, mirror, pipeline, clips, rtol, atol):
    """Largest difference of the scores of onnxruntime from those of the system."""
    expected = anomaly_score(pipeline, clips)
    found = runtime_scores(content, mirror, clips)
    difference = np.abs(found - expected)
    allowed = atol + rtol * np.abs(expected)
    # A comparison that NaN fails, too.
    wrong = ~(difference <= allowed)
    if wrong.any():
        worst = int(np.argmax(np.where(np.isfinite(difference), difference - allowed, np.inf)))
        raise ValueError(
            f"The graph gives other scores than the system for {wrong.sum()} of {len(clips)} clips;"
            f" the largest difference is {difference[worst]:.3g}, at position {worst} of the clips:"
            f" {found[worst]:.7g} instead of {expected[worst]:.7g}, with rtol={rtol} and "
            f"atol={atol}. Nothing was written. It may be rounding, which detectors enlarge where "
            "all training clips are all but alike, as to a network after a few steps of training."
        )
    return float(difference.max())


def runtime_scores(content, mirror, clips):
    """Scores by onnxruntime of clips that are read as the system reads them.

    Parameters
    ----------
    content : bytes
        The graph.
    mirror : Mirror
        The system that it was made of.
    clips : DataFrame
        Clip table.

    Returns
    -------
    ndarray of shape (n_clips,)
        Scores, high = abnormal.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(torch.get_num_threads(), os.cpu_count() or 1)
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    extractor = mirror.extractors[0]
    source = extractor._source(clips, reset=False)
    names = mirror.groups.names
    groups = [0] * len(clips)
    if len(names) > 1:
        groups = [names.index(name) for name in mirror.groups.of(clips)]
    scores = []
    # The first clip on its own, so that batches of one are looked at as well.
    starts = [0, *range(1, len(clips), _BATCH), len(clips)]
    for start, stop in itertools.pairwise(starts):
        rows = range(start, stop)
        feed = {"waveform": np.stack([extractor._load(source, row) for row in rows])}
        if len(names) > 1:
            feed["group"] = np.array(groups[start:stop], dtype=np.int64)
        scores.append(session.run(["anomaly_score"], feed)[0])
    return np.concatenate(scores).astype(np.float64)
