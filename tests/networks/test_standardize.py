"""BinStandardizer: its statistics are applied, kept with the weights, and not trained."""

import torch

from sk_asd.networks._standardize import BinStandardizer


def test_standardises_every_bin():
    x = torch.randn(50, 3, 40) * torch.tensor([1.0, 5.0, 0.1])[:, None] + 7
    layer = BinStandardizer(x.mean(dim=(0, 2)), x.std(dim=(0, 2)))
    out = layer(x)
    torch.testing.assert_close(out.mean(dim=(0, 2)), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.std(dim=(0, 2)), torch.ones(3), atol=1e-3, rtol=0)


def test_constant_bins_are_centred_only():
    layer = BinStandardizer(torch.tensor([2.0]), torch.tensor([0.0]))
    torch.testing.assert_close(layer(torch.full((1, 1, 4), 5.0)), torch.full((1, 1, 4), 3.0))


def test_statistics_are_state_and_no_parameters():
    layer = BinStandardizer(torch.zeros(4), torch.ones(4))
    assert list(layer.parameters()) == []
    assert set(layer.state_dict()) == {"mean", "std"}
