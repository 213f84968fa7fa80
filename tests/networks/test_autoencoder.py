from itertools import pairwise

import pytest
import torch
from torch import nn

from sk_asd.networks._autoencoder import AutoEncoder


def test_published_parameter_count():
    net = AutoEncoder()
    trained = sum(p.numel() for p in net.parameters())
    running = sum(b.numel() for name, b in net.named_buffers() if "running" in name)
    assert (trained, trained + running) == (267_928, 269_992)


def test_layers():
    linear = [m for m in AutoEncoder().modules() if isinstance(m, nn.Linear)]
    widths = [640, *[128] * 4, 8, *[128] * 4, 640]
    assert [(m.in_features, m.out_features) for m in linear] == list(pairwise(widths))
    norms = [m for m in AutoEncoder().modules() if isinstance(m, nn.BatchNorm1d)]
    assert [m.num_features for m in norms] == widths[1:-1]
    assert isinstance(AutoEncoder().layers[-1], nn.Linear)


def test_shape_is_kept():
    torch.manual_seed(0)
    net = AutoEncoder(12, 2, width=8, depth=1).eval()
    x = torch.randn(3, 4, 3)
    assert net(x).shape == (3, 4, 3)
    torch.testing.assert_close(net(x).flatten(1), net(x.flatten(1)))
    assert len([m for m in net.modules() if isinstance(m, nn.Linear)]) == 4


def test_errors():
    with pytest.raises(ValueError, match="latent_dim must be above 0"):
        AutoEncoder(12, 0)
    with pytest.raises(ValueError, match=r"built for 12 values, got inputs of shape \(3, 4, 4\)"):
        AutoEncoder(12)(torch.zeros(3, 4, 4))
