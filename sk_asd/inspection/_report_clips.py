"""What the report shows of the clips that are explained."""

import numpy as np

from sk_asd.inspection._figure import bare_figure, png_uri
from sk_asd.inspection._sounds import excerpt, seconds_and_rate, wav_uri

_SOUND_BYTES = 5e6  # of all sounds together, before they become text, which takes a third more


def shown_clips(explain):
    """Texts, pictures and sounds of clips; all sounds together keep within their space.

    Parameters
    ----------
    explain : list of dict
        As :func:`~sk_asd.inspection.explain_clips` gathers them.

    Returns
    -------
    list of dict
        ``name``, ``facts``, ``figures``, ``sounds`` and ``gain`` of each, for the template.
    """
    n_sounds = sum(1 + (clip["nearest"] is not None) for clip in explain)
    seconds, rate = seconds_and_rate(_SOUND_BYTES / max(1, n_sounds))
    return [_explained(clip, seconds, rate) for clip in explain]


def _explained(clip, seconds, rate):
    """What the report shows of one clip: texts, pictures and sounds."""
    spectrogram, nearest = clip["spectrogram"], clip["nearest"]
    values = clip["map"].values
    # The loudest moment of the map is what to hear, should the clip be too long.
    by_frame = np.nan_to_num(values.values, nan=-np.inf).max(axis=0)
    times = values.coords["frame"].values if "frame" in values.coords else np.zeros(1)
    peak = float(times[int(by_frame.argmax()) % len(times)])
    y, sr, start = excerpt(clip["sound"], seconds, rate, peak)
    sounds, limits = [("This clip", y, sr, start)], _limits(spectrogram)
    figures = [("Spectrogram", _png(spectrogram, limits=limits))]
    figures.append((f"Anomaly map: {values.attrs.get('unit', 'abnormality')}", _png(clip["map"])))
    if clip["contributions"] is not None:
        figures.append(("Who contributed", _png(clip["contributions"])))
    if nearest is not None:
        label = f"Nearest normal clip: {nearest['name']}"
        sounds.append((label, *excerpt(nearest["sound"], seconds, rate, peak)))
        figures.append(("Nearest normal clip", _png(nearest["spectrogram"], limits=limits)))
    loudest = max(float(np.abs(sound[1]).max(initial=0)) for sound in sounds)
    gain = 0.9 / loudest if loudest > 0 else 1.0
    return {
        "name": clip["name"],
        "facts": _facts(clip),
        "figures": figures,
        "sounds": [
            (label, wav_uri(y, sr, gain), f"{start:.1f} to {start + len(y) / sr:.1f} s")
            for label, y, sr, start in sounds
        ],
        "gain": f"{20 * np.log10(gain):+.0f} dB",
    }


def _facts(clip):
    """Pairs of name and text about a clip."""
    facts = [
        (name, clip[name]) for name in ("section", "domain", "label") if clip[name] is not None
    ]
    facts.append(("score", f"{clip['score']:.4g}"))
    if clip["threshold"] is not None:
        verdict = "anomaly" if clip["score"] < clip["threshold"] else "normal"
        facts.append(("decision", f"{verdict} (threshold {clip['threshold']:.4g})"))
    attributes = clip["map"].values.attrs
    if "method" in attributes:
        facts.append(("map by", attributes["method"].replace("_", " ")))
    if "member" in attributes:
        facts.append(("map of member", attributes["member"]))
    if clip["nearest"] is not None:
        nearest = clip["nearest"]
        facts.append(
            (
                "nearest normal",
                f"{nearest['name']}, at distance {nearest['distance']:.3g}, "
                f"of {nearest['n_compared']} training clips",
            )
        )
    return facts


def _limits(display):
    """Colours for a clip and its neighbour alike: the levels of the first."""
    if display.unit == "value":
        return None
    top = float(display.values.max())
    return max(float(display.values.min()), top - 80.0), top


def _png(display, **options):
    """Picture of a display, which takes the size that it needs."""
    height = 2.6
    if hasattr(display, "contributions"):
        height = 1.2 + 0.3 * len(display.contributions)
    figure, ax = bare_figure(4.8, height)
    # The name of the file, and the member, are in the text already.
    title, display.title = getattr(display, "title", None), None
    display.plot(ax, **options)
    display.title = title
    return png_uri(figure)
