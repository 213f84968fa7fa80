"""MultiHeadEmbedder: which heads there are, what they learn, and what their losses let through."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from sk_asd.embedders import MultiHeadEmbedder, SectionEmbedder
from sk_asd.embedders._heads import ClassificationHead, HeadsLoss, RegressionHead, expand


def small(**params):
    defaults = {"n_frames": 16, "window_hop": 4, "module__embedding_dim": 8, "module__width": 0.1}
    training = {"max_epochs": 2, "batch_size": 16, "random_state": 0}
    return MultiHeadEmbedder("cnn6", **{**defaults, **training, **params})


def heads_loss(weights=(1.0, 1.0), loss="arcface"):
    torch.manual_seed(0)
    classifier = ClassificationHead(loss, 4, 3, margin=0.5, scale=8.0, n_subclusters=2)
    return HeadsLoss([classifier, RegressionHead(4)], weights)


class TestWhichHeads:
    def test_section_and_what_varies(self, clips):
        embedder = small().fit(clips)
        assert embedder.heads_ == {"section": "classification", "vel": "regression"}
        assert embedder.classes_["section"].tolist() == ["00", "01", "02"]
        assert embedder.statistics_["vel"] == (1.5, 0.5)

    def test_named(self, clips):
        assert list(small(targets=["domain"]).fit(clips).heads_) == ["domain"]
        embedder = small(kinds={"vel": "classification", "pat": "regression"}).fit(clips)
        assert embedder.classes_["vel"].tolist() == [1.0, 2.0]

    def test_sections_of_several_machines(self, clips):
        clips["machine"] = ("clip", np.repeat(np.array(["fan", "valve"], dtype=object), 24))
        embedder = small().fit(clips)
        assert list(embedder.heads_) == ["machine", "section", "vel"]
        assert ("valve", "02") in embedder.classes_["section"].tolist()
        assert len(embedder.classes_["section"]) == 6

    def test_booleans_are_classes(self, clips):
        clips["leak"] = ("clip", np.arange(48) % 2 == 0)
        assert small().fit(clips).heads_["leak"] == "classification"

    def test_a_head_with_one_class_is_left_out(self, clips):
        with pytest.warns(UserWarning, match="'machine' has one value, 'fan'.*left out"):
            embedder = small(targets=["section", "machine"]).fit(clips)
        assert list(embedder.heads_) == ["section"]
        clips["vel"] = ("clip", np.full(48, np.nan))
        with pytest.warns(UserWarning, match="'vel' has no value, which tells no clips apart"):
            small(targets=["section", "vel"]).fit(clips)

    def test_plain_arrays(self, clips):
        y = pd.DataFrame({"section": clips.section.values, "vel": clips.vel.values})
        bare = small().fit(clips.values, y)
        np.testing.assert_array_equal(bare.transform(clips.values), small().fit_transform(clips))
        labels = small().fit(clips.values, clips.section.values)
        assert labels.heads_ == {"class": "classification"}

    def test_one_head_is_a_section_embedder(self, clips):
        params = {"n_frames": 16, "module__embedding_dim": 8, "module__width": 0.1, "max_epochs": 2}
        params |= {"window_hop": 4, "batch_size": 16, "random_state": 0}
        np.testing.assert_array_equal(
            small(targets=["section"]).fit_transform(clips),
            SectionEmbedder("cnn6", **params).fit_transform(clips),
        )


class TestLoss:
    embedding = torch.tensor([[1.0, 2, 0, -1], [0, 1, 1, 1], [2, 0, 1, 0], [1, 1, -1, 0]])

    def test_sum_of_weighted_means_over_known_labels(self):
        criterion = heads_loss((0.5, 3.0))
        targets = torch.tensor([[0.0, 1.0], [2.0, torch.nan], [torch.nan, -1.0], [1.0, torch.nan]])
        loss = criterion(self.embedding, expand(targets, (3, None)))
        codes, rows = torch.tensor([0, 2, 1]), [0, 1, 3]
        logits = criterion.heads[0].logits(self.embedding[rows], codes)
        predicted = criterion.heads[1].linear(self.embedding[[0, 2]])[:, 0]
        expected = 0.5 * F.cross_entropy(logits, codes)
        expected += 3 * ((predicted - torch.tensor([1.0, -1.0])) ** 2).mean()
        torch.testing.assert_close(loss, expected)

    def test_a_masked_head_gets_no_gradient(self):
        criterion = heads_loss()
        targets = torch.tensor([[0.0, torch.nan], [2.0, torch.nan]])
        criterion(self.embedding[:2], expand(targets, (3, None))).backward()
        assert all(p.grad is None for p in criterion.heads[1].parameters())
        assert criterion.heads[0].logits.weight.grad.abs().sum() > 0
        assert np.isnan(criterion.last[1])

    def test_clips_without_a_label_get_no_gradient_from_that_head(self):
        embedding = self.embedding.clone().requires_grad_()
        criterion = heads_loss((1.0, 0.0))
        targets = torch.tensor([[0.0, 1.0], [torch.nan, 2.0], [1.0, 0.0], [torch.nan, 1.0]])
        criterion(embedding, expand(targets, (3, None))).backward()
        assert (embedding.grad[[1, 3]] == 0).all()
        assert (embedding.grad[[0, 2]].abs().sum(dim=1) > 0).all()

    def test_nothing_known(self):
        embedding = self.embedding.clone().requires_grad_()
        criterion = heads_loss()
        loss = criterion(embedding, expand(torch.full((4, 2), torch.nan), (3, None)))
        loss.backward()
        assert loss.item() == 0
        assert (embedding.grad == 0).all()

    @pytest.mark.parametrize("loss", ["arcface", "softmax"])
    def test_weights_scale_gradients_exactly(self, loss):
        targets = torch.tensor([[0.0, 1.0], [2.0, 0.5], [1.0, -1.0], [1.0, 2.0]])
        gradients = []
        for weight in (1.0, 4.0):
            criterion = heads_loss((1.0, weight), loss)
            criterion(self.embedding, expand(targets, (3, None))).backward()
            gradients.append([p.grad for p in criterion.parameters()])
        *classifier, weight, bias = zip(*gradients)
        for before, after in classifier:
            assert torch.equal(after, before)
        for before, after in (weight, bias):
            assert torch.equal(after, 4 * before)

    def test_history(self, clips):
        history = small().fit(clips).net_.history
        joint = history[:, "train_loss"]
        np.testing.assert_allclose(
            joint, np.add(history[:, "section_loss"], history[:, "vel_loss"]), rtol=1e-5
        )
        assert len(joint) == 2

    def test_loss_weights(self, clips):
        history = small(loss_weights={"vel": 0.25}, max_epochs=1).fit(clips).net_.history[-1]
        expected = history["section_loss"] + 0.25 * history["vel_loss"]
        assert history["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_planted_attributes_are_recovered(clips):
    """The level of four bins follows a speed that two thirds of the clips know."""
    rng = np.random.default_rng(0)
    speed = rng.uniform(10, 30, size=48)
    X = clips.copy(data=rng.normal(scale=0.3, size=clips.shape).astype("float32"))
    X[:, 4:8] += ((speed - 20) / 6).astype("float32")[:, None, None]
    known = np.where(np.arange(48) % 3 == 0, np.nan, speed)
    X["vel"] = ("clip", known)
    X["load"] = ("clip", np.where(speed > 20, "high", "low").astype(object))
    embedder = small(targets=["vel", "load"], max_epochs=60, lr=3e-3, module__dropout=(0, 0))
    predicted = embedder.fit(X).predict_targets(X)
    assert list(predicted.columns) == ["vel", "load"]
    unknown = np.isnan(known)
    assert np.corrcoef(predicted["vel"][unknown], speed[unknown])[0, 1] > 0.95
    assert np.abs(predicted["vel"] - speed).mean() < 2
    assert (predicted["load"] == X["load"].values).mean() > 0.9


def test_mixup_keeps_labels_missing(clips):
    embedder = small(mixup=1.0).fit(clips)
    assert np.isfinite(embedder.net_.history[:, "vel_loss"]).all()
    assert np.isfinite(embedder.transform(clips)).all()


class TestErrors:
    def test_nothing_varies(self, clips):
        with (
            pytest.warns(UserWarning, match="left out"),
            pytest.raises(ValueError, match=r"Nothing to learn: every target of \['machine'\]"),
        ):
            small(targets=["machine"]).fit(clips)

    def test_no_target_at_all(self, clips):
        with pytest.raises(ValueError, match="Nothing to learn"):
            small().fit(clips.drop_vars(["section", "vel"]))

    def test_missing_column(self, clips):
        with pytest.raises(ValueError, match=r"targets \['pat'\] need columns \['pat'\]; there"):
            small(targets=["pat"]).fit(clips)

    def test_text_is_no_number(self, clips):
        with pytest.raises(ValueError, match="'domain' is to be regressed, but .*such as 'source'"):
            small(targets=["domain"], kinds={"domain": "regression"}).fit(clips)

    def test_kind(self, clips):
        with pytest.raises(ValueError, match="Kinds of targets must be among.*ranking"):
            small(kinds={"domain": "ranking"}).fit(clips)

    def test_a_single_name(self, clips):
        with pytest.raises(ValueError, match="must be a sequence of columns, got 'section'"):
            small(targets="section").fit(clips)

    def test_unknown_weight(self, clips):
        with pytest.raises(ValueError, match=r"loss_weights names \['pat'\]"):
            small(loss_weights={"pat": 2}).fit(clips)
        for weight in (-1.0, 0, np.nan, np.inf, None, "1"):
            with pytest.raises(
                ValueError, match=r"loss_weights\['vel'\] must be a positive number"
            ):
                small(loss_weights={"vel": weight}).fit(clips)

    def test_lengths(self, clips):
        with pytest.raises(ValueError, match="Found 48 clips but 2 values of 'a'"):
            small().fit(clips.values, pd.DataFrame({"a": [1, 2]}))

    def test_no_labels(self, clips):
        with pytest.raises(ValueError, match="requires y to be passed.*DataFrame of targets"):
            small().fit(clips.values)
