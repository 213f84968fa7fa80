"""Batches, net and checkpoints of :class:`~sk_asd.embedders.Wav2VecPretrainer`."""

import json
import math
import os
import pickle
from pathlib import Path

import numpy as np
import torch
from skorch.callbacks import Callback
from skorch.history import History
from torch import nn
from torch.utils.data import Dataset, Sampler

from sk_asd.utils._files import replacing
from sk_asd.utils._training import SeededNet

_KIND = "sk_asd.Wav2VecPretrainer"
# Learning rates that a training begins and ends with, those of the report.
_FIRST_LR, _LAST_LR = 1e-7, 1e-6


class CropBatches(Dataset):
    """Whole batches of crops of clips, each a function of the seed and of its number alone.

    So an interrupted training goes on with the very batches it would have had.

    Parameters
    ----------
    read : callable
        Called with clip, first sample and length; returns the samples.
    rows, lengths : ndarray of shape (n_clips,)
        Clips, and how many samples each has.
    network : Wav2Vec1
        Its frames are drawn as negatives.
    batch_size, max_samples, n_negatives, seed : int
        Clips in a batch, samples of the longest crop, negatives of a frame, and the seed.
    held_out : bool, default=False
        Batches of a validation: every clip once, from the middle, and in the last batch the rest.
        Else clips come in random order, each once before the next order is drawn.
    """

    def __init__(
        self,
        read,
        rows,
        lengths,
        network,
        *,
        batch_size,
        max_samples,
        n_negatives,
        seed,
        held_out=False,
    ):
        self.read = read
        self.rows = rows
        self.lengths = lengths
        self.network = network
        self.batch_size = min(batch_size, len(rows))
        self.max_samples = max_samples
        self.n_negatives = n_negatives
        self.seed = seed
        self.held_out = held_out

    def __len__(self):
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, number):
        rng = np.random.default_rng((self.seed, self.held_out, number))
        which = self._which(number)
        length = int(min(self.max_samples, self.lengths[which].min()))
        spare = self.lengths[which] - length
        starts = spare // 2 if self.held_out else rng.integers(spare + 1)
        waves = [self.read(r, s, length) for r, s in zip(self.rows[which], starts.tolist())]
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        negatives = self.network.draw_negatives(
            len(waves), self.network.n_frames(length), self.n_negatives, generator
        )
        return {"waveform": torch.from_numpy(np.stack(waves)), "negatives": negatives}, 0

    def _which(self, number):
        if self.held_out:
            return np.arange(len(self.rows))[self.batch_size * number :][: self.batch_size]
        number, start = divmod(number, len(self.rows) // self.batch_size)
        order = np.random.default_rng((self.seed, 2, number)).permutation(len(self.rows))
        return order[self.batch_size * start :][: self.batch_size]


class Updates(Sampler):
    """Numbers of the updates up to the next multiple of `every`, and how many are done.

    Parameters
    ----------
    every, total : int
        Updates between two rows of the history, and of the whole training.
    """

    def __init__(self, every, total):
        self.every = every
        self.total = total
        self.done = 0

    def __iter__(self):
        end = (self.done // self.every + 1) * self.every
        return iter(range(self.done, min(end, self.total)))

    def rows_left(self):
        """Rows of the history still to come."""
        return (
            -(-self.total // self.every) - self.done // self.every if self.done < self.total else 0
        )


class Contrast(nn.Module):
    """Loss and accuracy of a network on a batch.

    Parameters
    ----------
    network : Wav2Vec1
        The network.
    infonce : bool, default=False
        Which loss.
    """

    def __init__(self, network, infonce=False):
        super().__init__()
        self.network = network
        self.infonce = infonce

    def forward(self, waveform, negatives):
        """Return loss and accuracy."""
        encoded, context = self.network(waveform)
        return self.network.contrastive_loss(encoded, context, negatives, infonce=self.infonce)


def learning_rate(update, *, warmup, lr, max_updates):
    """Learning rate of an update, the first being 0: a line up, then half a cosine down."""
    if update < warmup:
        return _FIRST_LR + (lr - _FIRST_LR) * update / warmup
    phase = math.pi * (update - warmup) / (max_updates - warmup)
    return _LAST_LR + (lr - _LAST_LR) * (1 + math.cos(phase)) / 2


class ContrastiveNet(SeededNet):
    """Trains :class:`Contrast` with a learning rate for every update.

    Attributes
    ----------
    updates : Updates
        Counts the updates.
    schedule : callable
        Learning rate of an update.
    """

    updates = None
    schedule = None

    def train_step(self, batch, **fit_params):
        """One update."""
        for group in self.optimizer_.param_groups:
            group["lr"] = self.schedule(self.updates.done)
        step = super().train_step(batch, **fit_params)
        self.updates.done += 1
        return step

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """The loss that the module has computed; the accuracy goes to the history."""
        loss, accuracy = y_pred
        name = "train_accuracy" if training else "valid_accuracy"
        self.history.record_batch(name, accuracy.item())
        return loss


class Checkpoint(Callback):
    """Writes what a training needs to go on, after every row of the history.

    Parameters
    ----------
    path : path-like or None
        The file.
    settings : dict
        What the result depends on, as JSON allows it.
    seed : int
        The seed.
    """

    def __init__(self, path, settings, seed):
        self.path = path
        self.settings = settings
        self.seed = seed

    def on_epoch_end(self, net, **kwargs):
        """Complete the row, write the file, and end a training whose time is up."""
        net.history.record("update", net.updates.done)
        net.history.record("lr", net.optimizer_.param_groups[0]["lr"])
        if self.path is not None:
            self.write(net)
        if net.out_of_time:
            # skorch's way to stop early; SeededNet tells it from Ctrl-C.
            raise KeyboardInterrupt

    def write(self, net):
        """Write the file under a temporary name and rename it."""
        rows = [
            {k: getattr(v, "item", lambda v=v: v)() for k, v in row.items() if k != "batches"}
            for row in net.history
        ]
        contents = {
            "kind": _KIND,
            "settings": json.dumps(self.settings),
            "seed": self.seed,
            "update": net.updates.done,
            "module": net.module_.state_dict(),
            "optimizer": net.optimizer_.state_dict(),
            "history": rows,
        }
        with replacing(self.path) as temporary:
            torch.save(contents, temporary)

    @staticmethod
    def restore(net, contents):
        """Bring an initialised net to where the training was."""
        net.module_.load_state_dict(contents["module"])
        net.optimizer_.load_state_dict(contents["optimizer"])
        net.updates.done = contents["update"]
        net.history = History()
        for row in contents["history"]:
            net.history.new_epoch()
            for name, value in row.items():
                net.history.record(name, value)


def read_checkpoint(path):
    """Contents of a checkpoint, or None where there is no file yet.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If the file is truncated or something else.
    """
    if path is None:
        return None
    if not Path(path).exists():
        if not Path(path).absolute().parent.is_dir():
            raise FileNotFoundError(f"checkpoint={os.fspath(path)!r}: there is no such folder.")
        return None
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"checkpoint={os.fspath(path)!r} is truncated or no checkpoint: "
            f"{(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error
    if not isinstance(contents, dict) or contents.get("kind") != _KIND:
        raise ValueError(f"checkpoint={os.fspath(path)!r} was not written by Wav2VecPretrainer.")
    return contents


def check_same_training(path, contents, settings, seed):
    """Check that a checkpoint belongs to a training with these settings.

    Raises
    ------
    ValueError
        If not; the message says what differs.
    """
    here = {**json.loads(json.dumps(settings)), "random_state": seed}
    there = {**json.loads(contents["settings"]), "random_state": contents["seed"]}
    different = [
        f"{name} ({there.get(name)!r} there, {value!r} here)"
        for name, value in here.items()
        if there.get(name) != value
    ]
    if different:
        raise ValueError(
            f"checkpoint={os.fspath(path)!r} is of a training with other settings: "
            f"{', '.join(different)}. Remove the file or name another to train anew."
        )
