"""The skorch net of embedders."""

import numpy as np

from sk_asd.networks import mixup
from sk_asd.utils._training import SeededNet


class EmbeddingNet(SeededNet):
    """Trains a module and the heads on its embeddings, with mixup, and keeps every head's loss.

    Attributes
    ----------
    mixup : float
        Parameter of the Beta distribution that weights are drawn from; 0 for no mixup.
    head_names : list of str
        Names under which the losses of several heads appear in the history, as ``<name>_loss``.
    """

    mixup = 0.0
    head_names = ()

    def train_step_single(self, batch, **fit_params):
        """Forward and backward pass of one batch of windows."""
        if self.mixup:
            batch = mixup(*batch, self.mixup)
        step = super().train_step_single(batch, **fit_params)
        if len(self.head_names) > 1:
            for name, loss in zip(self.head_names, self.criterion_.last):
                self.history.record_batch(f"{name}_loss", loss)
        return step

    def on_epoch_end(self, net, **kwargs):
        """Mean loss of every head over the batches that knew its labels."""
        super().on_epoch_end(net, **kwargs)
        if len(self.head_names) > 1:
            for name in self.head_names:
                losses = np.array(self.history[-1, "batches", :, f"{name}_loss"])
                known = losses[~np.isnan(losses)]
                self.history.record(f"{name}_loss", known.mean() if len(known) else np.nan)
