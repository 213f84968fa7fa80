import pytest
import torch
import torch.nn.functional as F

from sk_asd.networks import Cnn6


@pytest.mark.parametrize(("n_bins", "expected"), [(64, 4_567_104), (1025, 4_569_026)])
def test_parameter_count(n_bins, expected):
    net = Cnn6(n_bins)
    assert sum(p.numel() for p in net.parameters()) == expected  # 4.57 M


@pytest.mark.parametrize("n_bins", [1, 2, 3, 5, 17, 64])
@pytest.mark.parametrize("n_frames", [1, 2, 9, 40])
def test_any_size(n_bins, n_frames):
    net = Cnn6(n_bins, 12, width=0.125)
    x = torch.randn(3, n_bins, n_frames)
    assert net(x).shape == (3, 12)
    net.eval()
    y = net(x)
    assert torch.isfinite(y).all()
    torch.testing.assert_close(y, net(x[:, None]))


def test_equals_the_published_arithmetic():
    """The network of PANNs, written out with functions; theirs has frames before bins."""
    torch.manual_seed(0)
    net = Cnn6(32, width=0.25).eval()
    with torch.no_grad():
        for norm in (net.normalise, *(block[1] for block in net.blocks)):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-1, 1)
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 1.5)

    def norm(x, m):
        return F.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias)

    x = torch.randn(2, 32, 50)
    y = x.transpose(1, 2)[:, None]  # (batch, 1, frames, bins)
    y = norm(y.transpose(1, 3), net.normalise).transpose(1, 3)
    for conv, bn, _ in net.blocks:
        # Their kernels are the transposed ones, since the two axes are exchanged.
        y = torch.relu(norm(F.conv2d(y, conv.weight.transpose(2, 3), padding=2), bn))
        y = F.avg_pool2d(y, kernel_size=(2, 2))
    assert y.shape[2:] == (3, 2)
    y = y.mean(dim=3)
    y = y.max(dim=2)[0] + y.mean(dim=2)
    y = torch.relu(F.linear(y, net.embed.weight, net.embed.bias))
    torch.testing.assert_close(net(x), y, rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    x = torch.randn(4, 16, 20)
    for dropout, same in (((0.2, 0.0), False), ((0.0, 0.5), False), ((0.0, 0.0), True)):
        net = Cnn6(16, width=0.125, dropout=dropout)
        assert torch.allclose(net(x), net(x)) is same
        net.eval()
        assert torch.equal(net(x), net(x))


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    net = Cnn6(16, 8, width=0.125)
    (net(torch.randn(8, 16, 40)) * torch.randn(8, 8)).sum().backward()
    for name, p in net.named_parameters():
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().sum() > 0, name


def test_eval_is_per_sample():
    torch.manual_seed(0)
    net = Cnn6(16, width=0.125)
    x = torch.randn(5, 16, 40)
    net(x)
    net.eval()
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-5)


def test_batch_of_one_in_training_as_documented():
    assert Cnn6(4, 8, width=0.125)(torch.randn(1, 4, 16)).shape == (1, 8)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        Cnn6(4, 8, width=0.125)(torch.randn(1, 4, 1))


def test_width_and_channels():
    net = Cnn6(16, width=0.5, in_channels=2)
    assert [block[0].out_channels for block in net.blocks] == [32, 64, 128, 256]
    assert net(torch.randn(2, 2, 16, 20)).shape == (2, 512)


def test_initialisation():
    torch.manual_seed(0)
    net = Cnn6(16)
    conv = net.blocks[1][0]
    bound = (6 / (25 * (64 + 128))) ** 0.5  # Xavier
    assert conv.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert torch.all(net.embed.bias == 0)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"n_bins": 0}, "n_bins must be above 0"),
        ({"n_bins": 8, "width": -1.0}, "width must be above 0"),
        ({"n_bins": 8, "dropout": (0.2, 1.0)}, r"two rates in \[0, 1\), got \(0.2, 1.0\)"),
        ({"n_bins": 8, "dropout": (0.2,)}, "two rates"),
    ],
)
def test_bad_parameters(params, match):
    with pytest.raises(ValueError, match=match):
        Cnn6(**params)


def test_bad_inputs():
    net = Cnn6(16, width=0.125)
    with pytest.raises(ValueError, match="built for n_bins=16, got inputs of 17 bins"):
        net(torch.zeros(2, 17, 20))
    with pytest.raises(ValueError, match=r"got \(16, 20\)"):
        net(torch.zeros(16, 20))
