"""Flows and weighted statistic pooling: known densities, quadrature, inverses."""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch.distributions import Normal

from sk_asd.networks._flows import FLOWS, ConditionalFlow, GroupedFlow
from sk_asd.networks._weighted_pooling import WeightedStatisticPooling

NEURAL = ("maf", "nsf", "realnvp")


def make_flow(*args, **params):
    torch.manual_seed(0)
    return ConditionalFlow(*args, **{"hidden_features": (32, 32), "transforms": 3, **params})


def train(module, loss, steps, lr=5e-3):
    optimizer = torch.optim.Adam(module.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for step in range(steps):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
        schedule.step()
    return module.eval()


class TestPooling:
    def test_by_hand(self):
        x = torch.tensor([[[1.0, 3.0], [0.0, 8.0]]])  # means 2, 4; deviations 1, 4
        pooled = WeightedStatisticPooling(0.25)(x)
        torch.testing.assert_close(pooled, torch.tensor([[1.25, 4.0]]))

    @pytest.mark.parametrize("logit", [-12.0, -1.0, 0.0, 3.0, 12.0])
    def test_constraints_hold_whatever_is_trained(self, logit):
        pooling = WeightedStatisticPooling()
        with torch.no_grad():
            pooling.logit.fill_(logit)
        alpha, beta = pooling.weights().tolist()
        assert alpha > 0
        assert beta > 0
        assert alpha + beta == pytest.approx(1, abs=1e-6)

    def test_trained_to_the_statistic_that_matters(self):
        x = torch.randn(64, 3, 20, generator=torch.Generator().manual_seed(0))
        pooling = WeightedStatisticPooling()
        target = x.std(dim=2, correction=0)
        train(pooling, lambda _: (pooling(x) - target).square().mean(), 100, lr=0.5)
        assert pooling.weights()[1] > 0.95

    def test_fixed(self):
        pooling = WeightedStatisticPooling(0.3, trainable=False)
        assert not list(filter(lambda p: p.requires_grad, pooling.parameters()))
        assert pooling.weights()[0].item() == pytest.approx(0.3)

    @pytest.mark.parametrize("alpha", [0, 1, -0.1])
    def test_error(self, alpha):
        with pytest.raises(ValueError, match="alpha must be between 0 and 1"):
            WeightedStatisticPooling(alpha)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("context", [None, (0.5, -2.0, 1.0)])
def test_integrates_to_one(flow, context):
    model = make_flow(2, 0 if context is None else 3, flow=flow)
    with torch.no_grad():
        for parameter in model.parameters():  # far from the identity, within the grid
            parameter.mul_(1.5)
        line = torch.linspace(-12, 12, 361)
        grid = torch.cartesian_prod(line, line)
        given = None if context is None else torch.tensor(context).expand(len(grid), 3)
        density = model(grid, given).double().sum(dim=1).exp()
    assert density.sum().item() * (24 / 360) ** 2 == pytest.approx(1, abs=2e-3)
    spread = density.reshape(361, 361).sum(dim=1)
    assert (spread / spread.sum()).max() < 0.5  # no spike between grid points


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("n_features", [1, 2, 5])
def test_inverse(flow, n_features):
    model = make_flow(n_features, 3, flow=flow)
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(50, n_features, generator=generator)
    context = torch.randn(50, 3, generator=generator)
    with torch.no_grad():
        z, _ = model.encode(x, context)
        torch.testing.assert_close(model.decode(z, context), x, atol=1e-4, rtol=1e-4)
        assert (z - x).abs().max() > 0.1


@pytest.mark.parametrize("flow", FLOWS)
def test_slopes_are_those_of_autograd(flow):
    model = make_flow(4, 2, flow=flow).double()
    x, context = torch.randn(4, dtype=torch.double), torch.randn(1, 2, dtype=torch.double)
    jacobian = torch.autograd.functional.jacobian(lambda v: model.encode(v[None], context)[0][0], x)
    _, log_slope = model.encode(x[None], context)
    assert log_slope.sum().item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item())
    expected = Normal(0, 1).log_prob(model.encode(x[None], context)[0]) + log_slope
    torch.testing.assert_close(model(x[None], context), expected)


def planted(n, seed=0):
    """Four jointly normal numbers; the first two given the last two are normal too."""
    rng = np.random.default_rng(seed)
    mixing = np.array([[1, 0, 0, 0], [0.8, 0.6, 0, 0], [0.5, -0.7, 0.5, 0], [-0.9, 0.2, 0.3, 0.4]])
    mean, covariance = np.array([0.3, -0.2, 0.1, 0.0]), mixing @ mixing.T
    return rng.multivariate_normal(mean, covariance, n), mean, covariance


def conditional(x, mean, covariance):
    """Log-density of the first two entries given the others, from the joint and the marginal."""
    joint = multivariate_normal(mean, covariance).logpdf(x)
    return joint - multivariate_normal(mean[2:], covariance[2:, 2:]).logpdf(x[:, 2:])


@pytest.mark.slow
@pytest.mark.parametrize("flow", FLOWS)
def test_recovers_a_conditional_gaussian(flow):
    x, mean, covariance = planted(14000)
    data = torch.tensor(x, dtype=torch.float32)
    model = make_flow(2, 2, flow=flow, transforms=2)
    order = torch.randint(12000, (450, 256), generator=torch.Generator().manual_seed(0))

    def loss(step):
        batch = data[order[step]]
        return -model(batch[:, :2], batch[:, 2:]).sum(dim=1).mean()

    train(model, loss, 450, lr=0.03 if flow == "gaussian" else 5e-3)
    with torch.no_grad():
        found = model(data[12000:, :2], data[12000:, 2:]).sum(dim=1).mean().item()
    truth = conditional(x[12000:], mean, covariance).mean()
    assert found == pytest.approx(truth, abs=0.05)
    unconditional = multivariate_normal(mean[:2], covariance[:2, :2]).logpdf(x[12000:, :2]).mean()
    assert found > unconditional + 0.3


def test_gaussian_is_the_analytic_conditional():
    x, mean, covariance = planted(50)
    # x_a | x_b has the precision P_aa and the mean m_a - P_aa^-1 P_ab (x_b - m_b).
    precision = np.linalg.inv(covariance)
    regression = -np.linalg.solve(precision[:2, :2], precision[:2, 2:])
    # P_aa = L^T L with L lower triangular, so that z = L (x_a - mean) is standard normal.
    lower = np.linalg.cholesky(precision[:2, :2][::-1, ::-1])[::-1, ::-1].T
    scale = np.diag(lower)
    unit = lower / scale[:, None]
    model = make_flow(2, 2, flow="gaussian").double()
    (linear,) = model.blocks[0].hyper
    with torch.no_grad():
        model.log_scale.copy_(torch.tensor(np.log(scale)))
        linear.weight.zero_()
        linear.weight[1, 0] = unit[1, 0]
        linear.weight[:, 2:] = torch.tensor(-unit @ regression)
        linear.bias.copy_(torch.tensor(-unit @ (mean[:2] - regression @ mean[2:])))
        data = torch.tensor(x)
        found = model(data[:, :2], data[:, 2:]).sum(dim=1)
    np.testing.assert_allclose(found, conditional(x, mean, covariance), rtol=1e-10)


class TestGroups:
    @pytest.mark.parametrize(
        ("grouping", "groups"),
        [("contiguous", [[0, 1, 2], [3, 4], [5, 6]]), ("strided", [[0, 3, 6], [1, 4], [2, 5]])],
    )
    def test_partition(self, grouping, groups):
        assert GroupedFlow(7, n_groups=3, grouping=grouping, transforms=1).groups == groups

    @pytest.mark.parametrize("grouping", ["contiguous", "strided"])
    def test_each_group_given_the_others(self, grouping):
        torch.manual_seed(0)
        model = GroupedFlow(7, 2, n_groups=3, grouping=grouping, transforms=2)
        x, context = torch.randn(5, 7), torch.randn(5, 2)
        found = model(x, context)
        for group, flow in zip(model.groups, model.flows):
            others = [i for i in range(7) if i not in group]
            expected = flow(x[:, group], torch.cat([x[:, others], context], dim=1))
            torch.testing.assert_close(found[:, group], expected)

    def test_one_group_is_a_joint_density(self):
        torch.manual_seed(0)
        model = GroupedFlow(3, n_groups=1, transforms=2)
        x = torch.randn(5, 3)
        torch.testing.assert_close(model(x), model.flows[0](x))

    def test_every_bin_in_a_group_of_its_own(self):
        model = GroupedFlow(3, n_groups=3, transforms=2)
        assert model(torch.randn(5, 3)).isfinite().all()

    @pytest.mark.parametrize("flow", FLOWS)
    def test_gradients_reach_all_parameters(self, flow):
        model = GroupedFlow(6, 2, n_groups=2, flow=flow, transforms=2, hidden_features=(16,))
        model(torch.randn(64, 6), torch.randn(64, 2)).sum().backward()
        assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())

    @pytest.mark.parametrize("flow", FLOWS)
    def test_far_away(self, flow):
        model = GroupedFlow(6, 1, n_groups=2, flow=flow)
        density = model(torch.full((1, 6), 1e4), torch.ones(1, 1)).sum()
        assert density.isfinite()
        assert density < model(torch.zeros(1, 6), torch.ones(1, 1)).sum()

    @pytest.mark.parametrize("flow", NEURAL)
    def test_copies(self, flow):
        model = GroupedFlow(4, n_groups=2, flow=flow, transforms=2)
        x = torch.randn(3, 4)
        for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"n_groups": 5}, "5 groups need at least as many bins, got 4"),
            ({"n_groups": 0}, "n_groups must be above 0"),
            ({"n_groups": 2, "grouping": "random"}, "grouping must be 'contiguous' or 'strided'"),
            ({"n_groups": 2, "flow": "glow"}, "flow must be one of .*'glow'"),
            ({"n_groups": 2, "transforms": 0}, "transforms must be above 0, got 0"),
        ],
    )
    def test_errors(self, params, message):
        with pytest.raises(ValueError, match=message):
            GroupedFlow(4, **params)
