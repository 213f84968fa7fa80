"""Sub-cluster AdaCos: a cosine classifier with several centres a class that finds its own scale."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from sk_asd.networks._arcface import class_probabilities
from sk_asd.networks._common import check_positive


class SubclusterAdaCos(nn.Module):
    """Cosine classifier with several centres a class, whose scale follows the training.

    The probability of a centre is the softmax over ``scale * cos(theta_k)`` of all centres k,
    theta_k the angle between the embedding and the centre; that of a class is the sum over its
    centres. With ``n_subclusters=1`` and ``trainable=True`` this is AdaCos.

    Parameters
    ----------
    embedding_dim : int
        Width of the embeddings.
    n_classes : int
        Number of classes.
    n_subclusters : int, default=16
        Centres of every class.
    trainable : bool, default=False
        Train the centres. Otherwise they stay where they are drawn, as in the author's later
        systems, and only the network learns.
    adaptive : bool, default=True
        Update the scale in every training step. Otherwise it keeps its initial value, which is
        "fixed AdaCos".

    Attributes
    ----------
    weight : Parameter of shape (n_classes * n_subclusters, embedding_dim)
        The centres, of which only the direction matters, class by class; Xavier-uniform at the
        start. The head has ``n_classes * n_subclusters * embedding_dim`` parameters.
    scale : Tensor of shape ()
        Scale of the cosines, a buffer that is stored with the weights.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    See Also
    --------
    ArcFace : A head with a margin and a given scale.

    Notes
    -----
    With C classes of S centres the scale starts at ``s_0 = sqrt(2) * log(C * S - 1)``. A call with
    a target in training mode sets it, before it is used, to ::

        s = log(B_avg) / cos(min(pi / 4, theta_med))

    where B_avg is the mean over the batch of the sum over centres of
    ``(1 - p) * exp(s_previous * cos(theta))`` with p the target's probability of the centre's
    class, and theta_med is the median over the batch of the angle to the target: the mean over the
    centres of a class, and over classes by their probabilities. For whole classes this is AdaCos:
    B_avg sums over the classes that are not the target. In eval mode, or without a target, the
    scale stays.

    Three things differ from the author's code. It lets the target's own centres into B_avg,
    whereupon the scale grows without end unless every clip is mixed with another. It sums the
    angles over the centres of a class, which from two centres on leaves theta_med at the limit of
    pi / 4 as good as always; the mean does so for random centres too, and is an angle. And the
    scale is kept between ``s_0 / 2`` and ``2 * s_0``, because the recursion runs off while clips
    are nearer to a wrong centre than pi / 4. Where ``C * S`` is 2 or 1, ``log(C * S - 1)`` is 0 or
    undefined, and s_0 is that of 3, ``sqrt(2) * log(2) = 0.98``.

    References
    ----------
    Zhang et al., "AdaCos: Adaptively scaling cosine logits for effectively learning deep face
    representations", CVPR 2019. Wilkinghoff, "Sub-cluster AdaCos: Learning representations for
    anomalous sound detection", IJCNN 2021, and wilkinghoff/sub-cluster-AdaCos.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import SubclusterAdaCos
    >>> head = SubclusterAdaCos(8, n_classes=6)
    >>> head.scale  # sqrt(2) * log(6 * 16 - 1)
    tensor(6.4402)
    >>> head(torch.ones(4, 8)).shape
    torch.Size([4, 6])
    """

    def __init__(
        self, embedding_dim, n_classes, n_subclusters=16, *, trainable=False, adaptive=True
    ):
        super().__init__()
        check_positive(
            embedding_dim=embedding_dim, n_classes=n_classes, n_subclusters=n_subclusters
        )
        n_centres = n_classes * n_subclusters
        self.n_subclusters = n_subclusters
        self.adaptive = adaptive
        self.initial_scale = math.sqrt(2) * math.log(max(n_centres - 1, 2))
        self.weight = nn.Parameter(torch.empty(n_centres, embedding_dim), requires_grad=trainable)
        nn.init.xavier_uniform_(self.weight)
        self.register_buffer("scale", torch.tensor(self.initial_scale))

    def forward(self, embedding, target=None):
        """Compute the logits of the classes, and in training update the scale.

        Parameters
        ----------
        embedding : Tensor of shape (n, embedding_dim)
            Embeddings, of any length but zero.
        target : Tensor of shape (n,) or (n, n_classes), default=None
            Class of every embedding as an integer, or probabilities of the classes. The logits
            depend on it through the scale alone.

        Returns
        -------
        Tensor of shape (n, n_classes)
            Logits for the cross-entropy: logarithms of the classes' sums over centres of
            ``exp(scale * cos(theta))``.

        Raises
        ------
        ValueError
            If `target` has another shape or type.
        """
        cosine = F.linear(F.normalize(embedding), F.normalize(self.weight))
        cosine = cosine.unflatten(1, (-1, self.n_subclusters))
        if self.training and self.adaptive and target is not None:
            self._update_scale(cosine.detach().to(self.scale.dtype), target)
        return (self.scale * cosine).logsumexp(dim=2)

    @torch.no_grad()
    def _update_scale(self, cosine, target):
        p = class_probabilities(target, cosine[:, :, 0])
        others = (self.scale * cosine).logsumexp(dim=2) + (1 - p).clamp(min=0).log()
        log_b_avg = others.flatten().logsumexp(dim=0) - math.log(len(cosine))
        angles = cosine.clamp(-1, 1).acos().mean(dim=2)
        median = (p * angles).sum(dim=1).quantile(0.5)
        scale = log_b_avg / median.clamp(max=math.pi / 4).cos()
        self.scale.copy_(scale.clamp(self.initial_scale / 2, 2 * self.initial_scale))
