"""Mixtures of diagonal Gaussians whose parameters a network gives."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from sk_asd.networks._common import check_positive

MIXTURES = ("frame", "bin", "literal")
_SPREAD = 0.3  # of the components' first means around each other


class GaussianMixtureDensity(nn.Module):
    r"""Negative log-likelihood of frames under Gaussian mixtures with diagonal covariances.

    A network gives the raw parameters of a mixture for every frame: first the means, then the
    scales, then the logits of the weights where these are learnt. It should give numbers around 0
    for features of zero mean and unit variance.

    Parameters
    ----------
    n_bins : int
        Bins of a frame.
    n_components : int, default=3
        Gaussians of a mixture, :math:`C`.
    mixture : {"frame", "bin", "literal"}, default="frame"
        What is mixed.

        - ``"frame"``: the frame :math:`x` as a whole comes from one of the components,
          :math:`p(x) = \sum_m w_m \prod_i N(x_i; \mu_{mi}, \sigma_{mi})`. The report means this by
          its equations (3) and (4), which lack the weights and have their indices exchanged.
        - ``"bin"``: every bin chooses its component for itself,
          :math:`p(x) = \prod_i \sum_m w_{mi} N(x_i; \mu_{mi}, \sigma_{mi})`.
        - ``"literal"``: equation (4) of the report as it is printed, read bin by bin,
          :math:`\sum_i \prod_m N(x_i; \mu_{mi}, \sigma_{mi})` in place of the likelihood. It is no
          density, the best predicted bin decides on it, and nothing is learnt about the others:
          for comparison only.
    weights : {"equal", "learned"}, default="equal"
        Equal weights :math:`1/C`, as in the report, or weights that the network gives.
    scale : {"learned", "unit"}, default="learned"
        Scales that the network gives, or 1 for all.
    min_scale : float or Tensor of shape (n_bins,), default=1e-3
        Added to the scales, which the softplus of the raw numbers is: no density is higher than
        ``0.4 / min_scale``.

    Attributes
    ----------
    n_outputs : int
        Numbers that the network must give for every frame: ``2 * n_components * n_bins`` by
        default.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an input has another shape than announced.

    Notes
    -----
    The means of several components start 0.3 apart, in an order drawn here for every bin;
    components that start alike would stay alike.

    References
    ----------
    AITHU report for DCASE 2022 task 2, section 3.2, equations (3) and (4).

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import GaussianMixtureDensity
    >>> density = GaussianMixtureDensity(n_bins=2, n_components=1, scale="unit")
    >>> density(torch.zeros(1, 2), torch.tensor([[1.0, 2.0]]))  # (1 + 4) / 2 + log(2 pi)
    tensor([4.3379])
    """

    def __init__(
        self,
        n_bins,
        n_components=3,
        *,
        mixture="frame",
        weights="equal",
        scale="learned",
        min_scale=1e-3,
    ):
        super().__init__()
        check_positive(n_bins=n_bins, n_components=n_components)
        if mixture not in MIXTURES:
            raise ValueError(f"mixture must be one of {MIXTURES}, got {mixture!r}.")
        if weights not in ("equal", "learned"):
            raise ValueError(f"weights must be 'equal' or 'learned', got {weights!r}.")
        if scale not in ("learned", "unit"):
            raise ValueError(f"scale must be 'learned' or 'unit', got {scale!r}.")
        if mixture == "literal" and weights == "learned":
            raise ValueError("mixture='literal' has no weights: weights must be 'equal'.")
        floor = torch.as_tensor(min_scale, dtype=torch.float32).expand(n_bins)
        if not (floor > 0).all():
            raise ValueError(f"min_scale must be above 0, got {min_scale!r}.")
        self.n_bins = n_bins
        self.n_components = n_components
        self.mixture = mixture
        self.scale = scale
        size = n_components * n_bins
        n_scales = size if scale == "learned" else 0
        n_weights = {"frame": n_components, "bin": size}[mixture] if weights == "learned" else 0
        self._sizes = [size, n_scales, n_weights]
        self.n_outputs = sum(self._sizes)
        self.register_buffer("min_scale", floor.clone())
        offsets = torch.zeros(n_components, n_bins)
        if n_components > 1:
            ranks = torch.rand(n_components, n_bins).argsort(dim=0)
            offsets += _SPREAD * (ranks - (n_components - 1) / 2)
        self.register_buffer("offsets", offsets)

    def parameters_of(self, raw):
        """Parameters of the mixtures.

        Parameters
        ----------
        raw : Tensor of shape (batch, n_outputs)
            What the network gives.

        Returns
        -------
        mean, scale : Tensor of shape (batch, n_components, n_bins)
            Means and standard deviations.
        log_weight : Tensor of shape (batch, n_components, 1) or (batch, n_components, n_bins)
            Logarithms of the weights, for every bin with ``mixture="bin"`` and learnt weights.
        """
        if raw.ndim != 2 or raw.shape[1] != self.n_outputs:
            raise ValueError(
                f"Expected raw parameters of shape (batch, {self.n_outputs}), got "
                f"{tuple(raw.shape)}."
            )
        # bfloat16 has too few digits for a sum over bins.
        mean, scale, logits = raw.float().split(self._sizes, dim=1)
        shape = (self.n_components, -1)
        mean = mean.unflatten(1, shape) + self.offsets
        if self.scale == "unit":
            scale = torch.ones_like(mean)
        else:
            scale = F.softplus(scale.unflatten(1, shape)) + self.min_scale
        if logits.shape[1]:
            log_weight = logits.unflatten(1, shape).log_softmax(dim=1)
        else:
            log_weight = mean.new_full((*mean.shape[:2], 1), -math.log(self.n_components))
        return mean, scale, log_weight

    def forward(self, raw, x):
        """Negative log-likelihood of frames.

        Parameters
        ----------
        raw : Tensor of shape (batch, n_outputs)
            What the network gives.
        x : Tensor of shape (batch, n_bins)
            The frames.

        Returns
        -------
        Tensor of shape (batch,)
            Negative log-likelihoods in nats, sums over the bins.
        """
        log_density, log_weight = self._log_densities(raw, x)
        if self.mixture == "literal":
            return -log_density.sum(dim=1).logsumexp(dim=1)
        if self.mixture == "bin":
            return -(log_density + log_weight).logsumexp(dim=1).sum(dim=1)
        return -(log_density.sum(dim=2) + log_weight[:, :, 0]).logsumexp(dim=1)

    def by_bin(self, raw, x):
        r"""Every bin's part in the negative log-likelihood.

        A mixture of whole frames does not fall apart into bins by itself. Its components are
        weighted here by their responsibilities :math:`r_m` for the frame,
        :math:`-\log p(x) = -\sum_i \sum_m r_m \log N(x_i; \mu_{mi}, \sigma_{mi}) + KL(r, w)`, and
        all bins have the same part in the last term.

        Parameters
        ----------
        raw : Tensor of shape (batch, n_outputs)
            What the network gives.
        x : Tensor of shape (batch, n_bins)
            The frames.

        Returns
        -------
        Tensor of shape (batch, n_bins)
            Parts in nats; their sum is the result of :meth:`forward`, except for
            ``mixture="literal"``, where they are the means of the components' terms.
        """
        log_density, log_weight = self._log_densities(raw, x)
        if self.mixture == "literal":
            return -log_density.mean(dim=1)
        if self.mixture == "bin":
            return -(log_density + log_weight).logsumexp(dim=1)
        joint = log_density.sum(dim=2, keepdim=True) + log_weight
        share = joint.softmax(dim=1)
        divergence = (share * (joint.log_softmax(dim=1) - log_weight)).sum(dim=1)
        return divergence / self.n_bins - (share * log_density).sum(dim=1)

    def _log_densities(self, raw, x):
        """Log-densities (batch, n_components, n_bins) and log-weights."""
        mean, scale, log_weight = self.parameters_of(raw)
        if x.shape != (len(raw), self.n_bins):
            raise ValueError(
                f"Expected frames of shape ({len(raw)}, {self.n_bins}), got {tuple(x.shape)}."
            )
        z = (x[:, None] - mean) / scale
        return -0.5 * z**2 - scale.log() - 0.5 * math.log(2 * math.pi), log_weight
