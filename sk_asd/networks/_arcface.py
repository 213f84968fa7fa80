"""ArcFace: a classification head with an additive angular margin."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from sk_asd.networks._common import check_positive


class ArcFace(nn.Module):
    """Cosine classifier whose target class must win by an angle.

    The logit of class j is ``scale * cos(theta_j)``, theta_j the angle between the embedding and
    the class's weight vector. In training the logit of the target class alone becomes
    ``scale * cos(theta + margin)``. Past ``theta = pi - margin``, where this would rise again, it
    goes on as ``scale * (cos(theta) - margin * sin(margin))``, so that it falls with theta
    everywhere. Where the target is a mixture of classes, as mixup makes it, the logits are the mean
    of those for each of its classes, weighted by the probabilities.

    Parameters
    ----------
    embedding_dim : int
        Width of the embeddings.
    n_classes : int
        Number of classes.
    margin : float, default=0.5
        Additive angle in radians, in [0, pi).
    scale : float, default=32.0
        Factor of all logits.

    Attributes
    ----------
    weight : Parameter of shape (n_classes, embedding_dim)
        One vector per class, of which only the direction matters; Xavier-uniform at the start. The
        head has ``n_classes * embedding_dim`` parameters.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    See Also
    --------
    SubclusterAdaCos : A head without margin that finds its scale itself.
    MobileFaceNet : Embeddings of spectrograms.
    Cnn6 : Embeddings of spectrograms.

    References
    ----------
    Deng et al., "ArcFace: Additive angular margin loss for deep face recognition", CVPR 2019,
    equation 3.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import ArcFace
    >>> head = ArcFace(2, n_classes=2, margin=0.5, scale=1.0)
    >>> _ = torch.nn.init.eye_(head.weight)
    >>> embedding = torch.tensor([[3.0, 4.0]])
    >>> head(embedding).detach()
    tensor([[0.6000, 0.8000]])
    >>> head(embedding, torch.tensor([0])).detach()  # cos(acos(0.6) + 0.5) = 0.1430
    tensor([[0.1430, 0.8000]])
    """

    def __init__(self, embedding_dim, n_classes, *, margin=0.5, scale=32.0):
        super().__init__()
        check_positive(embedding_dim=embedding_dim, n_classes=n_classes, scale=scale)
        if not 0 <= margin < math.pi:
            raise ValueError(f"margin must be in [0, pi), got {margin!r}.")
        self.margin = margin
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(n_classes, embedding_dim))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, embedding, target=None):
        """Compute the logits of the classes.

        Parameters
        ----------
        embedding : Tensor of shape (n, embedding_dim)
            Embeddings, of any length but zero.
        target : Tensor of shape (n,) or (n, n_classes), default=None
            Class of every embedding as an integer, whose logit gets the margin, or probabilities of
            the classes. None: no margin anywhere.

        Returns
        -------
        Tensor of shape (n, n_classes)
            Logits for the cross-entropy.

        Raises
        ------
        ValueError
            If `target` has another shape or type.
        """
        cos = F.linear(F.normalize(embedding), F.normalize(self.weight))
        if target is None:
            return self.scale * cos
        # The slope of the root is infinite at cos = 1 and -1, where rounding ends up: keep off it.
        sin = (1 - cos * cos).clamp(min=torch.finfo(cos.dtype).eps).sqrt()
        wanted = torch.where(
            cos > -math.cos(self.margin),
            cos * math.cos(self.margin) - sin * math.sin(self.margin),
            cos - self.margin * math.sin(self.margin),
        )
        return self.scale * torch.lerp(cos, wanted, class_probabilities(target, cos))


def class_probabilities(target, logits):
    """Return `target` as probabilities in the shape and type of `logits`.

    Raises
    ------
    ValueError
        If `target` is neither integers of shape (n,) nor probabilities of shape (n, n_classes).
    """
    if target.shape == logits.shape and target.is_floating_point():
        return target.to(logits.dtype)
    if target.shape == logits.shape[:1] and not target.is_floating_point():
        return F.one_hot(target.long(), logits.shape[1]).to(logits.dtype)
    raise ValueError(
        f"target must be integers of shape {tuple(logits.shape[:1])} or probabilities of shape "
        f"{tuple(logits.shape)}, got {target.dtype} of shape {tuple(target.shape)}."
    )
