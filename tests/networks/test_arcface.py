import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from sk_asd.networks import ArcFace


def head_on_the_circle(angles, **params):
    """A head whose class vectors lie at the given angles of the plane, of various lengths."""
    head = ArcFace(2, len(angles), **params).double()
    with torch.no_grad():
        for i, a in enumerate(angles):
            head.weight[i] = (i + 1) * torch.tensor([math.cos(a), math.sin(a)])
    return head


def at(angle, length=3.0):
    return length * torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)


def test_without_target_scaled_cosines():
    head = head_on_the_circle([0.0, 1.0, 2.5])
    expected = 32 * torch.tensor([[math.cos(0.4), math.cos(0.6), math.cos(2.1)]]).double()
    torch.testing.assert_close(head(at(0.4)), expected)


@pytest.mark.parametrize("angle", [0.05, 0.4, 1.5, 2.6])
def test_margin_on_the_target_alone(angle):
    head = head_on_the_circle([0.0, 1.0, 2.5], margin=0.5, scale=10.0)
    logits = head(at(angle), torch.tensor([0]))
    expected = [math.cos(angle + 0.5), math.cos(angle - 1.0), math.cos(angle - 2.5)]
    torch.testing.assert_close(logits, 10 * torch.tensor([expected]).double())


@pytest.mark.parametrize("angle", [2.65, 3.0, math.pi])
def test_past_pi_the_logit_keeps_falling(angle):
    head = head_on_the_circle([0.0, 1.0], margin=0.5, scale=1.0)
    logits = head(at(angle), torch.tensor([0]))
    expected = math.cos(angle) - math.sin(math.pi - 0.5) * 0.5
    assert logits[0, 0].item() == pytest.approx(expected)
    assert logits[0, 1].item() == pytest.approx(math.cos(angle - 1))


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5, 0.7, 2.0])
def test_target_logit_falls_with_the_angle_everywhere(margin):
    head = head_on_the_circle([0.0, 1.0], margin=margin, scale=1.0)
    angles = torch.linspace(0.01, math.pi - 0.01, 500)
    x = torch.cat([at(a.item()) for a in angles])
    logits = head(x, torch.zeros(500, dtype=torch.long))[:, 0]
    assert (logits.diff() < 0).all()
    assert (logits <= torch.cos(angles.double()) + 1e-12).all()


def test_no_margin_is_the_plain_cosine():
    head = ArcFace(6, 3, margin=0.0)
    x, target = torch.randn(5, 6), torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(head(x, target), head(x))


def test_loss_equals_the_published_formula():
    """Equation 3 of the paper with the fallback past pi - margin, one clip at a time."""
    torch.manual_seed(0)
    head = ArcFace(8, 5, margin=0.5, scale=12.0).double()
    x, target = torch.randn(200, 8).double(), torch.arange(200) % 5
    expected, past = 0.0, 0
    for e, t in zip(x, target.tolist()):
        theta = [math.acos(F.cosine_similarity(e, w, dim=0).item()) for w in head.weight]
        terms = [math.exp(12 * math.cos(a)) for a in theta]
        if theta[t] < math.pi - 0.5:
            terms[t] = math.exp(12 * math.cos(theta[t] + 0.5))
        else:
            terms[t] = math.exp(12 * (math.cos(theta[t]) - 0.5 * math.sin(0.5)))
            past += 1
        expected -= math.log(terms[t] / sum(terms)) / 200
    assert past > 0
    loss = F.cross_entropy(head(x, target), target).item()
    assert loss == pytest.approx(expected, abs=1e-6)
    loss = F.cross_entropy(head.float()(x.float(), target), target).item()
    assert loss == pytest.approx(expected, rel=1e-6)


def test_loss_without_margin_is_the_scaled_cosine_softmax():
    torch.manual_seed(0)
    head = ArcFace(8, 5, margin=0.0, scale=16.0)
    x, target = torch.randn(30, 8), torch.arange(30) % 5
    cosine = F.cosine_similarity(x[:, None], head.weight[None], dim=2)
    expected = -torch.log_softmax(16 * cosine, dim=1)[torch.arange(30), target].mean()
    assert F.cross_entropy(head(x, target), target).item() == pytest.approx(expected.item(), 1e-6)


def test_one_hot_targets_equal_integers():
    torch.manual_seed(0)
    head = ArcFace(6, 3)
    target = torch.arange(12) % 3
    gradients, outputs = [], []
    for t in (target, target.int(), F.one_hot(target).float()):
        x = torch.linspace(-1, 1, 72).sin().reshape(12, 6).requires_grad_()
        outputs.append(head(x, t))
        F.cross_entropy(outputs[-1], target).backward()
        gradients.append(x.grad)
    for y, grad in zip(outputs[1:], gradients[1:]):
        torch.testing.assert_close(y, outputs[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(grad, gradients[0], rtol=0, atol=1e-6)


def test_mixed_targets_average_the_logits_of_their_classes():
    head = head_on_the_circle([0.0, 1.0, 2.5], margin=0.5, scale=10.0)
    logits = head(at(0.4), torch.tensor([[0.3, 0.7, 0.0]]).double())
    first = 0.3 * math.cos(0.4 + 0.5) + 0.7 * math.cos(0.4)
    second = 0.3 * math.cos(0.6) + 0.7 * math.cos(0.6 + 0.5)
    expected = 10 * torch.tensor([[first, second, math.cos(2.1)]]).double()
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)

    torch.manual_seed(0)
    head = ArcFace(8, 4).double()
    x, p = torch.randn(20, 8).double(), torch.rand(20, 4).double()
    p /= p.sum(1, keepdim=True)
    each = [head(x, torch.full((20,), c)) for c in range(4)]
    expected = sum(p[:, c, None] * each[c] for c in range(4))
    torch.testing.assert_close(head(x, p), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "target",
    [torch.zeros(3, dtype=torch.long), torch.zeros(2), torch.zeros(2, 4), torch.eye(2, 3).long()],
)
def test_bad_targets(target):
    with pytest.raises(ValueError, match=r"integers of shape \(2,\) or .* shape \(2, 3\), got"):
        ArcFace(4, 3)(torch.ones(2, 4), target)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_are_finite_on_and_near_the_axis(dtype, sign):
    head = ArcFace(4, 3).to(dtype)
    for eps in (0.0, 1e-8, 1e-6, 1e-4, 1e-2):
        x = (sign * head.weight[1] + eps * torch.randn(4, dtype=dtype)).detach()[None]
        x.requires_grad_()
        head.zero_grad()
        F.cross_entropy(head(x, torch.tensor([1])), torch.tensor([1])).backward()
        for grad in (x.grad, head.weight.grad):
            assert torch.isfinite(grad).all()
            assert grad.abs().max() < 1e3


def test_value_on_the_axis():
    head = head_on_the_circle([0.0, 1.0], scale=1.0)
    logit = head.float()(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))[0, 0].item()
    assert logit == pytest.approx(math.cos(0.5), abs=3e-4)


def test_gradients_against_finite_differences():
    torch.manual_seed(0)
    head = ArcFace(5, 4, scale=4.0).double()
    x = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 0, 1])
    assert torch.autograd.gradcheck(lambda e: head(e, target), (x,))


def test_training_separates_classes():
    torch.manual_seed(0)
    head = ArcFace(4, 3)
    x = torch.randn(3, 4).repeat(20, 1) + 0.1 * torch.randn(60, 4)
    target = torch.arange(60) % 3
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(head(x, target), target).backward()
        optimizer.step()
    assert (head(x).argmax(1) == target).all()


def test_same_in_train_and_eval_and_repeatable():
    head = ArcFace(4, 3)
    x = torch.randn(5, 4)
    y = head(x)
    head.eval()
    assert torch.equal(y, head(x))


def test_initialisation():
    torch.manual_seed(0)
    weight = ArcFace(300, 100).weight
    assert weight.shape == (100, 300)
    assert weight.abs().max().item() == pytest.approx(math.sqrt(6 / 400), rel=0.01)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"margin": -0.1}, r"margin must be in \[0, pi\), got -0.1"),
        ({"margin": 3.2}, "margin must be in"),
        ({"scale": 0.0}, "scale must be above 0"),
        ({"n_classes": 0}, "n_classes must be above 0"),
    ],
)
def test_bad_parameters(params, match):
    with pytest.raises(ValueError, match=match):
        ArcFace(**{"embedding_dim": 4, "n_classes": 2, **params})


def test_networks_import_torch_alone():
    code = (
        "import sys, sk_asd.networks\n"
        "others = {'sklearn', 'skorch', 'pandas', 'xarray', 'librosa'}\n"
        "print(sorted(others & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
