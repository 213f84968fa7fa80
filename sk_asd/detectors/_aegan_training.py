"""What AEGANDetector trains: two networks against each other, each with an optimizer of its own."""

import torch
import torch.nn.functional as F
from skorch import NeuralNet
from skorch.callbacks import PassthroughScoring
from torch import nn

from sk_asd.networks._aegan import AEGANDiscriminator, AEGANGenerator
from sk_asd.utils._training import SeededNet


class RangeScaler(nn.Module):
    """Brings the range of the training data to [−1, 1].

    Parameters
    ----------
    low, high : float
        Least and greatest value of the training data.
    """

    def __init__(self, low, high):
        super().__init__()
        self.register_buffer("middle", torch.tensor((high + low) / 2))
        self.register_buffer("half_range", torch.tensor((high - low) / 2))

    def forward(self, x):
        """Scale `x`; what lies outside the range of the training data comes out beyond ±1."""
        return (x - self.middle) / self.half_range


class AEGAN(nn.Module):
    """Scaling, generator and, for adversarial training, discriminator.

    Parameters
    ----------
    size : tuple of int (bins, frames)
        Size of the windows.
    low, high : float
        Range of the training data.
    adversarial : bool, default=True
        Whether there is a discriminator.
    width : float, default=1.0
        Multiplier of the channel numbers of both.
    discriminator_norm : {"layer", "batch", "instance"}, default="layer"
        Normalisation in the discriminator.
    **params : dict
        Parameters of the generator.
    """

    def __init__(
        self, size, low, high, *, adversarial=True, width=1.0, discriminator_norm="layer", **params
    ):
        super().__init__()
        self.scale = RangeScaler(low, high)
        self.generator = AEGANGenerator(size, width=width, **params)
        self.discriminator = None
        if adversarial:
            self.discriminator = AEGANDiscriminator(size, width=width, norm=discriminator_norm)

    def forward(self, x, section=None):
        """Scaled windows, their latent vectors and their reconstructions."""
        x = self.scale(x)
        z = self.generator.encode(x)
        return x, z, self.generator.decode(z, section)


def gradient_penalty(critic, real, fake, share=None):
    """Mean squared deviation of the critic's gradient norm from one, last term of eq. (5).

    Parameters
    ----------
    critic : callable
        From windows (batch, bins, frames) to numbers (batch,).
    real, fake : Tensor of shape (batch, bins, frames)
        Windows; the gradients are those at a place between each pair.
    share : Tensor of shape (batch,), default=None
        Share of `real` in that place; None draws it uniformly from [0, 1).

    Returns
    -------
    Tensor
        The penalty, through which gradients flow to the parameters of the critic.
    """
    if share is None:
        share = torch.rand(len(real), device=real.device)
    share = share[:, None, None]
    between = (share * real + (1 - share) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def feature_distance(real, fake, statistics=("mean",)):
    """Distance of the batch statistics of features, second term of eq. (6).

    Parameters
    ----------
    real, fake : Tensor of shape (batch, n_features)
        Features of windows and of their reconstructions.
    statistics : sequence of {"mean", "std"}, default=("mean",)
        What is compared.

    Returns
    -------
    Tensor
        Squared differences, the mean over features.
    """
    distance = 0.0
    for name in statistics:
        a, b = (getattr(features, name)(dim=0) for features in (real, fake))
        distance = distance + F.mse_loss(b, a)
    return distance


class AEGANLoss(nn.MSELoss):
    """Mean squared error of reconstruction, and how the other parts of the losses are weighted.

    Parameters
    ----------
    penalty_weight : float, default=10.0
        Weight of the gradient penalty in the discriminator's loss.
    matching_weight : float, default=0.1
        Weight of feature matching in the generator's loss.
    match : {"mean", "mean_std"}, default="mean"
        Statistics of features to match.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    def __init__(self, penalty_weight=10.0, matching_weight=0.1, match="mean"):
        super().__init__()
        for name in ("penalty_weight", "matching_weight"):
            weight = locals()[name]
            if not 0 <= weight < float("inf"):
                raise ValueError(f"loss__{name} must be a number from 0 on, got {weight!r}.")
        if match not in ("mean", "mean_std"):
            raise ValueError(f"loss__match must be 'mean' or 'mean_std', got {match!r}.")
        self.penalty_weight = penalty_weight
        self.matching_weight = matching_weight
        self.statistics = tuple(match.split("_"))


class _TwoSteps(NeuralNet):
    """A training step is one of the discriminator, if there is one, and then one of the generator.

    The criterion is :class:`AEGANLoss`.
    """

    def initialize_optimizer(self, *args, **kwargs):
        """Make one optimizer for the generator and one of the same kind for the discriminator."""
        self.optimizer_ = self._optimizer_of(self.module_.generator)
        if self.module_.discriminator is not None:
            self.discriminator_optimizer_ = self._optimizer_of(self.module_.discriminator)
        return self

    def _optimizer_of(self, network):
        groups, params = self.get_params_for_optimizer("optimizer", network.named_parameters())
        return self.optimizer(*groups, **params)

    def train_step(self, batch, **fit_params):
        """Both steps on a batch; its loss is that of the generator."""
        self._set_training(True)
        windows, section = (part.to(self.device) for part in batch)
        # One pass of the generator serves both: the discriminator's step does not change it.
        x, _, fake = self.infer(windows, section=section)
        failed = None
        if self.module_.discriminator is not None:
            loss = self.discriminator_step(x, fake.detach(), batch)
            failed = None if torch.isfinite(loss) else loss
        loss = self.generator_step(x, fake, batch)
        return {"loss": loss if failed is None else failed, "y_pred": fake}

    def discriminator_step(self, x, fake, batch):
        """Lower eq. (5) of the report for windows and reconstructions without a graph."""
        critic = self.module_.discriminator
        self.discriminator_optimizer_.zero_grad()
        with self._precision():
            loss = (critic(fake).mean() - critic(x).mean()).float()
        if self.criterion_.penalty_weight:
            penalty = gradient_penalty(critic, x, fake)
            loss = loss + self.criterion_.penalty_weight * penalty
            self.history.record_batch("penalty", penalty.item())
        loss.backward()
        self._step(self.discriminator_optimizer_, critic, batch)
        self.history.record_batch("discriminator_loss", loss.item())
        return loss.detach()

    def generator_step(self, x, fake, batch):
        """Lower eq. (6) of the report for windows and reconstructions with their graph."""
        self.optimizer_.zero_grad()
        loss = self.criterion_(fake, x)
        critic = self.module_.discriminator
        if critic is not None:
            self.history.record_batch("reconstruction_loss", loss.item())
        if critic is not None and self.criterion_.matching_weight:
            critic.requires_grad_(False)  # saves gradients that nobody would use
            with self._precision():
                features = critic.embed(x), critic.embed(fake)
            features = (f.float() for f in features)
            matching = feature_distance(*features, self.criterion_.statistics)
            critic.requires_grad_(True)
            loss = loss + self.criterion_.matching_weight * matching
            self.history.record_batch("matching_loss", matching.item())
        loss.backward()
        self._step(self.optimizer_, self.module_.generator, batch)
        return loss.detach()

    def _step(self, optimizer, network, batch):
        named = list(network.named_parameters())
        self.notify("on_grad_computed", named_parameters=named, batch=batch, training=True)
        optimizer.step()

    def _precision(self):
        device = torch.device(self.device).type
        return torch.autocast(device, torch.bfloat16, enabled=self.mixed_precision)

    def on_train_end(self, net, *args, **kwargs):
        """Let go of the second optimizer, as the detector does of the first."""
        super().on_train_end(net, *args, **kwargs)
        self.discriminator_optimizer_ = None


class AEGANNet(SeededNet, _TwoSteps):
    """skorch net with two optimizers, whose draws and failures are :class:`SeededNet`'s affair."""


def epoch_means(adversarial, loss):
    """Callbacks that enter the mean of each part of the losses into the history."""
    parts = []
    if adversarial:
        parts += ["discriminator_loss", "reconstruction_loss"]
        parts += ["penalty"] if loss.penalty_weight else []
        parts += ["matching_loss"] if loss.matching_weight else []
    return [(name, PassthroughScoring(name, on_train=True)) for name in parts]
