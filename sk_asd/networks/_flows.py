"""Conditional normalizing flows: the density of some bins given the others."""

import math
from functools import partial

import torch
from torch import nn

from sk_asd.networks._common import check_positive

FLOWS = ("maf", "nsf", "realnvp", "gaussian")
_SPLINE_BINS = 8
# Every affine block may stretch or shrink a bin by at most exp(3).
_LEAST_SLOPE = math.exp(-3)


class ConditionalFlow(nn.Module):
    r"""Density of a vector given a context.

    Parameters
    ----------
    n_features : int
        Length of the vector.
    n_context : int, default=0
        Length of the context; 0 for a density without any.
    flow : {"maf", "nsf", "realnvp", "gaussian"}, default="maf"
        "maf" stacks affine autoregressive blocks ([1]_), in turn in ascending and descending order;
        "realnvp" the same with two halves of the vector in place of an order ([2]_), where the
        first half depends on the context alone; "nsf" puts one affine autoregressive block before
        blocks of monotonic splines ([3]_). "gaussian" is a normal distribution whose mean is linear
        in the context and whose covariance is the same everywhere.
    transforms : int, default=5
        Number of blocks; not for "gaussian".
    hidden_features : sequence of int, default=(128, 128)
        Widths of the hidden layers of every block; not for "gaussian".
    context_features : int, default=64
        Width to which a network brings the context, once for all blocks; not for "gaussian".

    Raises
    ------
    ValueError
        If `flow` is unknown or a number is not positive.

    See Also
    --------
    GroupedFlow : Densities of all groups of bins given the others.

    Notes
    -----
    Blocks never permute the vector, so that entry i of the vector is mapped to entry i of the
    latent vector, and the log-density falls into a sum over entries:
    :math:`\log N(z_i; 0, 1) + \log |\partial z_i / \partial x_i|`, of which the last term is summed
    over blocks.

    References
    ----------
    .. [1] Papamakarios, G. et al. "Masked autoregressive flow for density estimation", NeurIPS
       2017.
    .. [2] Dinh, L. et al. "Density estimation using Real NVP", ICLR 2017.
    .. [3] Durkan, C. et al. "Neural spline flows", NeurIPS 2019.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import ConditionalFlow
    >>> flow = ConditionalFlow(3, n_context=2, transforms=2)
    >>> flow(torch.zeros(4, 3), torch.zeros(4, 2)).shape
    torch.Size([4, 3])
    """

    def __init__(
        self,
        n_features,
        n_context=0,
        *,
        flow="maf",
        transforms=5,
        hidden_features=(128, 128),
        context_features=64,
    ):
        # Here, so that the package can be imported without it.
        import zuko

        super().__init__()
        if flow not in FLOWS:
            raise ValueError(f"flow must be one of {FLOWS}, got {flow!r}.")
        check_positive(
            n_features=n_features, transforms=transforms, context_features=context_features
        )
        self.context_net = None
        if n_context and flow != "gaussian":
            self.context_net = zuko.nn.MLP(n_context, context_features, hidden_features[:1])
            n_context = context_features

        def block(order, univariate, shapes, passes=None):
            return zuko.flows.MaskedAutoregressiveTransform(
                n_features,
                n_context,
                passes=passes,
                order=order,
                univariate=univariate,
                shapes=shapes,
                hidden_features=() if flow == "gaussian" else hidden_features,
            )

        affine = partial(zuko.transforms.MonotonicAffineTransform, slope=_LEAST_SLOPE), ((), ())
        ascending = torch.arange(n_features)
        self.log_scale = None
        if flow == "gaussian":
            self.log_scale = nn.Parameter(torch.zeros(n_features))
            blocks = [block(ascending, zuko.transforms.AdditiveTransform, ((),))]
        elif flow == "realnvp":
            # Even entries are the first half, then odd ones.
            halves = torch.argsort(torch.cat([ascending[::2], ascending[1::2]]))
            orders = halves, n_features - 1 - halves
            blocks = [block(orders[i % 2], *affine, passes=2) for i in range(transforms)]
        else:
            orders = ascending, ascending.flip(0)
            blocks = [block(orders[i % 2], *affine) for i in range(transforms)]
        if flow == "nsf":
            spline = (
                zuko.transforms.MonotonicRQSTransform,
                ((_SPLINE_BINS,), (_SPLINE_BINS,), (_SPLINE_BINS - 1,)),
            )
            # Splines reach from -5 to 5; the affine block brings the context's part of it there.
            blocks[1:] = [block(orders[(i + 1) % 2], *spline) for i in range(transforms)]
        self.blocks = nn.ModuleList(blocks)

    def encode(self, x, context=None):
        """Map vectors to latent ones.

        Parameters
        ----------
        x : Tensor of shape (n, n_features)
            Vectors.
        context : Tensor of shape (n, n_context), default=None
            What they depend on.

        Returns
        -------
        z : Tensor of shape (n, n_features)
            Latent vectors, standard normal under the model.
        log_slope : Tensor of shape (n, n_features)
            Logarithm of the derivative of every latent entry by its own entry of `x`; the sum over
            entries is the log-determinant of the Jacobian.
        """
        context = self._context(context)
        log_slope = torch.zeros_like(x)
        for block in self.blocks:
            transform = block(context)
            # A block of a single entry depends on nothing but the context.
            dependent = transform.meta(x) if hasattr(transform, "meta") else transform
            x, slope = dependent.base.call_and_ladj(x)
            log_slope = log_slope + slope
        if self.log_scale is not None:
            x = x * self.log_scale.exp()
            log_slope = log_slope + self.log_scale
        return x, log_slope

    def decode(self, z, context=None):
        """Map latent vectors back.

        Parameters
        ----------
        z : Tensor of shape (n, n_features)
            Latent vectors; drawn from a standard normal distribution they give draws from the
            model.
        context : Tensor of shape (n, n_context), default=None
            What the vectors depend on.

        Returns
        -------
        Tensor of shape (n, n_features)
            Vectors.
        """
        context = self._context(context)
        if self.log_scale is not None:
            z = z * (-self.log_scale).exp()
        for block in reversed(self.blocks):
            z = block(context).inv(z)
        return z

    def forward(self, x, context=None):
        """Log-density, entry by entry.

        Parameters
        ----------
        x : Tensor of shape (n, n_features)
            Vectors.
        context : Tensor of shape (n, n_context), default=None
            What they depend on.

        Returns
        -------
        Tensor of shape (n, n_features)
            Contributions of the entries in nats, whose sum is the log-density.
        """
        z, log_slope = self.encode(x, context)
        return log_slope - 0.5 * (z.square() + math.log(2 * math.pi))

    def _context(self, context):
        return context if self.context_net is None else self.context_net(context)


class GroupedFlow(nn.Module):
    """Densities of groups of bins, each given all other bins and a context.

    The bins fall into groups, and every group has a :class:`ConditionalFlow` of its own, which is
    given the bins outside of the group and, where there is one, a context such as the section. This
    is the reading taken here of NFCDEE, conditional density estimation by normalizing flows, which
    the AITHU report for DCASE 2022 task 2 builds on (section 3.2).

    Parameters
    ----------
    n_bins : int
        Number of bins.
    n_context : int, default=0
        Length of the context.
    n_groups : int, default=8
        Number of groups; their sizes differ by one at most.
    grouping : {"contiguous", "strided"}, default="contiguous"
        Neighbouring bins make a group, or every `n_groups`-th bin.
    **kwargs : dict
        Parameters of :class:`ConditionalFlow`.

    Attributes
    ----------
    groups : list of list of int
        Bins of every group.
    flows : ModuleList
        The flow of every group.

    Raises
    ------
    ValueError
        If there are fewer bins than groups.

    See Also
    --------
    WeightedStatisticPooling : From spectrograms to one number per bin.

    Notes
    -----
    The sum over groups is a pseudo log-likelihood: as the groups are given each other, it is not
    the logarithm of a joint density, but for ``n_groups=1``.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import GroupedFlow
    >>> flow = GroupedFlow(5, n_groups=2, transforms=1)
    >>> flow.groups
    [[0, 1, 2], [3, 4]]
    >>> flow(torch.zeros(7, 5)).shape
    torch.Size([7, 5])
    """

    def __init__(self, n_bins, n_context=0, *, n_groups=8, grouping="contiguous", **kwargs):
        super().__init__()
        check_positive(n_groups=n_groups)
        if n_bins < n_groups:
            raise ValueError(f"{n_groups} groups need at least as many bins, got {n_bins}.")
        if grouping not in ("contiguous", "strided"):
            raise ValueError(f"grouping must be 'contiguous' or 'strided', got {grouping!r}.")
        bins = torch.arange(n_bins)
        if grouping == "contiguous":
            groups = bins.tensor_split(n_groups)
        else:
            groups = [bins[k::n_groups] for k in range(n_groups)]
        self.groups = [group.tolist() for group in groups]
        self.flows = nn.ModuleList()
        for k, group in enumerate(groups):
            n_given = n_bins - len(group) + n_context
            self.flows.append(ConditionalFlow(len(group), n_given, **kwargs))
            self.register_buffer(f"own_{k}", group)
            self.register_buffer(f"others_{k}", bins[~torch.isin(bins, group)])

    def forward(self, x, context=None):
        """Log-densities, bin by bin.

        Parameters
        ----------
        x : Tensor of shape (n, n_bins)
            One number per bin.
        context : Tensor of shape (n, n_context), default=None
            What else the groups depend on.

        Returns
        -------
        Tensor of shape (n, n_bins)
            Contributions of the bins in nats; their sum over the bins of a group is the group's
            log-density given the others.
        """
        density = torch.empty_like(x)
        for k, flow in enumerate(self.flows):
            own = getattr(self, f"own_{k}")
            given = x[:, getattr(self, f"others_{k}")]
            if context is not None:
                given = torch.cat([given, context], dim=1)
            density[:, own] = flow(x[:, own], given if given.shape[1] else None)
        return density
