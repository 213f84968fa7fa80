"""Write the saved system of this release, some clips and its scores of them.

Later releases prove with these files that they still read what earlier ones have saved. Run it once
for a release that changes what is saved, and keep the files of the releases before::

    python tests/persistence/saved/make_saved.py
"""

from pathlib import Path

import numpy as np

import sk_asd
from sk_asd.datasets import make_machine_sounds
from sk_asd.ensemble import ScoreEnsemble
from sk_asd.features import LogMel
from sk_asd.systems import make_pooling, make_sc

SOUNDS = {"n_train": 8, "n_test": 2, "n_target_train": 2, "duration": 0.5, "sr": 4000}
FEATURE = {"sr": 4000, "n_fft": 256, "hop_length": 64, "n_mels": 16}
LABELS = ("machine", "section", "domain")


def make():
    """Return the fitted system and a clip table that it has not seen."""
    clips = make_machine_sounds(("fan", "valve"), sections=2, random_state=0, **SOUNDS)
    sc = make_sc(feature=LogMel(**FEATURE), backbone="cnn6", random_state=0, device="cpu")
    sc.set_params(
        embedder__n_frames=16,
        embedder__module__embedding_dim=8,
        embedder__max_epochs=2,
        embedder__max_time=None,
        embedder__module__width=0.05,
    )
    members = [("pooling", make_pooling(feature=LogMel(**FEATURE))), ("sc", sc)]
    system = ScoreEnsemble(members).fit(clips[clips.split == "train"])
    return system, clips[clips.split == "test"].reset_index(drop=True)


def main():
    """Write both files beside this one."""
    system, test = make()
    # As a 16-bit file would hold them, so that they take little room.
    audio = (np.stack(test["audio"]) * 2**15).round().astype(np.int16)
    test["audio"] = list((audio / 2**15).astype(np.float32))
    name = Path(__file__).with_name("_".join(["release", *sk_asd.__version__.split(".")[:2]]))
    sk_asd.save(system, name.with_suffix(".skasd"))
    np.savez_compressed(
        name.with_suffix(".npz"),
        audio=audio,
        sr=test["sr"].to_numpy(),
        **{label: test[label].to_numpy(dtype=str) for label in LABELS},
        scores=system.score_samples(test),
        contributions=system.transform(test),
    )


if __name__ == "__main__":
    main()
