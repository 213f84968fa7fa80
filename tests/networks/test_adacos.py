import io
import math

import pytest
import torch
import torch.nn.functional as F

from sk_asd.networks import SubclusterAdaCos


def head_on_the_circle(angles, n_subclusters, **params):
    """A head whose centres lie at the given angles of the plane, of various lengths."""
    head = SubclusterAdaCos(2, len(angles) // n_subclusters, n_subclusters, **params).double()
    with torch.no_grad():
        for i, a in enumerate(angles):
            head.weight[i] = (i + 1) * torch.tensor([math.cos(a), math.sin(a)])
    return head


def at(*angles, length=3.0):
    angles = torch.tensor(angles, dtype=torch.float64)
    return length * torch.stack([angles.cos(), angles.sin()], dim=1)


@pytest.mark.parametrize(
    ("n_classes", "n_subclusters", "expected"),
    [
        (6, 1, math.sqrt(2) * math.log(5)),
        (6, 16, math.sqrt(2) * math.log(95)),
        (3, 1, math.sqrt(2) * math.log(2)),
        (2, 1, math.sqrt(2) * math.log(2)),  # log(1) = 0 would make all logits equal
        (1, 1, math.sqrt(2) * math.log(2)),
        (1, 16, math.sqrt(2) * math.log(15)),
    ],
)
def test_initial_scale(n_classes, n_subclusters, expected):
    head = SubclusterAdaCos(4, n_classes, n_subclusters)
    assert head.scale.item() == pytest.approx(expected)
    assert head.scale.shape == ()


def test_logits_are_sums_over_the_centres_of_a_class():
    head = head_on_the_circle([0.0, 1.0, 2.0, 3.0], n_subclusters=2)
    s = math.sqrt(2) * math.log(3)
    terms = [math.exp(s * math.cos(0.4 - a)) for a in (0.0, 1.0, 2.0, 3.0)]
    expected = [math.log(terms[0] + terms[1]), math.log(terms[2] + terms[3])]
    torch.testing.assert_close(head(at(0.4)), torch.tensor([expected]).double())


@pytest.mark.parametrize("mixed", [False, True])
def test_cross_entropy_equals_the_published_loss(mixed):
    """Softmax over all centres, sum within classes, categorical cross-entropy."""
    torch.manual_seed(0)
    head = SubclusterAdaCos(5, 3, 4).double().eval()
    x = torch.randn(7, 5).double()
    target = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    p = F.one_hot(target).double()
    if mixed:
        target = p = 0.3 * p + 0.7 * p.flip(0)
    cosine = F.cosine_similarity(x[:, None], head.weight[None], dim=2)
    softmax = torch.softmax(head.scale * cosine, dim=1)
    classes = torch.stack([softmax[:, 4 * c : 4 * c + 4].sum(1) for c in range(3)], 1)
    expected = -(p * classes.log()).sum(1).mean()
    assert F.cross_entropy(head(x), target).item() == pytest.approx(expected.item(), abs=1e-6)


def test_one_update_of_adacos_by_hand():
    centres = [0.0, 1.5, 3.0, 4.5]
    head = head_on_the_circle(centres, n_subclusters=1)
    embedded, target = [0.2, 1.1, 3.1], [0, 1, 2]
    s = math.sqrt(2) * math.log(3)
    b_avg = 0.0
    for e, t in zip(embedded, target):
        b_avg += sum(math.exp(s * math.cos(e - centres[c])) for c in range(4) if c != t) / 3
    theta_med = 0.2  # of 0.2, 0.4 and 0.1
    expected = math.log(b_avg) / math.cos(theta_med)
    assert s / 2 < expected < 2 * s
    logits = head(at(*embedded), torch.tensor(target))
    assert head.scale.item() == pytest.approx(expected, rel=1e-6)
    # The new scale is the one in use.
    assert logits[0, 1].item() == pytest.approx(expected * math.cos(0.2 - 1.5), rel=1e-6)


def test_theta_med_is_cut_at_a_quarter_pi():
    centres = [0.0, 2.0, 4.0, 5.0]
    head = head_on_the_circle(centres, n_subclusters=1)
    s = math.sqrt(2) * math.log(3)
    b_avg = sum(math.exp(s * math.cos(1.0 - c)) for c in centres[1:])
    head(at(1.0), torch.tensor([0]))
    assert head.scale.item() == pytest.approx(math.log(b_avg) / math.cos(math.pi / 4), rel=1e-6)


def test_one_update_with_subclusters_and_mixed_targets_by_hand():
    centres = [[0.0, 0.4], [1.6, 2.0], [3.2, 4.0]]
    head = head_on_the_circle([a for row in centres for a in row], n_subclusters=2)
    embedded = [0.3, 1.0]
    p = [[1.0, 0.0, 0.0], [0.6, 0.4, 0.0]]
    s = math.sqrt(2) * math.log(5)
    b_avg, thetas = 0.0, []
    for e, row in zip(embedded, p):
        cosines = [[math.cos(e - a) for a in c] for c in centres]
        b_avg += sum((1 - q) * math.exp(s * v) for q, c in zip(row, cosines) for v in c) / 2
        thetas.append(sum(q * (abs(e - c[0]) + abs(e - c[1])) / 2 for q, c in zip(row, centres)))
    assert thetas == pytest.approx([0.2, 0.6 * 0.8 + 0.4 * 0.8])
    expected = math.log(b_avg) / math.cos((0.2 + 0.8) / 2)
    assert s / 2 < expected < 2 * s
    head(at(*embedded), torch.tensor(p).double())
    assert head.scale.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n_subclusters", [1, 4])
def test_one_hot_targets_equal_integers(n_subclusters):
    torch.manual_seed(0)
    x, target = torch.randn(9, 5), torch.arange(9) % 3
    heads = []
    for t in (target, target.int(), F.one_hot(target, 3).float()):
        torch.manual_seed(1)
        heads.append(SubclusterAdaCos(5, 3, n_subclusters))
        y = heads[-1](x, t)
        torch.testing.assert_close(y, heads[0](x), rtol=0, atol=1e-6)
    assert heads[0].scale != SubclusterAdaCos(5, 3, n_subclusters).scale


def test_scale_stays_within_a_factor_of_2():
    head = head_on_the_circle([0.0, 0.1, 0.2, 0.3], n_subclusters=1)
    s0 = head.scale.item()
    for _ in range(50):  # all nearest to a wrong class, and all far off from the target
        head(at(0.0, 0.1), torch.tensor([3, 3]))
    assert head.scale.item() == pytest.approx(2 * s0)
    for _ in range(50):  # opposite to every other class
        head(at(math.pi + 0.2), torch.tensor([0]))
    assert head.scale.item() == pytest.approx(s0 / 2)


def test_scale_is_updated_in_training_with_targets_only():
    torch.manual_seed(0)
    x, target = torch.randn(8, 4), torch.arange(8) % 4
    head = SubclusterAdaCos(4, 4, 2)
    s0 = head.scale.item()
    head(x)
    head.eval()
    y = head(x, target)
    assert torch.equal(y, head(x))
    assert head.scale.item() == s0
    fixed = SubclusterAdaCos(4, 4, 2, adaptive=False)
    fixed(x, target)
    assert fixed.scale.item() == s0
    head.train()
    head(x, target)
    assert head.scale.item() != s0


def test_scale_is_stored_with_the_weights():
    torch.manual_seed(0)
    head = SubclusterAdaCos(4, 3, 2)
    x = torch.randn(6, 4)
    head(x, torch.arange(6) % 3)
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)
    other = SubclusterAdaCos(4, 3, 2)
    other.load_state_dict(torch.load(file))
    assert torch.equal(head.eval()(x), other.eval()(x))
    assert set(head.state_dict()) == {"weight", "scale"}


@pytest.mark.parametrize("trainable", [False, True])
def test_centres_get_a_gradient_if_trainable(trainable):
    torch.manual_seed(0)
    head = SubclusterAdaCos(5, 3, 4, trainable=trainable)
    assert head.weight.numel() == 3 * 4 * 5
    x = torch.randn(6, 5, requires_grad=True)
    target = torch.arange(6) % 3
    F.cross_entropy(head(x, target), target).backward()
    assert x.grad.abs().sum() > 0
    assert (head.weight.grad is not None) is trainable
    assert not trainable or (head.weight.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_are_finite_at_identical_vectors(sign):
    head = SubclusterAdaCos(4, 3, 2, trainable=True)
    x = (sign * head.weight[[2, 2, 2]]).detach().requires_grad_()
    target = torch.tensor([1, 1, 1])
    F.cross_entropy(head(x, target), target).backward()
    for value in (x.grad, head.weight.grad, head.scale):
        assert torch.isfinite(value).all()


def test_gradients_against_finite_differences():
    torch.manual_seed(0)
    head = SubclusterAdaCos(5, 3, 4).double().eval()
    x = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head, (x,))


@pytest.mark.parametrize(("n_classes", "n_subclusters"), [(2, 1), (5, 1), (2, 8), (5, 8)])
@pytest.mark.parametrize("mixed", [False, True])
def test_training_separates_planted_classes(n_classes, n_subclusters, mixed):
    torch.manual_seed(0)
    net = torch.nn.Linear(10, 16)
    head = SubclusterAdaCos(16, n_classes, n_subclusters, trainable=n_subclusters == 1)
    target = torch.arange(60) % n_classes
    x = 2 * torch.randn(n_classes, 10)[target] + torch.randn(60, 10)
    p = F.one_hot(target).float()
    params = [v for v in (*net.parameters(), *head.parameters()) if v.requires_grad]
    optimizer = torch.optim.Adam(params, lr=0.02)
    for _ in range(150):
        t, inputs = target, x
        if mixed:
            weight, order = torch.rand(60, 1), torch.randperm(60)
            t, inputs = p[order].lerp(p, weight), x[order].lerp(x, weight)
        optimizer.zero_grad()
        F.cross_entropy(head(net(inputs), t), t).backward()
        optimizer.step()
    assert (head(net(x)).argmax(1) == target).float().mean() > 0.95
    # Only for two centres is the scale at an end of its range.
    inside = 0.51 < (head.scale / head.initial_scale).item() < 1.99
    assert inside is (n_classes * n_subclusters > 2)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"embedding_dim": 0}, "embedding_dim must be above 0, got 0"),
        ({"n_classes": 0}, "n_classes must be above 0"),
        ({"n_subclusters": 0}, "n_subclusters must be above 0"),
    ],
)
def test_bad_parameters(params, match):
    with pytest.raises(ValueError, match=match):
        SubclusterAdaCos(**{"embedding_dim": 4, "n_classes": 2, **params})


@pytest.mark.parametrize(
    "target", [torch.zeros(3, dtype=torch.long), torch.zeros(2, 4), torch.zeros(2)]
)
def test_bad_targets(target):
    with pytest.raises(ValueError, match=r"integers of shape \(2,\) or .* shape \(2, 3\), got"):
        SubclusterAdaCos(4, 3)(torch.ones(2, 4), target)
