"""What embeddings are trained to tell: one head per target, and their joint loss."""

import torch
import torch.nn.functional as F
from torch import nn

from sk_asd.networks import ArcFace, SubclusterAdaCos

LOSSES = ("arcface", "adacos", "subcluster_adacos", "softmax")


def expand(targets, heads):
    """Targets of heads side by side, as :class:`HeadsLoss` takes them.

    Parameters
    ----------
    targets : Tensor of shape (n, n_heads)
        Codes of classes, or values; NaN where unknown.
    heads : iterable of int or None
        Number of classes of every head, None for a regression.

    Returns
    -------
    Tensor of shape (n, n_columns)
        Probabilities of classes, or values; NaN where unknown.
    """
    columns = []
    for target, n_classes in zip(targets.T, heads):
        column = target[:, None]
        if n_classes is not None:
            known = ~column.isnan()
            codes = target.where(known[:, 0], 0).long()
            column = F.one_hot(codes, n_classes).float().where(known, torch.nan)
        columns.append(column)
    return torch.cat(columns, dim=1)


class ClassificationHead(nn.Module):
    """Cross-entropy of a classifier on embeddings.

    Parameters
    ----------
    loss : {"arcface", "adacos", "subcluster_adacos", "softmax"}
        Classifier.
    embedding_dim, n_classes : int
        Width of the embeddings and number of classes.
    margin, scale : float
        Of ArcFace.
    n_subclusters : int
        Of sub-cluster AdaCos.
    """

    def __init__(self, loss, embedding_dim, n_classes, *, margin=0.5, scale=32.0, n_subclusters=16):
        super().__init__()
        self.embedding_dim = embedding_dim
        self.width = n_classes
        self.angular = loss != "softmax"
        if loss == "arcface":
            self.logits = ArcFace(embedding_dim, n_classes, margin=margin, scale=scale)
        elif loss == "softmax":
            self.logits = nn.Linear(embedding_dim, n_classes)
        elif loss == "adacos":
            self.logits = SubclusterAdaCos(embedding_dim, n_classes, 1, trainable=True)
        else:
            self.logits = SubclusterAdaCos(embedding_dim, n_classes, n_subclusters)

    def forward(self, embedding, target):
        """Mean loss of embeddings (n, embedding_dim) with class probabilities (n, n_classes)."""
        logits = self.logits(embedding, target) if self.angular else self.logits(embedding)
        return F.cross_entropy(logits, target)

    def predict(self, embedding):
        """Code of the most probable class over all windows."""
        return self.logits(embedding).softmax(dim=1).mean(dim=0).argmax()


class RegressionHead(nn.Module):
    """Mean squared error of a linear regression on embeddings."""

    width = 1

    def __init__(self, embedding_dim):
        super().__init__()
        self.embedding_dim = embedding_dim
        self.linear = nn.Linear(embedding_dim, 1)

    def forward(self, embedding, target):
        """Mean loss of embeddings (n, embedding_dim) with values (n, 1)."""
        return F.mse_loss(self.linear(embedding), target)

    def predict(self, embedding):
        """Mean value over all windows."""
        return self.linear(embedding).mean()


class HeadsLoss(nn.Module):
    """Weighted sum of the losses of parallel heads (AITHU report, equation 1).

    Parameters
    ----------
    heads : list of nn.Module
        One head per target.
    weights : list of float
        Their factors.
    """

    def __init__(self, heads, weights):
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.weights = list(weights)
        self.embedding_dim = heads[0].embedding_dim
        self.last = None

    def forward(self, embedding, target):
        """Joint loss of a batch.

        A head's loss is the mean over the clips whose label it knows; of a head without any known
        label nothing is computed, so that it gets no gradient.

        Parameters
        ----------
        embedding : Tensor of shape (n, embedding_dim)
            Embeddings.
        target : Tensor of shape (n, n_columns)
            Targets of all heads side by side, from :func:`expand`, possibly blended; NaN where
            unknown.

        Returns
        -------
        Tensor of shape ()
            Joint loss; ``last`` keeps that of every head, NaN where nothing was known.
        """
        # The product keeps the graph where no head knows a label.
        joint = 0 * embedding.sum()
        self.last = []
        columns = target.split([head.width for head in self.heads], dim=1)
        for head, weight, column in zip(self.heads, self.weights, columns):
            known = ~column[:, 0].isnan()
            loss = head(embedding[known], column[known]) if known.any() else None
            self.last.append(torch.nan if loss is None else loss.item())
            if loss is not None:
                joint = joint + weight * loss
        return joint
