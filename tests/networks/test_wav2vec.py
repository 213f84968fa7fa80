"""wav2vec (first version): published sizes, causality, the loss against a plain loop."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sk_asd.networks import Wav2Vec1


def count(module):
    return sum(p.numel() for p in module.parameters())


def small(**params):
    return Wav2Vec1(
        **{
            "channels": 6,
            "encoder": [(4, 2), (3, 1)],
            "aggregator": [2, 3],
            "n_steps": 3,
            **params,
        }
    )


def test_published_sizes():
    with torch.device("meta"):
        net = Wav2Vec1()
    assert count(net.encoder) == 5_779_456  # 5.78 M
    assert count(net.aggregator) == 23_611_392  # 23.61 M
    assert count(net.predictor) == 3_146_240  # 3.15 M
    assert (net.receptive_field, net.hop_length, net.offset) == (465, 160, 3)
    assert net.n_frames(160000) == 998
    assert sum(layer.padding for layer in net.aggregator) + 1 == 79
    encoded, context = net(torch.empty(1, 160000, device="meta"))
    assert encoded.shape == context.shape == (1, 512, 998)


@pytest.mark.parametrize("n_samples", [465, 466, 624, 625, 3000])
def test_number_of_frames(n_samples):
    net = Wav2Vec1(4)
    encoded, context = net(torch.randn(2, n_samples))
    assert encoded.shape == context.shape == (2, 4, net.n_frames(n_samples))


def test_receptive_field_is_that_of_the_arithmetic():
    """A frame's gradient reaches as many samples as the attribute says, once nothing averages."""
    net = Wav2Vec1(4)
    for layer in net.encoder:
        layer.norm = nn.Identity()
        nn.init.uniform_(layer.conv.weight, 0.1, 1)
    waveform = torch.rand(1, 2000, requires_grad=True)
    net.encode(waveform)[0, :, 2].sum().backward()
    reached = waveform.grad[0].nonzero().flatten()
    assert (reached.min(), reached.max()) == (2 * 160, 2 * 160 + 464)


def test_equals_the_published_arithmetic():
    """fairseq's network, written out with functions."""
    torch.manual_seed(0)
    net = small()
    with torch.no_grad():
        for p in net.parameters():
            p.uniform_(-0.5, 0.5)
    waveform = torch.randn(2, 60)

    def norm(x, layer):
        return F.group_norm(x, 1, layer.norm.weight, layer.norm.bias)

    x = waveform[:, None]
    for layer, stride in zip(net.encoder, (2, 1)):
        x = F.relu(norm(F.conv1d(x, layer.conv.weight, stride=stride), layer))
    encoded = x = (x.abs() + 1).log()
    for layer, kernel in zip(net.aggregator, (2, 3)):
        y = nn.ReplicationPad1d((kernel - 1, 0))(x)
        y = F.relu(norm(F.conv1d(y, layer.conv.weight, layer.conv.bias), layer))
        x = (y + x) * math.sqrt(0.5)
    for found, expected in zip(net(waveform), (encoded, x)):
        torch.testing.assert_close(found, expected)
    predicted = net.predictor(x.unsqueeze(-1))  # (batch, channels, frames, steps)
    torch.testing.assert_close(net.predict(x), predicted.permute(0, 3, 1, 2))


@pytest.mark.parametrize("params", [{"residual_scale": None}, {"log_compression": False}])
def test_options_change_the_result(params):
    torch.manual_seed(0)
    net, other = small(), small(**params)
    other.load_state_dict(net.state_dict())
    waveform = torch.randn(2, 60)
    assert not torch.allclose(net(waveform)[1], other(waveform)[1])
    bare = small(residual_scale=None, aggregator=[1])
    bare.aggregator[0] = nn.Identity()
    encoded, context = bare(waveform)
    torch.testing.assert_close(encoded, context)


def test_aggregator_is_causal():
    torch.manual_seed(0)
    net = small()
    for layer in net.aggregator:
        layer.norm = nn.Identity()  # which averages over all frames
    encoded = torch.randn(2, 6, 20)
    changed = encoded.clone()
    changed[:, :, 12:] += 1
    before, after = net.aggregate(encoded), net.aggregate(changed)
    assert torch.equal(before[:, :, :12], after[:, :, :12])
    assert not torch.isclose(before[:, :, 12], after[:, :, 12]).any()


def test_beginning_is_continued_with_its_first_frame():
    torch.manual_seed(0)
    net = small()
    for layer in net.aggregator:
        layer.norm = nn.Identity()
    encoded = torch.randn(1, 6, 10)
    longer = torch.cat([encoded[:, :, :1].expand(-1, -1, 5), encoded], dim=2)
    torch.testing.assert_close(net.aggregate(longer)[:, :, 5:], net.aggregate(encoded))


def naive_loss(net, encoded, context, negatives):
    """Spec: frame t + offset + s against negatives drawn for it, one logit after the other."""
    batch, n_negatives, n_frames = negatives.shape
    total, n_positive, n_correct = 0.0, 0, 0
    weight, bias = net.predictor.weight, net.predictor.bias
    for b in range(batch):
        for step in range(net.n_steps):
            for t in range(n_frames - net.offset - step):
                to = t + net.offset + step
                prediction = context[b, :, t] @ weight[:, :, 0, step] + bias
                true = prediction @ encoded[b, :, to]
                false = [prediction @ encoded[b, :, n] for n in negatives[b, :, to].tolist()]
                logits = torch.stack([true, *false])
                labels = torch.tensor([1.0] + [0.0] * n_negatives)
                total += F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
                n_positive += 1
                n_correct += int(true > max(false))
    return total / n_positive, n_correct / n_positive


def naive_infonce(net, encoded, context, negatives):
    losses = []
    predicted = net.predictor(context.unsqueeze(-1))
    for b, to in ((b, to) for b in range(len(encoded)) for to in range(encoded.shape[2])):
        frames = encoded[b][:, [to, *negatives[b, :, to].tolist()]]
        for step in range(min(net.n_steps, to - net.offset + 1)):
            logits = predicted[b, :, to - net.offset - step, step] @ frames
            losses.append(F.cross_entropy(logits, torch.tensor(0)).item())
    return sum(losses) / len(losses)


@pytest.mark.parametrize("n_samples", [30, 18])  # all steps, and fewer than n_steps
def test_loss_against_a_loop(n_samples):
    torch.manual_seed(0)
    net = small(n_steps=4).double()
    encoded, context = net(torch.randn(2, n_samples, dtype=torch.float64))
    negatives = net.draw_negatives(2, encoded.shape[2], 5)
    loss, accuracy = net.contrastive_loss(encoded, context, negatives)
    expected, expected_accuracy = naive_loss(net, encoded, context, negatives)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert accuracy.item() == pytest.approx(expected_accuracy)
    other, same = net.contrastive_loss(encoded, context, negatives, infonce=True)
    assert other.item() == pytest.approx(naive_infonce(net, encoded, context, negatives), rel=1e-5)
    assert same == accuracy


def test_accuracy_at_chance_and_when_sure():
    torch.manual_seed(0)
    net = small(channels=8, n_steps=2)
    encoded, context = torch.randn(2, 4, 8, 3000)
    negatives = net.draw_negatives(4, 3000)
    _, accuracy = net.contrastive_loss(encoded, context, negatives)
    assert accuracy.item() == pytest.approx(1 / 11, abs=0.01)
    # Context that holds the frame to come: the projection of the first step hands it on.
    with torch.no_grad():
        net.predictor.weight.zero_()
        net.predictor.bias.zero_()
        net.predictor.weight[:, :, 0, 0] = 100 * torch.eye(8)
    encoded = F.normalize(encoded, dim=1)
    context = encoded.roll(-net.offset, dims=2)
    _, accuracy = net.contrastive_loss(encoded, context, negatives)
    assert accuracy.item() == pytest.approx(0.5, abs=0.01)  # the other step knows nothing


def test_negatives():
    net = small()
    generator = torch.Generator().manual_seed(0)
    drawn = net.draw_negatives(3, 5, 4000, generator)
    assert drawn.shape == (3, 4000, 5)
    for frame in range(5):
        counts = torch.bincount(drawn[:, :, frame].flatten(), minlength=5)
        assert counts[frame] == 0
        others = counts[counts > 0]
        assert len(others) == 4
        assert others.min() > 0.9 * others.max()
    generator.manual_seed(0)
    assert torch.equal(drawn, net.draw_negatives(3, 5, 4000, generator))
    torch.manual_seed(1)
    first = net.draw_negatives(1, 9)
    assert not torch.equal(first, net.draw_negatives(1, 9))
    torch.manual_seed(1)
    assert torch.equal(first, net.draw_negatives(1, 9))


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    net = Wav2Vec1(8)
    encoded, context = net(torch.randn(2, 6000))
    loss, _ = net.contrastive_loss(encoded, context, net.draw_negatives(2, encoded.shape[2]))
    loss.backward()
    for name, p in net.named_parameters():
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().sum() > 0, name


def test_silence_has_finite_gradients():
    net = small()
    encoded, context = net(torch.zeros(1, 60))
    net.contrastive_loss(encoded, context, net.draw_negatives(1, encoded.shape[2]))[0].backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_training_finds_what_can_be_predicted():
    """Tones that go on: other frames of the same clip sound otherwise."""
    torch.manual_seed(0)
    net = small(channels=16, encoder=[(16, 8)], n_steps=2)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(240):
        pitch = 0.05 + 0.4 * torch.rand(8, 6).repeat_interleave(80, dim=1)
        waveform = torch.sin(2 * math.pi * pitch.cumsum(dim=1))
        encoded, context = net(waveform)
        negatives = net.draw_negatives(8, encoded.shape[2])
        loss, accuracy = net.contrastive_loss(encoded, context, negatives)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert accuracy.item() > 0.25


def test_fairseq_names():
    net = Wav2Vec1(4)
    names = net.fairseq_names()
    assert list(names) == list(net.state_dict())
    assert len(set(names.values())) == len(names) == 7 * 3 + 12 * 4 + 2
    assert names["encoder.6.conv.weight"] == "feature_extractor.conv_layers.6.0.weight"
    assert names["encoder.0.norm.bias"] == "feature_extractor.conv_layers.0.2.bias"
    assert names["aggregator.11.conv.bias"] == "feature_aggregator.conv_layers.11.1.bias"
    assert names["aggregator.2.norm.weight"] == "feature_aggregator.conv_layers.2.3.weight"
    assert names["predictor.weight"] == "wav2vec_predictions.project_to_steps.weight"
    theirs = {names[own]: value for own, value in net.state_dict().items()}
    assert theirs["wav2vec_predictions.project_to_steps.weight"].shape == (4, 4, 1, 12)
    other = Wav2Vec1(4)
    other.load_state_dict({own: theirs[name] for own, name in names.items()})
    waveform = torch.randn(1, 1000)
    assert torch.equal(net(waveform)[1], other(waveform)[1])


def test_configuration_makes_the_same_network():
    net = small(residual_scale=None, log_compression=False)
    assert Wav2Vec1(**net.config).load_state_dict(net.state_dict())
    assert Wav2Vec1(**net.config).config == net.config


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"channels": 0}, "channels must be above 0"),
        ({"n_steps": 0}, "n_steps must be above 0"),
        ({"residual_scale": 0.0}, "residual_scale must be above 0"),
        ({"encoder": []}, "encoder must be pairs of kernel and stride"),
        ({"encoder": [(10, 5, 1)]}, "encoder must be pairs of kernel and stride"),
        ({"encoder": [(10, 0)]}, "kernels_and_strides must be above 0"),
        ({"aggregator": [2, 0]}, "kernels_and_strides must be above 0"),
    ],
)
def test_bad_parameters(params, match):
    with pytest.raises(ValueError, match=match):
        Wav2Vec1(**params)


def test_bad_inputs():
    net = Wav2Vec1(4)
    with pytest.raises(ValueError, match="464 samples are shorter than the receptive field of 465"):
        net(torch.zeros(1, 464))
    with pytest.raises(ValueError, match=r"shape \(batch, n_samples\), got shape \(1, 2, 500\)"):
        net(torch.zeros(1, 2, 500))
    with pytest.raises(ValueError, match="1 has none"):
        net.draw_negatives(1, 1)
    encoded, context = net(torch.randn(1, 465 + 320))
    with pytest.raises(ValueError, match="3 frames are too few: .* at least 3 frames ahead"):
        net.contrastive_loss(encoded, context, net.draw_negatives(1, 3))
