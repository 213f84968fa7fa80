import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sk_asd.networks._mobilenetv2 import MobileNetV2


def count(net):
    trained = sum(p.numel() for p in net.parameters())
    return trained, trained + sum(b.numel() for n, b in net.named_buffers() if "running" in n)


def test_published_parameter_counts():
    """Those that Keras gives for its MobileNetV2, running statistics included."""
    assert count(MobileNetV2(in_channels=3)) == (687_680, 706_224)
    assert count(MobileNetV2(1000, in_channels=3)) == (1_968_680, 1_987_224)
    assert count(MobileNetV2(1000, width=1.0, in_channels=3))[1] == 3_538_984
    assert count(MobileNetV2(1000, width=1.4, in_channels=3))[1] == 6_156_712
    assert count(MobileNetV2())[0] == 687_680 - 2 * 16 * 9


def test_repeated_channels():
    torch.manual_seed(0)
    net = MobileNetV2(3, width=0.1, in_channels=3).eval()
    x = torch.randn(2, 16, 20)
    torch.testing.assert_close(net(x), net(torch.stack([x] * 3, dim=1)))


def test_maps():
    net = MobileNetV2(width=0.1).eval()
    x = torch.zeros(1, 1, 128, 64)
    found = []
    for layer in net.layers:
        x = layer(x)
        if not found or found[-1] != tuple(x.shape[2:]):
            found.append(tuple(x.shape[2:]))
    assert found == [(64, 32), (32, 16), (16, 8), (8, 4), (4, 2)]
    assert net(torch.zeros(2, 128, 64)).shape == (2, 1280)


@pytest.mark.parametrize(("n", "before"), [(6, 0), (7, 1)])
def test_strides_pad_as_keras_does(n, before):
    """TensorFlow's "same": what is odd in the padding goes behind."""
    torch.manual_seed(0)
    conv = MobileNetV2(width=0.1).layers[0]
    x = torch.randn(1, 1, n, n)
    padded = F.pad(x, (before, 1, before, 1))
    expected = F.relu6(conv.norm.eval()(F.conv2d(padded, conv.conv.weight, stride=2)))
    torch.testing.assert_close(conv.eval()(x), expected)
    assert expected.shape[2] == -(-n // 2)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (5, 3), (12, 20)])
def test_any_size(size):
    net = MobileNetV2(3, width=0.1)
    x = torch.randn(4, *size)
    assert net(x).shape == (4, 3)
    net.eval()
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-5)


def test_batch_norm():
    norms = [m for m in MobileNetV2(width=0.1).modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.01)}
    quick = MobileNetV2(width=0.1, momentum=0.1)
    assert {m.momentum for m in quick.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_errors():
    for name in ("width", "in_channels", "momentum", "n_classes"):
        with pytest.raises(ValueError, match=f"{name} must be above 0"):
            MobileNetV2(**{name: 0})
    with pytest.raises(ValueError, match=r"got \(16, 20\)"):
        MobileNetV2(width=0.1)(torch.zeros(16, 20))
