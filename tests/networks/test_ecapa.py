import copy

import pytest
import torch
import torch.nn.functional as F

from sk_asd.networks import ECAPATDNN
from sk_asd.networks._ecapa import _AttentiveStatistics


def n_parameters(net):
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def count_by_hand(n_bins, c, attention):
    """Weights and biases layer by layer, each batch normalisation with two numbers a channel."""
    stem = n_bins * c * 5 + c + 2 * c
    group = c // 8
    res2 = 7 * (group * group * 3 + group + 2 * group)
    se = (c * 128 + 128) + (128 * c + c)
    block = 2 * (c * c + c + 2 * c) + res2 + se
    aggregate = 3 * c * 1536 + 1536
    attend = (3 * 1536 * attention + attention + 2 * attention) + (attention * 1536 + 1536)
    embed = 2 * 3072 + (3072 * 192 + 192) + 2 * 192
    return stem + 3 * block + aggregate + attend + embed


@pytest.mark.parametrize(
    ("n_bins", "channels", "attention", "expected"),
    [
        (80, 512, 128, 6_191_360),  # 6.2 M in the paper
        (80, 1024, 128, 14_657_728),  # 14.7 M in the paper
        (64, 512, 128, 6_150_400),
        (80, 512, 256, 6_978_176),
        (80, 1024, 256, 15_444_544),
    ],
)
def test_parameter_count(n_bins, channels, attention, expected):
    with torch.device("meta"):
        net = ECAPATDNN(n_bins, channels=channels, attention_channels=attention)
    assert n_parameters(net) == expected == count_by_hand(n_bins, channels, attention)
    assert f"{expected:,}" in ECAPATDNN.__doc__


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 1), (8, 2), (64, 50)])
def test_any_size(size):
    net = ECAPATDNN(size[0], 12, width=0.0625)
    x = torch.randn(3, *size)
    y = net(x)
    y.sum().backward()
    assert y.shape == (3, 12)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    net.eval()
    assert torch.isfinite(net(x)).all()
    torch.testing.assert_close(net(x), net(x[:, None]))


def test_equals_the_published_arithmetic():
    """The network written out with functions."""
    torch.manual_seed(0)
    net = ECAPATDNN(10, 6, width=0.125).double().eval()
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, torch.nn.BatchNorm1d):
                m.weight.uniform_(0.5, 1.5)
                m.bias.uniform_(-1, 1)
                m.running_mean.uniform_(-1, 1)
                m.running_var.uniform_(0.5, 1.5)

    def norm(x, m):
        return F.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias)

    def conv(x, layers, dilation=1):
        c = layers[0]
        padding = dilation * (c.weight.shape[2] // 2)
        y = F.conv1d(x, c.weight, c.bias, padding=padding, dilation=dilation)
        return norm(torch.relu(y), layers[2])

    def block(x, layers, dilation):
        first, res2, second, se = layers
        y = conv(x, first)
        group = y.shape[1] // 8
        part = [y[:, i * group : (i + 1) * group] for i in range(8)]
        last = 0
        for i in range(7):
            part[i] = last = conv(part[i] + last, res2.convs[i], dilation)
        y = conv(torch.cat(part, 1), second)
        down, up = se.gate[0], se.gate[2]
        gate = F.linear(y.mean(2), down.weight, down.bias).relu()
        gate = F.linear(gate, up.weight, up.bias).sigmoid()
        return x + y * gate[:, :, None]

    x = torch.randn(2, 10, 31).double()
    y = conv(x, net.stem)
    y1 = block(y, net.blocks[0], 2)
    y2 = block(y + y1, net.blocks[1], 3)
    y3 = block(y + y1 + y2, net.blocks[2], 4)
    last = net.aggregate[0]
    y = F.conv1d(torch.cat([y1, y2, y3], 1), last.weight, last.bias).relu()
    frames = y.shape[2]
    mean, std = y.mean(2, keepdim=True), y.var(2, keepdim=True, correction=0).clamp(1e-4).sqrt()
    context = torch.cat([y, mean.repeat(1, 1, frames), std.repeat(1, 1, frames)], 1)
    attention = net.pool.attention
    w = attention[2](torch.tanh(conv(context, attention[0]))).softmax(2)
    mean = (w * y).sum(2)
    std = ((w * y**2).sum(2) - mean**2).clamp(1e-4).sqrt()
    y = norm(torch.cat([mean, std], 1), net.embed[0])
    y = norm(F.linear(y, net.embed[1].weight, net.embed[1].bias), net.embed[2])
    torch.testing.assert_close(net(x), y)


def test_statistics_against_a_naive_loop():
    torch.manual_seed(0)
    pool = _AttentiveStatistics(3, 4).double().eval()
    x = torch.randn(2, 3, 7).double()
    x[0, 1] = 5.0  # constant: the least variance
    plain = [x.mean(2, keepdim=True), x.std(2, keepdim=True, correction=0).clamp(min=0.01)]
    scores = pool.attention(torch.cat([x, *(s.repeat(1, 1, 7) for s in plain)], 1)).detach()
    expected = torch.empty(2, 6).double()
    for b in range(2):
        for c in range(3):
            w = [torch.exp(scores[b, c, t]).item() for t in range(7)]
            w = [v / sum(w) for v in w]
            mean = sum(w[t] * x[b, c, t].item() for t in range(7))
            var = sum(w[t] * (x[b, c, t].item() - mean) ** 2 for t in range(7))
            expected[b, c], expected[b, 3 + c] = mean, max(var, 1e-4) ** 0.5
    torch.testing.assert_close(pool(x), expected)
    assert expected[0, 4] == pytest.approx(0.01)


def test_even_attention_gives_plain_statistics():
    pool = _AttentiveStatistics(5, 4).eval()
    torch.nn.init.zeros_(pool.attention[2].weight)
    x = torch.randn(2, 5, 30) + 100
    torch.testing.assert_close(pool(x), torch.cat([x.mean(2), x.std(2, correction=0)], 1))


def test_the_order_of_frames_matters_before_the_statistics_alone():
    torch.manual_seed(0)
    net = ECAPATDNN(6, width=0.0625).eval()
    x, order = torch.randn(2, 6, 20), torch.randperm(20)
    assert not torch.allclose(net(x), net(x[:, :, order]), atol=1e-3)
    y = torch.randn(2, 96, 20)
    torch.testing.assert_close(net.pool(y), net.pool(y[:, :, order]), rtol=1e-4, atol=1e-5)


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    net = ECAPATDNN(16, 8, width=0.0625)
    (net(torch.randn(8, 16, 30)) * torch.randn(8, 8)).sum().backward()
    for name, p in net.named_parameters():
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().sum() > 0, name


def test_eval_is_per_sample_and_leaves_the_statistics_alone():
    torch.manual_seed(0)
    net = ECAPATDNN(16, width=0.125)
    x = torch.randn(5, 16, 40)
    before = copy.deepcopy(net.state_dict())
    net(x)
    changed = {k for k, v in net.state_dict().items() if (before[k] != v).any()}
    assert changed == {k for k in before if k.rsplit(".", 1)[1] not in ("weight", "bias")}
    net.eval()
    before = copy.deepcopy(net.state_dict())
    y = net(x)
    assert torch.equal(y, net(x))
    torch.testing.assert_close(y[2:3], net(x[2:3]), rtol=1e-4, atol=1e-5)
    assert all((before[k] == v).all() for k, v in net.state_dict().items())


def test_batch_of_one_in_training_raises_as_documented():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ECAPATDNN(4, width=0.0625)(torch.randn(1, 4, 30))


@pytest.mark.parametrize(
    ("channels", "width", "blocks", "last", "attention", "se"),
    [
        (512, 1.0, 512, 1536, 128, 128),
        (512, 0.25, 128, 384, 32, 32),
        (500, 0.3, 152, 464, 40, 40),
        (512, 0.001, 8, 8, 8, 8),
    ],
)
def test_width_multiplies_channels_to_multiples_of_8(channels, width, blocks, last, attention, se):
    with torch.device("meta"):
        net = ECAPATDNN(16, channels=channels, width=width)
    assert net.stem[0].out_channels == blocks
    assert net.blocks[2][1].convs[0][0].in_channels == blocks // 8
    assert net.blocks[0][3].gate[0].out_features == se
    assert net.aggregate[0].out_channels == last
    assert net.pool.attention[0][0].out_channels == attention
    assert net.embed[1].out_features == 192


def test_dilations():
    net = ECAPATDNN(4, width=0.0625)
    assert [b[1].convs[0][0].dilation for b in net.blocks] == [(2,), (3,), (4,)]


def test_same_seed_same_network():
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(ECAPATDNN(6, width=0.0625).eval())
    x = torch.randn(2, 6, 30)
    assert torch.equal(nets[0](x), nets[1](x))


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"n_bins": 0}, "n_bins must be above 0"),
        ({"embedding_dim": 0}, "embedding_dim must be above 0"),
        ({"channels": -8}, "channels must be above 0, got -8"),
        ({"width": 0}, "width must be above 0, got 0"),
        ({"attention_channels": 0}, "attention_channels must be above 0"),
    ],
)
def test_bad_parameters(params, match):
    with pytest.raises(ValueError, match=match):
        ECAPATDNN(**{"n_bins": 8, **params})


def test_bad_inputs():
    net = ECAPATDNN(16, width=0.0625)
    with pytest.raises(ValueError, match="built for n_bins=16, got inputs of 17 bins"):
        net(torch.zeros(2, 17, 20))
    with pytest.raises(ValueError, match=r"got \(16, 20\)"):
        net(torch.zeros(16, 20))
    with pytest.raises(ValueError, match="at least one bin and one frame"):
        net(torch.zeros(2, 16, 0))
