"""Networks that predict a frame from those around it, and the mixtures they give parameters of."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from sk_asd.networks._dfnet import DFNet
from sk_asd.networks._ignn import IGNN, LRCGNN, InterpolationMLP
from sk_asd.networks._mixture import GaussianMixtureDensity

NETWORKS = [IGNN, LRCGNN, DFNet, InterpolationMLP]
C = 3  # components


def linear(n_in, n_out):
    return n_in * n_out + n_out


def gru(n_in, hidden, n_layers):
    """Three gates, each with weights on input and state and two biases."""
    return sum(
        3 * (n * hidden + hidden**2 + 2 * hidden) for n in [n_in] + [hidden] * (n_layers - 1)
    )


def ignn(n_bins, n_frames):
    """Table 6 of the report, row by row."""
    return (
        linear(n_bins, 128)
        + gru(128, 128, 3)
        + linear(128, 32)
        + linear(32, 128)
        + gru(128, 128, 3)
        + linear((n_frames - 1) * 128, 2 * C * n_bins)
    )


def dfnet(n_bins, n_frames, c=16, hidden=256):
    inner = c * n_bins // 4
    norm = 2 * c
    mix = c * c
    encoder = (c * 2 * 3 + norm) + 3 * (c * 2 * 3 + mix + norm)
    beside = linear(n_bins, hidden) + linear(hidden, inner)
    bottom = gru(inner, hidden, 1) + linear(hidden, inner)
    decoder = 4 * (mix + norm) + 3 * (c * 3 + mix + norm) + (c * 3 + 1)
    return encoder + beside + bottom + decoder + linear((n_frames - 1) * n_bins, 2 * C * n_bins)


class TestNetworks:
    @pytest.mark.parametrize("n_bins", [128, 64])
    @pytest.mark.parametrize("n_frames", [100, 60, 30])
    def test_parameter_counts(self, n_bins, n_frames):
        size = (n_bins, n_frames, 2 * C * n_bins)
        with torch.device("meta"):
            counts = [sum(p.numel() for p in net(*size).parameters()) for net in NETWORKS[:3]]
        expected = ignn(n_bins, n_frames)
        assert counts == [expected, expected + 3 * 128**2 + 128, dfnet(n_bins, n_frames)]

    @pytest.mark.parametrize(
        ("n_bins", "n_frames", "of_ignn", "of_dfnet"),
        [
            (128, 100, 10_352_160, 10_623_905),
            (64, 100, 5_477_536, 2_979_873),
            (64, 30, 2_036_896, 1_259_553),
        ],
    )
    def test_documented_counts(self, n_bins, n_frames, of_ignn, of_dfnet):
        assert ignn(n_bins, n_frames) == of_ignn
        assert f"{of_ignn:,}" in IGNN.__doc__
        assert dfnet(n_bins, n_frames) == of_dfnet
        assert f"{of_dfnet:,}" in DFNet.__doc__

    def test_other_documented_counts(self):
        def count(net):
            return sum(p.numel() for p in net.parameters())

        with torch.device("meta"):
            plain = count(IGNN(128, 100, 768))
            assert count(LRCGNN(128, 100, 768)) - plain == 49_280
            assert count(LRCGNN(128, 100, 768, conv_axis="freq")) - plain == 29_502
            mlp = count(InterpolationMLP(64, 5, 64))
        widths = [256, 64, 32, 16, 32, 64, 64]
        assert mlp == sum(linear(a, b) for a, b in itertools.pairwise(widths)) == 25_872

    @pytest.mark.parametrize("net", NETWORKS)
    @pytest.mark.parametrize("n_frames", [2, 3, 6, 11])
    def test_any_length(self, net, n_frames):
        net = net(8, n_frames, 5)
        x = torch.randn(3, 8, n_frames - 1)
        assert net(x).shape == (3, 5)
        net.eval()
        torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-6)

    def test_equals_table_6_written_out(self):
        torch.manual_seed(0)
        net = IGNN(6, 5, 7, hidden=4, bottleneck=2)
        x = torch.randn(2, 6, 4)
        y = torch.relu(x.mT @ net.inlet[0].weight.T + net.inlet[0].bias)
        y, _ = net.before(y)
        for i in (0, 2):
            y = torch.relu(net.squeeze[i](y))
        y, _ = net.after(y)
        torch.testing.assert_close(net(x), net.head(y.reshape(2, 16)))

    def test_convolution_of_lrcgnn(self):
        """A kernel that picks the middle one changes nothing, for ReLU follows ReLU."""
        torch.manual_seed(0)
        x = torch.randn(2, 6, 4)
        for axis, channels in (("time", 8), ("freq", 4)):
            net = LRCGNN(6, 5, 7, hidden=8, conv_axis=axis)
            plain = IGNN(6, 5, 7, hidden=8)
            plain.load_state_dict(net.state_dict(), strict=False)
            assert not torch.allclose(net(x), plain(x))
            conv = net.conv[0]
            assert conv.weight.shape == (channels, channels, 3)
            nn.init.zeros_(conv.bias)
            with torch.no_grad():
                conv.weight.copy_(torch.eye(channels)[:, :, None] * torch.tensor([0.0, 1.0, 0.0]))
            torch.testing.assert_close(net(x), plain(x))

    def test_levels_of_dfnet(self):
        shapes = []
        net = DFNet(16, 6, 5, channels=3)
        for layer in (*net.encoder, net.gru, *net.decoder):
            layer.register_forward_hook(
                lambda _, __, y: shapes.append(tuple((y[0] if isinstance(y, tuple) else y).shape))
            )
        net(torch.randn(2, 16, 5))
        assert shapes[:4] == [(2, 3, 5, 16), (2, 3, 5, 8), (2, 3, 5, 4), (2, 3, 5, 4)]
        assert shapes[4] == (2, 5, 256)
        assert shapes[5:] == [(2, 3, 5, 4), (2, 3, 5, 8), (2, 3, 5, 16), (2, 1, 5, 16)]

    @pytest.mark.parametrize("net", NETWORKS)
    def test_every_parameter_gets_a_gradient(self, net):
        torch.manual_seed(0)
        net = net(8, 6, 5)
        (net(torch.randn(16, 8, 5)) * torch.randn(16, 5)).sum().backward()
        for name, p in net.named_parameters():
            assert torch.isfinite(p.grad).all(), name
            assert p.grad.abs().sum() > 0, name

    @pytest.mark.parametrize("net", NETWORKS)
    def test_every_frame_and_bin_matters(self, net):
        torch.manual_seed(0)
        x = torch.randn(1, 8, 5, requires_grad=True)
        net = net(8, 6, 5).eval()
        net(x).square().sum().backward()
        assert (x.grad != 0).all()

    @pytest.mark.parametrize("net", NETWORKS)
    def test_errors(self, net):
        with pytest.raises(ValueError, match="n_frames must be at least 2, one frame to predict"):
            net(8, 1, 5)
        with pytest.raises(ValueError, match="n_bins must be above 0"):
            net(0, 6, 5)
        with pytest.raises(ValueError, match=r"expected inputs of shape \(batch, 8, 5\), without"):
            net(8, 6, 5)(torch.zeros(2, 8, 6))

    def test_errors_of_one_network(self):
        with pytest.raises(ValueError, match="DFNet needs n_bins to be a multiple of 8, got 12"):
            DFNet(12, 6, 5)
        with pytest.raises(ValueError, match="conv_axis must be 'time' or 'freq', got 'bins'"):
            LRCGNN(8, 6, 5, conv_axis="bins")
        with pytest.raises(ValueError, match="kernel_size must be odd and at least 1, got 4"):
            LRCGNN(8, 6, 5, kernel_size=4)
        with pytest.raises(ValueError, match=r"hidden must be widths above 0, got \(8, 0\)"):
            InterpolationMLP(8, 6, 5, hidden=(8, 0))


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


class TestDensity:
    def draw(self, density, rng, n=20, spread=2.0):
        raw = spread * torch.randn(n, density.n_outputs, generator=rng)
        return raw, torch.randn(n, density.n_bins, generator=rng)

    @pytest.mark.parametrize("weights", ["equal", "learned"])
    @pytest.mark.parametrize("n_bins", [1, 5, 128])
    def test_frame_is_a_mixture_of_torch(self, rng, weights, n_bins):
        density = GaussianMixtureDensity(n_bins, C, weights=weights)
        raw, x = self.draw(density, rng)
        mean, scale, log_weight = density.parameters_of(raw)
        mixture = MixtureSameFamily(
            Categorical(logits=log_weight[:, :, 0]), Independent(Normal(mean, scale), 1)
        )
        torch.testing.assert_close(density(raw, x), -mixture.log_prob(x), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("weights", ["equal", "learned"])
    def test_bin_is_a_mixture_of_torch_in_every_bin(self, rng, weights):
        density = GaussianMixtureDensity(5, C, mixture="bin", weights=weights)
        raw, x = self.draw(density, rng)
        mean, scale, log_weight = density.parameters_of(raw)
        weight = log_weight.expand(mean.shape).mT
        mixture = MixtureSameFamily(Categorical(logits=weight), Normal(mean.mT, scale.mT))
        expected = -mixture.log_prob(x)
        torch.testing.assert_close(density.by_bin(raw, x), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(density(raw, x), expected.sum(1), rtol=1e-5, atol=1e-5)

    def test_literal_is_equation_4(self, rng):
        density = GaussianMixtureDensity(4, 2, mixture="literal")
        raw, x = self.draw(density, rng, n=3, spread=0.5)
        mean, scale, _ = density.parameters_of(raw)
        for i in range(3):
            total = 0.0
            for j in range(4):
                components = Normal(mean[i, :, j], scale[i, :, j])
                total += math.exp(components.log_prob(x[i, j]).sum())
            assert density(raw, x)[i].item() == pytest.approx(-math.log(total), rel=1e-5)

    def test_exchanging_the_indices_of_equation_4_gives_frame_but_for_a_constant(self, rng):
        frame, literal = (
            GaussianMixtureDensity(4, 4, mixture=mixture) for mixture in ("frame", "literal")
        )
        raw, x = self.draw(frame, rng, spread=0.3)
        log_density, _ = frame._log_densities(raw, x)
        literal._log_densities = lambda raw, x: (log_density.mT, None)
        torch.testing.assert_close(frame(raw, x), literal(raw, x) + math.log(4))

    @pytest.mark.parametrize("mixture", ["frame", "bin"])
    @pytest.mark.parametrize("weights", ["equal", "learned"])
    def test_one_component_is_a_heteroscedastic_gaussian(self, rng, mixture, weights):
        density = GaussianMixtureDensity(6, 1, mixture=mixture, weights=weights)
        raw, x = self.draw(density, rng)
        mean, scale = raw[:, :6], nn.functional.softplus(raw[:, 6:12]) + 1e-3
        loss = nn.GaussianNLLLoss(full=True, reduction="none", eps=1e-12)
        expected = loss(mean, x, scale**2)
        torch.testing.assert_close(density.by_bin(raw, x), expected)
        torch.testing.assert_close(density(raw, x), expected.sum(dim=1))

    def test_unit_scale_is_half_the_squared_error(self, rng):
        density = GaussianMixtureDensity(6, 1, scale="unit")
        assert density.n_outputs == 6
        raw, x = self.draw(density, rng)
        expected = ((x - raw) ** 2 + math.log(2 * math.pi)).sum(dim=1) / 2
        torch.testing.assert_close(density(raw, x), expected)

    @pytest.mark.parametrize("mixture", ["frame", "bin"])
    @pytest.mark.parametrize("weights", ["equal", "learned"])
    def test_parts_of_bins_add_up(self, rng, mixture, weights):
        density = GaussianMixtureDensity(8, C, mixture=mixture, weights=weights)
        raw, x = self.draw(density, rng)
        torch.testing.assert_close(density.by_bin(raw, x).sum(dim=1), density(raw, x))

    @pytest.mark.parametrize("mixture", ["frame", "bin"])
    def test_densities_integrate_to_one(self, rng, mixture):
        density = GaussianMixtureDensity(2, C, mixture=mixture, weights="learned")
        raw = torch.randn(1, density.n_outputs, generator=rng)
        grid = torch.linspace(-12, 12, 201)
        x = torch.cartesian_prod(grid, grid)
        p = torch.exp(-density(raw.expand(len(x), -1), x))
        assert p.sum().item() * (grid[1] - grid[0]).item() ** 2 == pytest.approx(1, abs=1e-3)

    @pytest.mark.parametrize("mixture", ["frame", "bin", "literal"])
    @pytest.mark.parametrize("raw_scale", [-1e4, -100.0, 0.0, 100.0, 1e4])
    @pytest.mark.parametrize("distance", [0.0, 1.0, 1e3])
    def test_gradients_at_the_limits_of_the_scale(self, mixture, raw_scale, distance):
        density = GaussianMixtureDensity(128, C, mixture=mixture)
        raw = torch.zeros(2, density.n_outputs)
        raw[:, C * 128 :] = raw_scale
        raw.requires_grad_()
        loss = density(raw, torch.full((2, 128), distance))
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert torch.isfinite(raw.grad).all()
        assert torch.isfinite(density.by_bin(raw, torch.full((2, 128), distance))).all()

    def test_floor_of_the_scale(self):
        floor = torch.tensor([0.01, 1.0])
        density = GaussianMixtureDensity(2, 1, min_scale=floor)
        raw = torch.full((1, 4), -1e4)
        raw[:, :2] = 0
        expected = Normal(torch.zeros(2), floor).log_prob(torch.tensor([0.0, 3.0]))
        result = density.by_bin(raw, torch.tensor([[0.0, 3.0]]))
        torch.testing.assert_close(result[0], -expected)

    def test_half_precision_in_single_precision_out(self, rng):
        density = GaussianMixtureDensity(128, C)
        raw, x = self.draw(density, rng)
        raw = raw.bfloat16()
        assert density(raw, x).dtype == torch.float32
        torch.testing.assert_close(density(raw, x), density(raw.float(), x))

    def test_components_start_apart(self):
        mean, _, _ = GaussianMixtureDensity(50, 3).parameters_of(torch.zeros(1, 300))
        expected = torch.tensor([-0.3, 0.0, 0.3])[:, None].expand(3, 50)
        torch.testing.assert_close(mean[0].sort(dim=0).values, expected)
        assert len(mean[0, 0].unique()) == 3  # not in the same order in every bin
        single, _, _ = GaussianMixtureDensity(50, 1).parameters_of(torch.zeros(1, 100))
        assert (single == 0).all()

    @pytest.mark.parametrize(
        ("params", "match"),
        [
            ({"mixture": "both"}, "mixture must be one of .* got 'both'"),
            ({"weights": "free"}, "weights must be 'equal' or 'learned', got 'free'"),
            ({"scale": 2}, "scale must be 'learned' or 'unit', got 2"),
            ({"mixture": "literal", "weights": "learned"}, "mixture='literal' has no weights"),
            ({"min_scale": 0}, "min_scale must be above 0, got 0"),
            ({"n_components": 0}, "n_components must be above 0, got 0"),
        ],
    )
    def test_bad_parameters(self, params, match):
        with pytest.raises(ValueError, match=match):
            GaussianMixtureDensity(4, **params)

    def test_bad_inputs(self):
        density = GaussianMixtureDensity(4, C)
        with pytest.raises(ValueError, match=r"\(batch, 24\), got \(2, 23\)"):
            density(torch.zeros(2, 23), torch.zeros(2, 4))
        with pytest.raises(ValueError, match=r"frames of shape \(2, 4\), got \(1, 4\)"):
            density(torch.zeros(2, 24), torch.zeros(1, 4))
