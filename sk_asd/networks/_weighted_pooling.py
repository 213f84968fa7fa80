"""Weighted statistic pooling: one vector per bin from the mean and spread over time."""

import torch
from torch import nn


class WeightedStatisticPooling(nn.Module):
    r"""Weighted sum of the mean and the standard deviation over time.

    :math:`\alpha \cdot \mathrm{mean} + \beta \cdot \mathrm{std}` with
    :math:`\alpha + \beta = 1` and both positive, equation (2) of the AITHU report for DCASE 2022
    task 2; one pair for all bins, :math:`\alpha = 1 / (1 + e^{-a})` of a trained number a.

    Parameters
    ----------
    alpha : float, default=0.5
        Weight of the mean at the start, between 0 and 1, both exclusive.
    trainable : bool, default=True
        Train the weight, or keep it.

    Attributes
    ----------
    logit : Parameter of shape ()
        The number a.

    Raises
    ------
    ValueError
        If `alpha` is not between 0 and 1.

    See Also
    --------
    GroupedFlow : The density that usually follows.

    Notes
    -----
    The map from a spectrogram to the pooled vector has no Jacobian, so that a likelihood of the
    pooled vector alone prefers the weights with which it varies least, whether they tell anything
    or not. Standardise the pooled vector for the weights at hand before its likelihood is taken.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import WeightedStatisticPooling
    >>> pooling = WeightedStatisticPooling(alpha=0.75)
    >>> x = torch.tensor([[[2.0, 6.0]]])  # mean 4, standard deviation 2
    >>> pooling(x).detach()
    tensor([[3.5000]])
    """

    def __init__(self, alpha=0.5, *, trainable=True):
        super().__init__()
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be between 0 and 1, both exclusive, got {alpha!r}.")
        self.logit = nn.Parameter(torch.tensor(float(alpha)).logit(), requires_grad=trainable)

    def weights(self):
        """Weights of mean and standard deviation.

        Returns
        -------
        Tensor of shape (2,)
            Alpha and beta.
        """
        return torch.stack([self.logit.sigmoid(), (-self.logit).sigmoid()])

    def forward(self, x):
        """Pool windows.

        Parameters
        ----------
        x : Tensor of shape (batch, n_bins, n_frames)
            Windows of a spectrogram.

        Returns
        -------
        Tensor of shape (batch, n_bins)
            Pooled windows; the standard deviation is that of the window itself, over its number of
            frames.
        """
        std, mean = torch.std_mean(x, dim=2, correction=0)
        return torch.einsum("s,sbi->bi", self.weights(), torch.stack([mean, std]))
