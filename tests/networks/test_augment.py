import numpy as np
import pytest
import torch

from sk_asd.networks import SpecAugment, mixup
from sk_asd.utils._random import RandomStream


def runs(row):
    """Lengths of the runs of True."""
    edges = torch.cat([row.new_zeros(1), row, row.new_zeros(1)]).int().diff()
    return ((edges == -1).nonzero() - (edges == 1).nonzero()).flatten().tolist()


def masked(augment, n, n_bins, n_frames):
    x = torch.rand(n, n_bins, n_frames) + 1
    y = augment(x)
    changed = y != x
    assert (y[changed] == -7).all()
    return changed


def test_a_time_mask_is_one_band_over_all_bins():
    torch.manual_seed(0)
    augment = SpecAugment(1, 6, 0, fill=-7.0)
    changed = masked(augment, 3000, 4, 20)
    assert (changed == changed[:, :1]).all()
    found = [runs(row) for row in changed[:, 0]]
    assert max(len(r) for r in found) == 1
    widths = torch.tensor([sum(r) for r in found])
    # Uniform from 0 to 6, both included.
    frequency = torch.bincount(widths, minlength=7) / 3000
    assert len(frequency) == 7
    torch.testing.assert_close(frequency, torch.full((7,), 1 / 7), rtol=0, atol=0.03)
    # A mask as wide as 6 has 15 places, each as likely as the others.
    starts = changed[widths == 6, 0].int().argmax(1)
    frequency = torch.bincount(starts, minlength=15) / len(starts)
    assert len(frequency) == 15
    torch.testing.assert_close(frequency, torch.full((15,), 1 / 15), rtol=0, atol=0.05)


def test_a_frequency_mask_is_one_band_over_all_frames():
    torch.manual_seed(0)
    changed = masked(SpecAugment(0, 1, 1, 5, fill=-7.0), 300, 12, 3)
    assert (changed == changed[:, :, :1]).all()
    found = [runs(row) for row in changed[:, :, 0]]
    assert max(len(r) for r in found) == 1
    assert {sum(r) for r in found} == {0, 1, 2, 3, 4, 5}


def test_fractions_are_of_the_axis_rounded_down():
    torch.manual_seed(0)
    changed = masked(SpecAugment(1, 0.25, 1, 0.5, fill=-7.0), 500, 9, 30)
    frames, bins = changed.all(1), changed.all(2)
    assert frames.sum(1).max() == 7
    assert bins.sum(1).max() == 4
    assert torch.equal(changed, frames[:, None, :] | bins[:, :, None])


def test_numbers_of_numpy_mean_the_same():
    x = torch.rand(50, 8, 40)
    for size in (np.int64(4), np.float64(0.1), np.float32(0.1)):
        torch.manual_seed(0)
        y = SpecAugment(2, size)(x)
        torch.manual_seed(0)
        assert torch.equal(y, SpecAugment(2, 4)(x))


def test_whole_axis_and_nothing():
    torch.manual_seed(0)
    widths = masked(SpecAugment(1, 1.0, 0, fill=-7.0), 200, 1, 3).sum(2).flatten()
    assert set(widths.tolist()) == {0, 1, 2, 3}
    x = torch.randn(5, 4, 3)
    assert torch.equal(SpecAugment(0, 1, 0, 1)(x), x)
    assert torch.equal(SpecAugment(2, 0.1, 2, 0.1)(x), x)  # a tenth of 3 or 4 is less than one


def test_expected_share_of_masked_frames():
    """A frame under a mask with chance p stays clear of two masks with chance (1 - p)^2."""
    torch.manual_seed(0)
    share = masked(SpecAugment(2, 10, 0, fill=-7.0), 4000, 1, 100).float().mean().item()
    # Places near the ends are covered less often: average the chance over places.
    covered = torch.zeros(100, dtype=torch.float64)
    for width in range(11):
        for start in range(100 - width + 1):
            covered[start : start + width] += 1 / 11 / (100 - width + 1)
    assert share == pytest.approx((1 - (1 - covered) ** 2).mean().item(), abs=0.003)


def test_fill_with_the_mean_of_each_window():
    torch.manual_seed(0)
    x = torch.randn(50, 2, 8, 10) + torch.arange(50.0)[:, None, None, None]
    y = SpecAugment(1, 5, 1, 5)(x)
    changed = x != y
    assert torch.equal(changed[:, 0], changed[:, 1])  # channels share the masks
    assert changed.any()
    assert not changed.all()
    expected = x.mean((1, 2, 3), keepdim=True).expand_as(x)
    assert torch.equal(y[changed], expected[changed])


def test_does_nothing_in_eval_mode_and_leaves_the_input_alone():
    x = torch.randn(8, 6, 10)
    before = x.clone()
    augment = SpecAugment(2, 0.5, 2, 0.5)
    y = augment(x)
    assert torch.equal(x, before)
    assert not torch.equal(x, y)
    augment.eval()
    state = torch.get_rng_state()
    assert augment(x) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_same_seed_same_masks_and_windows_differ():
    x = torch.randn(8, 16, 20)
    augment = SpecAugment(2, 0.5, 2, 0.5, fill=0.0)
    outputs = []
    for _ in range(2):
        stream = RandomStream(3)
        with stream.active():
            outputs.append(augment(x))
    assert torch.equal(*outputs)
    torch.rand(1)
    with stream.active():
        assert not torch.equal(augment(x), outputs[0])
    patterns = {tuple((row == 0).flatten().tolist()) for row in outputs[0]}
    assert len(patterns) == 8


def test_masked_places_get_no_gradient():
    torch.manual_seed(0)
    x = torch.randn(4, 8, 10, requires_grad=True)
    y = SpecAugment(1, 0.5, 1, 0.5, fill=0.0)(x)
    y.sum().backward()
    assert torch.equal(x.grad, (y != 0).float())


def test_representation():
    assert repr(SpecAugment(1, 0.2, fill=0.0)) == (
        "SpecAugment(n_time_masks=1, max_time=0.2, n_frequency_masks=2, max_frequency=0.1, "
        "fill=0.0)"
    )


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"n_time_masks": -1}, "n_time_masks must be an integer from 0 on, got -1"),
        ({"n_frequency_masks": 1.5}, "n_frequency_masks must be an integer from 0 on, got 1.5"),
        ({"max_time": 0}, r"max_time must be a float in \(0, 1\] or an integer.*got 0"),
        ({"max_time": 1.5}, "max_time must be .*got 1.5"),
        ({"max_frequency": 0.0}, "max_frequency must be .*got 0.0"),
        ({"max_frequency": "all"}, "max_frequency must be .*got 'all'"),
        ({"fill": "median"}, "fill must be 'mean' or a finite number, got 'median'"),
        ({"fill": float("nan")}, "fill must be .*got nan"),
    ],
)
def test_bad_parameters(params, match):
    with pytest.raises(ValueError, match=match):
        SpecAugment(**params)


def test_bad_inputs():
    with pytest.raises(ValueError, match="max_time=11 is more than the 10 frames"):
        SpecAugment(1, 11)(torch.zeros(2, 4, 10))
    with pytest.raises(ValueError, match="max_frequency=5 is more than the 4 bins"):
        SpecAugment(1, 1, 1, 5)(torch.zeros(2, 4, 10))
    with pytest.raises(ValueError, match=r"\(batch, bins, frames\).*got \(4, 10\)"):
        SpecAugment()(torch.zeros(4, 10))


def test_mixup_blends_windows_and_targets_alike():
    torch.manual_seed(0)
    x = torch.randn(30, 4, 5)
    y, p = mixup(x, torch.eye(30))
    # With a class for each window, the targets are the weights of the windows.
    torch.testing.assert_close(y, torch.einsum("ij,jbf->ibf", p, x))
    torch.testing.assert_close(p.sum(1), torch.ones(30))
    assert ((p > 0).sum(1) <= 2).all()
    assert (p.sum(0) > 0).all()
    # Everyone is a partner once: beside the diagonal there is one weight a column.
    assert ((p - p.diag().diag() > 0).sum(0) <= 1).all()


@pytest.mark.parametrize("alpha", [0.2, 1, 4.0])
def test_weights_are_beta(alpha):
    torch.manual_seed(0)
    _, p = mixup(torch.zeros(4000, 1), torch.eye(4000), alpha)
    weights = p.diag()
    assert weights.mean().item() == pytest.approx(0.5, abs=0.03)
    assert weights.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


def test_mixup_draws_from_the_global_generator():
    x, p = torch.randn(6, 3), torch.eye(6)
    outputs = []
    for _ in range(2):
        with RandomStream(5).active():
            outputs.append(mixup(x, p))
    assert all(torch.equal(a, b) for a, b in zip(*outputs))
    assert not torch.equal(mixup(x, p)[0], outputs[0][0])


def test_mixup_keeps_types_and_its_input():
    x, p = torch.randn(6, 3, dtype=torch.float64), torch.eye(6)
    before = x.clone()
    y, q = mixup(x, p)
    assert (y.dtype, q.dtype) == (torch.float64, torch.float32)
    assert torch.equal(x, before)
    one = mixup(x[:1], p[:1])
    torch.testing.assert_close(one[0], x[:1])


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_bad_alpha(alpha):
    with pytest.raises(ValueError, match="alpha must be a number above 0, got"):
        mixup(torch.zeros(2, 3), torch.eye(2), alpha)


@pytest.mark.parametrize(
    "target", [torch.tensor([0, 1]), torch.eye(3), torch.eye(2).long(), torch.zeros(2)]
)
def test_bad_mixup_target(target):
    with pytest.raises(ValueError, match=r"probabilities of shape \(2, n_classes\), got torch"):
        mixup(torch.zeros(2, 3), target)
