"""The dense autoencoder of the challenge baselines."""

import math

from torch import nn

from sk_asd.networks._common import check_positive


class AutoEncoder(nn.Module):
    """Dense autoencoder: vectors in, their reconstructions out.

    Parameters
    ----------
    n_inputs : int, default=640
        Number of values of an input: 5 frames of 128 bins in the baseline.
    latent_dim : int, default=8
        Width of the layer in the middle.
    width : int, default=128
        Width of the other hidden layers.
    depth : int, default=4
        Number of those before the middle, and after it.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an input has another number of values.

    Notes
    -----
    All hidden layers, the one in the middle included, have batch normalisation and ReLU; the last
    layer is linear. 267,928 trainable parameters; Keras, which counts the running statistics as
    well, says 269,992.

    References
    ----------
    Dohi, K. et al. "Description and discussion on DCASE 2022 challenge task 2", DCASE 2022.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import AutoEncoder
    >>> AutoEncoder().eval()(torch.zeros(4, 128, 5)).shape
    torch.Size([4, 128, 5])
    """

    def __init__(self, n_inputs=640, latent_dim=8, *, width=128, depth=4):
        super().__init__()
        check_positive(n_inputs=n_inputs, latent_dim=latent_dim, width=width, depth=depth)
        self.n_inputs = n_inputs
        layers, n_in = [], n_inputs
        for n_out in (*[width] * depth, latent_dim, *[width] * depth):
            # Keras counts the momentum from the other end, and its 0.99 is torch's 0.01.
            norm = nn.BatchNorm1d(n_out, eps=1e-3, momentum=0.01)
            layers += [nn.Linear(n_in, n_out), norm, nn.ReLU()]
            n_in = n_out
        self.layers = nn.Sequential(*layers, nn.Linear(width, n_inputs))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x):
        """Reconstruct vectors.

        Parameters
        ----------
        x : Tensor of shape (batch, ...)
            Vectors, or windows that are taken for vectors of all their values.

        Returns
        -------
        Tensor of shape (batch, ...)
            Reconstructions, of the shape of `x`.
        """
        if math.prod(x.shape[1:]) != self.n_inputs:
            raise ValueError(
                f"The network was built for {self.n_inputs} values, got inputs of shape "
                f"{tuple(x.shape)}."
            )
        return self.layers(x.flatten(1)).view_as(x)
