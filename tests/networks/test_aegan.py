import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sk_asd.networks._aegan import (
    AdaptiveLayerNorm,
    AEGANDecoder,
    AEGANDiscriminator,
    AEGANEncoder,
    AEGANGenerator,
)


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_parameter_counts():
    assert count(AEGANEncoder()) == 5_390_848
    assert count(AEGANEncoder(first_norm=False)) == 5_128_704
    assert count(AEGANDecoder()) == 5_390_848
    assert count(AEGANGenerator()) == 2 * 5_390_848
    assert count(AEGANGenerator(n_sections=6)) == 2 * 5_390_848 + 2 * 6 * 256
    assert count(AEGANDiscriminator()) == 3_303_425


def shapes(layers, x):
    """Output shape of every convolution on the way of `x`."""
    found = []
    for layer in layers:
        x = layer(x)
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            found.append(tuple(x.shape[1:]))
    return found


def test_layer_tables():
    x = torch.zeros(1, 1, 128, 128)
    down = [(32, 64, 64), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    net = AEGANGenerator()
    assert shapes(net.encoder.blocks, x) == down
    assert net.encoder.project.kernel_size == (4, 4)
    up = [*down[::-1], (1, 128, 128)]
    assert shapes(net.decoder.blocks, torch.zeros(1, 256, 1, 1)) == up
    critic = AEGANDiscriminator()
    assert shapes(critic.blocks, x) == down
    assert critic.embed(x).shape == (1, 512)
    assert critic(x).shape == (1,)
    convolutions = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert all(conv.bias is None for conv in convolutions)


def test_equals_the_arithmetic_written_out():
    torch.manual_seed(0)
    net = AEGANGenerator((32, 64), 16, width=0.25).double()
    x = torch.randn(3, 32, 64).double()
    y = x[:, None]
    for conv, norm, _ in zip(*[iter(net.encoder.blocks)] * 3):
        y = F.conv2d(y, conv.weight, stride=2, padding=1)
        mean, var = y.mean((1, 2, 3), True), y.var((1, 2, 3), unbiased=False, keepdim=True)
        y = F.leaky_relu((y - mean) / (var + 1e-5).sqrt() * norm.weight + norm.bias, 0.2)
    z = torch.einsum("bchw,dchw->bd", y, net.encoder.project.weight)
    torch.testing.assert_close(net.encode(x), z)
    assert net(x).abs().max() <= 1
    torch.testing.assert_close(net(x), net.decode(z))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (12, 20), (33, 61), (64, 32)])
def test_any_size(size):
    x = torch.randn(3, *size)
    net, critic = AEGANGenerator(size, 8, width=0.1), AEGANDiscriminator(size, width=0.1)
    assert net(x).shape == x.shape
    assert torch.isfinite(critic(net(x))).all()


@pytest.mark.parametrize("norm", ["layer", "batch", "instance"])
def test_norms(norm):
    kind = {"layer": nn.LayerNorm, "batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}[norm]
    net = AEGANGenerator(norm=norm, width=0.1)
    assert sum(isinstance(m, kind) for m in net.modules()) == 10
    assert (
        sum(isinstance(m, kind) for m in AEGANEncoder(norm=norm, first_norm=False).modules()) == 4
    )
    x = torch.randn(4, 128, 128)
    alone = torch.allclose(net(x)[:2], net(x[:2]), atol=1e-4)
    assert alone is (norm != "batch")


def test_initialisation():
    torch.manual_seed(0)
    net = AEGANGenerator(norm="batch")
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            assert m.weight.std().item() == pytest.approx(0.02, rel=0.1)
    scales = torch.cat([m.weight for m in net.modules() if isinstance(m, nn.BatchNorm2d)])
    assert scales.mean().item() == pytest.approx(1, abs=0.002)
    assert scales.std().item() == pytest.approx(0.02, rel=0.1)


class TestAdaptiveLayerNorm:
    @pytest.fixture
    def layer(self):
        layer = AdaptiveLayerNorm(3, 2)
        with torch.no_grad():
            layer.scale.copy_(torch.tensor([[1.0, 1, 1], [3, 5, 7]]))
            layer.shift.copy_(torch.tensor([[0.0, 0, 0], [10, 20, 30]]))
        return layer

    def test_by_hand(self, layer):
        z = torch.tensor([[1.0, 2.0, 3.0]] * 3)
        unit = 1.5**0.5  # of a uniform grid of three points
        rows = [
            [-unit, 0, unit],
            [10 - 3 * unit, 20, 30 + 7 * unit],
            [5 - 2 * unit, 10, 15 + 4 * unit],
        ]
        y = layer(z, torch.tensor([0, 1, -1]))
        torch.testing.assert_close(y, torch.tensor(rows), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(layer(z)[0], y[2])

    def test_starts_without_any_style(self):
        z = torch.randn(4, 8)
        y = AdaptiveLayerNorm(8, 5)(z, torch.tensor([0, 4, 2, -1]))
        torch.testing.assert_close(y, F.layer_norm(z, (8,)))

    def test_styles_learn_from_their_sections_alone(self, layer):
        layer(torch.randn(4, 3), torch.ones(4, dtype=int)).square().sum().backward()
        assert torch.all(layer.scale.grad[0] == 0)
        assert torch.all(layer.scale.grad[1] != 0)

    def test_in_the_generator(self):
        torch.manual_seed(0)
        net = AEGANGenerator((16, 16), 8, width=0.1, n_sections=2)
        x = torch.randn(1, 16, 16).expand(2, -1, -1)
        with torch.no_grad():
            net.style.shift[1] += 5
        first, second = net(x, torch.tensor([0, 1]))
        assert not torch.allclose(first, second)
        torch.testing.assert_close(*net.encode(x))


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"latent_dim": 0}, "latent_dim must be above 0"),
        ({"width": -1.0}, "width must be above 0"),
        ({"norm": "group"}, r"norm must be one of \('layer', 'batch', 'instance'\), got 'group'"),
        ({"size": (128,)}, r"size must be \(bins, frames\).*\(128,\)"),
        ({"size": (16, 16), "norm": "instance"}, "norm='instance' needs maps of several places"),
        ({"n_sections": 0}, "n_sections must be above 0"),
    ],
)
def test_bad_parameters(params, match):
    with pytest.raises(ValueError, match=match):
        AEGANGenerator(**params)


def test_bad_inputs():
    for net in (AEGANGenerator((16, 32), width=0.1), AEGANDiscriminator((16, 32), width=0.1)):
        with pytest.raises(ValueError, match=r"windows of \(16, 32\).*got \(16, 31\)"):
            net(torch.zeros(2, 16, 31))
