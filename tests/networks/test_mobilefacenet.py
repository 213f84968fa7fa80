import copy
import math

import pytest
import torch
from torch import nn

from sk_asd.networks import MFNSE, MobileFaceNet
from sk_asd.networks._prelu import PReLU


def n_parameters(net):
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("cls", "setting", "size", "channels", "expected"),
    [
        (MobileFaceNet, "paper", (112, 96), 3, 999_552),  # 0.99 M in the paper
        (MobileFaceNet, "paper", (1025, 192), 1, 1_376_256),
        (MobileFaceNet, "paper", (128, 192), 1, 1_026_048),
        (MobileFaceNet, "cqupt", (1025, 192), 1, 1_187_200),
        (MobileFaceNet, "cqupt", (128, 192), 1, 836_992),
        (MobileFaceNet, "aithu", (1025, 192), 1, 1_078_272),
        (MobileFaceNet, "aithu", (128, 192), 1, 989_184),
        (MFNSE, "paper", (1025, 192), 1, 1_400_996),
        (MFNSE, "paper", (128, 192), 1, 1_050_788),
        (MFNSE, "cqupt", (1025, 192), 1, 1_200_304),
        (MFNSE, "cqupt", (128, 192), 1, 850_096),
        (MFNSE, "aithu", (1025, 192), 1, 1_103_012),
        (MFNSE, "aithu", (128, 192), 1, 1_013_924),
    ],
)
def test_parameter_count(cls, setting, size, channels, expected):
    net = cls(setting=setting, input_size=size, in_channels=channels)
    assert n_parameters(net) == expected
    assert f"{expected:,}" in MobileFaceNet.__doc__


@pytest.mark.parametrize(
    ("setting", "size", "kernel"),
    [
        ("paper", (1025, 192), (65, 12)),
        ("paper", (128, 192), (8, 12)),
        ("cqupt", (1025, 192), (65, 12)),
        ("paper", (112, 96), (7, 6)),
        ("aithu", (33, 1), (2, 1)),
    ],
)
def test_global_depthwise_kernel_is_the_last_map(setting, size, kernel):
    net = MobileFaceNet(setting=setting, input_size=size, width=0.125).eval()
    assert net.global_depthwise[0].kernel_size == kernel
    assert net.global_depthwise[0].groups == net.global_depthwise[0].out_channels
    x = torch.zeros(1, *size)
    assert net.expand(net.blocks(net.stem(x[:, None]))).shape[2:] == kernel
    assert net(x).shape == (1, 128)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (64, 313), (129, 33)])
@pytest.mark.parametrize("fixed", [True, False])
def test_any_input_size(size, fixed):
    net = MobileFaceNet(24, input_size=size if fixed else None, width=0.125)
    x = torch.randn(3, *size)
    assert net(x).shape == (3, 24)
    net.eval()
    torch.testing.assert_close(net(x), net(x[:, None]))
    assert net(x[:1]).shape == (1, 24)


def test_without_input_size_takes_varying_sizes():
    net = MobileFaceNet(width=0.125).eval()
    assert net(torch.zeros(2, 40, 50)).shape == net(torch.zeros(2, 60, 31)).shape == (2, 128)


def test_channels():
    net = MobileFaceNet(input_size=(32, 32), width=0.125, in_channels=2)
    assert net(torch.randn(2, 2, 32, 32)).shape == (2, 128)
    with pytest.raises(ValueError, match=r"\(batch, 2, bins, frames\).*got \(2, 32, 32\)"):
        net(torch.randn(2, 32, 32))


@pytest.mark.parametrize(
    ("width", "stem", "last"), [(1.0, 64, 512), (0.5, 32, 256), (0.3, 16, 152), (0.01, 8, 8)]
)
def test_width_multiplies_channels_to_multiples_of_8(width, stem, last):
    net = MobileFaceNet(width=width)
    assert net.stem[0][0].out_channels == stem
    assert net.expand[0].out_channels == last
    assert net.embed[0].out_channels == 128


def test_own_rows_and_skips():
    net = MobileFaceNet(setting=[(2, 64, 2, 1), (3, 128, 1, 2)])
    first, second, third = net.blocks
    assert first.skip
    assert second.skip
    assert not third.skip
    assert third.layers[0][0].out_channels == 64 * 3
    assert third.layers[1][0].stride == (2, 2)
    x = torch.randn(1, 64, 4, 4)
    net.eval()
    torch.testing.assert_close(first(x), x + first.layers(x))


def test_initialisation_follows_the_original():
    torch.manual_seed(0)
    net = MobileFaceNet(setting="paper", input_size=(128, 192))
    for conv in (net.blocks[0].layers[0][0], net.blocks[0].layers[1][0], net.global_depthwise[0]):
        std = math.sqrt(2 / (math.prod(conv.kernel_size) * conv.out_channels))
        assert conv.weight.std().item() == pytest.approx(std, rel=0.08)
        assert conv.weight.mean().item() == pytest.approx(0, abs=0.08 * std)
    norm = net.stem[0][1]
    assert torch.all(norm.weight == 1)
    assert torch.all(norm.bias == 0)


@pytest.mark.parametrize(("where", "index", "channels"), [("output", 3, 64), ("depthwise", 2, 128)])
def test_squeeze_excitation_place_and_arithmetic(where, index, channels):
    net = MFNSE(squeeze_excitation=where)
    block = net.blocks[0]
    se = block.layers[index]
    down, _, up, _ = se.gate
    assert (down.in_features, down.out_features) == (channels, channels // 16)
    assert len(block.layers) == 4
    x = torch.randn(2, channels, 3, 5)
    gate = torch.sigmoid(up(torch.relu(down(x.mean((2, 3))))))
    torch.testing.assert_close(se(x), torch.einsum("ncij,nc->ncij", x, gate))


def test_mfnse_is_mobilefacenet_with_squeeze_excitation():
    torch.manual_seed(0)
    a = MFNSE(width=0.125).eval()
    b = MobileFaceNet(width=0.125, squeeze_excitation="output").eval()
    b.load_state_dict(a.state_dict())
    x = torch.randn(2, 40, 40)
    torch.testing.assert_close(a(x), b(x))


@pytest.mark.parametrize("se", [None, "output", "depthwise"])
def test_every_parameter_gets_a_gradient(se):
    torch.manual_seed(0)
    net = MobileFaceNet(8, input_size=(33, 20), width=0.25, squeeze_excitation=se)
    target = torch.randn(6, 8)
    (net(torch.randn(6, 33, 20)) * target).sum().backward()
    for name, p in net.named_parameters():
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().sum() > 0, name


def test_eval_is_per_sample_and_leaves_the_statistics_alone():
    torch.manual_seed(0)
    net = MobileFaceNet(width=0.125)
    x = torch.randn(5, 40, 40)
    before = copy.deepcopy(net.state_dict())
    net(x)
    assert any((before[k] != v).any() for k, v in net.state_dict().items())
    net.eval()
    before = copy.deepcopy(net.state_dict())
    y = net(x)
    torch.testing.assert_close(y[2:3], net(x[2:3]), rtol=1e-4, atol=1e-5)
    assert all((before[k] == v).all() for k, v in net.state_dict().items())


def test_batch_of_one_in_training_raises_as_documented():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        MobileFaceNet(width=0.125)(torch.randn(1, 40, 40))


def test_same_seed_same_network():
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(MobileFaceNet(width=0.125).eval())
    x = torch.randn(2, 30, 30)
    assert torch.equal(nets[0](x), nets[1](x))


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"setting": "large"}, "setting must be one of .*'paper'.*got 'large'"),
        ({"setting": [(2, 64, 5)]}, "rows of 4 integers"),
        ({"setting": []}, "rows of 4 integers"),
        ({"setting": 3}, "rows of 4 integers"),
        ({"width": 0}, "width must be above 0, got 0"),
        ({"embedding_dim": -1}, "embedding_dim must be above 0"),
        ({"squeeze_excitation": "input"}, "squeeze_excitation must be.*got 'input'"),
        ({"input_size": (128,)}, r"input_size must be \(bins, frames\)"),
        ({"input_size": (0, 3)}, "input_size must be"),
    ],
)
def test_bad_parameters(params, match):
    with pytest.raises(ValueError, match=match):
        MobileFaceNet(**params)


def test_bad_inputs():
    net = MobileFaceNet(input_size=(32, 40), width=0.125)
    with pytest.raises(
        ValueError, match=r"built for input_size=\(32, 40\), got inputs of \(40, 32\)"
    ):
        net(torch.zeros(2, 40, 32))
    with pytest.raises(ValueError, match=r"got \(32, 40\)"):
        net(torch.zeros(32, 40))
    with pytest.raises(ValueError, match="at least one bin and one frame"):
        net(torch.zeros(2, 0, 40))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_prelu_equals_torch(layout):
    torch.manual_seed(0)
    ours, theirs = PReLU(3), nn.PReLU(3)
    with torch.no_grad():
        slopes = torch.tensor([0.25, -0.5, 2.0])
        ours.weight.copy_(slopes)
        theirs.weight.copy_(slopes)
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=layout)
    x[0, 0, 0] = 0.0
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    weight = torch.randn(2, 3, 4, 5)
    (ours(a) * weight).sum().backward()
    (theirs(b) * weight).sum().backward()
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(a.grad, b.grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    ours.eval()
    assert torch.equal(ours(x), theirs(x))
