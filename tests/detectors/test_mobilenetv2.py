"""The section classifier: log odds by hand, sections that are not their own, errors."""

import numpy as np
import pytest
import torch
import xarray as xr

from sk_asd.detectors._mobilenetv2 import MobileNetV2Detector, _log_odds


def small(target="section", **params):
    defaults = {
        "n_frames": 12,
        "train_hop": 4,
        "window_hop": 3,
        "module__width": 0.1,
        "module__momentum": 0.5,
    }
    training = {"max_epochs": 1, "lr": 3e-3, "batch_size": 16, "random_state": 0}
    return MobileNetV2Detector(target, **{**defaults, **training, **params})


def make_clips(n_clips, seed):
    """Two sections with energy in bins of their own."""
    X = np.random.default_rng(seed).normal(size=(n_clips, 32, 20)).astype("float32")
    X[::2, :16] += 4
    X[1::2, 16:] += 4
    section = np.array(["00", "01"] * (n_clips // 2), dtype=object)
    return xr.DataArray(X, dims=("clip", "mel", "frame"), coords={"section": ("clip", section)})


@pytest.fixture(scope="module")
def clips():
    return make_clips(16, 0)


@pytest.fixture(scope="module")
def learnt(clips):
    return small(max_epochs=30, lr=1e-2).fit(clips)


def test_log_odds():
    logits = torch.tensor([[2.0, 0.5, -1.0], [0.0, 0.0, 0.0]])
    p = logits.softmax(dim=1)
    for code in range(3):
        expected = torch.log(p[:, code] / (1 - p[:, code]))
        torch.testing.assert_close(_log_odds(logits, code), expected)
    # Where the probability itself has run out of digits.
    assert _log_odds(torch.tensor([[100.0, -100.0]]), 0).item() == 200


def test_score_by_hand(learnt, clips):
    new = make_clips(4, 1)
    scores = []
    for i, clip in enumerate(new.values):
        windows = torch.from_numpy(np.stack([clip[:, s : s + 12] for s in (0, 3, 6, 8)]))
        with torch.no_grad():
            p = learnt.net_.module_(windows).double().softmax(dim=1)[:, i % 2]
        scores.append(-torch.log((1 - p) / p).mean().item())
    np.testing.assert_allclose(learnt.score_samples(new), scores, rtol=1e-3)


def test_sections_are_learnt(learnt):
    new = make_clips(12, 1)
    own = learnt.score_samples(new)
    other = learnt.score_samples(new.assign_coords(section=("clip", new.section.values[::-1])))
    assert own.min() > 0 > other.max()
    assert (learnt.predict(new.assign_coords(section=new.section[::-1])) == -1).all()
    assert learnt.classes_ == ["00", "01"]


def test_column_of_the_classes(clips):
    renamed = clips.rename(section="machine")
    detector = small("machine").fit(renamed)
    np.testing.assert_array_equal(
        detector.score_samples(renamed), small().fit(clips).score_samples(clips)
    )


@pytest.mark.slow
def test_clusters_stand_in_for_sections(learnt, clips):
    detector = small(2, max_epochs=30, lr=1e-2).fit(clips.values)
    codes = detector.clusters_.predict(clips.values.mean(axis=2, dtype=float))
    assert len(set(codes[::2])) == len(set(codes[1::2])) == 1
    assert codes[0] != codes[1]
    # Which cluster comes first is a matter of chance.
    new = make_clips(8, 1)
    order = new if codes[0] == 0 else new[np.arange(8) ^ 1]
    assert (detector.score_samples(order.values) > 0).all()


def test_three_channels(clips):
    assert small().fit(clips).net_.module_.layers[0].conv.in_channels == 3
    assert small(module__in_channels=1).fit(clips).net_.module_.layers[0].conv.in_channels == 1


def test_classes_of_several_columns(clips):
    """Machines of one section each, which one network tells apart."""
    machine = clips.section.values
    alone = clips.assign_coords(machine=("clip", machine), section=("clip", ["00"] * 16))
    detector = small(["machine", "section"]).fit(alone)
    assert detector.classes_ == [("00", "00"), ("01", "00")]
    np.testing.assert_array_equal(
        detector.score_samples(alone), small().fit(clips).score_samples(clips)
    )


class TestErrors:
    def test_unseen_section(self, learnt, clips):
        unseen = clips.assign_coords(section=("clip", ["00", "07"] * 8))
        with pytest.raises(ValueError, match=r"section 07 was not seen in training.*'00', '01'"):
            learnt.score_samples(unseen)
        missing = clips.assign_coords(section=("clip", np.array(["00", None] * 8, dtype=object)))
        with pytest.raises(ValueError, match="section (None|nan) was not seen"):
            learnt.score_samples(missing)
        with pytest.raises(ValueError, match="'section' has no value for 8 of 16 clips"):
            small().fit(missing)

    def test_no_labels(self, learnt, clips):
        for call in (small().fit, learnt.score_samples):
            with pytest.raises(ValueError, match="target needs the column 'section'.*ndarray"):
                call(clips.values)

    def test_one_class(self, clips):
        with pytest.raises(ValueError, match="Found 1 class, '00', in the target 'section'"):
            small().fit(clips[::2])

    def test_short_clips(self, learnt, clips):
        for call in (small().fit, learnt.score_samples):
            with pytest.raises(ValueError, match="have 11 frames, fewer than one window"):
                call(clips[:, :, :11])

    def test_number_of_bins(self, learnt, clips):
        with pytest.raises(ValueError, match="X has 31 features, .* expecting 32 features"):
            learnt.score_samples(clips[:, :31])
