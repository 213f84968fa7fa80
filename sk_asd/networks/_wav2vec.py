"""wav2vec (the first version): an encoder of waveforms, learnt by telling future frames apart."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from sk_asd.networks._common import check_positive

# Kernel and stride of the encoder's layers, and kernels of the aggregator's: "wav2vec large".
_ENCODER = ((10, 5), (8, 4), (4, 2), (4, 2), (4, 2), (1, 1), (1, 1))
_AGGREGATOR = tuple(range(2, 14))


class _Layer(nn.Module):
    """Convolution, normalisation over channels and time, ReLU; as many frames as came in if causal.

    Causal means that the beginning is continued to the left with its first frame.
    """

    def __init__(self, in_channels, channels, kernel, stride=1, *, causal=False):
        super().__init__()
        self.conv = nn.Conv1d(in_channels, channels, kernel, stride, bias=causal)
        self.norm = nn.GroupNorm(1, channels)
        self.padding = kernel - 1 if causal else 0

    def forward(self, x):
        """Transform ``(batch, channels, frames)``."""
        if self.padding:
            x = F.pad(x, (self.padding, 0), mode="replicate")
        return torch.relu(self.norm(self.conv(x)))


class Wav2Vec1(nn.Module):
    """wav2vec 1.0: waveforms in, features of the encoder and of the context out.

    The *encoder* turns samples into frames: convolutions without padding, each followed by a
    normalisation over all channels and frames and by ReLU, and a logarithm at the end. The
    *aggregator* turns frames into context: convolutions that look back only, with residual
    connections. In training, linear projections of the context predict the encoder's features some
    frames ahead, and learn to tell them from those of other frames.

    Parameters
    ----------
    channels : int, default=512
        Channels of every layer, and of both outputs.
    encoder : sequence of (int, int), default=((10, 5), (8, 4), (4, 2), (4, 2), (4, 2), (1, 1), \
(1, 1))
        Kernel and stride of the encoder's layers.
    aggregator : sequence of int, default=(2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
        Kernels of the aggregator's layers.
    n_steps : int, default=12
        Frames ahead that are predicted, the first of them `offset` frames after the last one that
        the context has seen.
    residual_scale : float or None, default=0.5
        The sum of an aggregator layer's input and output is multiplied by the square root of this;
        None for no residual connections.
    log_compression : bool, default=True
        Whether the encoder ends with ``log(1 + x)``.

    Attributes
    ----------
    receptive_field : int
        Samples that one frame of the encoder sees.
    hop_length : int
        Samples from one frame to the next.
    offset : int
        ``ceil(receptive_field / hop_length)``: this many frames later, a frame shares no sample
        with the present one.

    Raises
    ------
    ValueError
        If a parameter is out of range, or a waveform is shorter than the receptive field.

    See Also
    --------
    sk_asd.features.Wav2Vec : The transformer that extracts features with it.
    sk_asd.embedders.Wav2VecPretrainer : Trains it.

    Notes
    -----
    The defaults are "wav2vec large": 5,779,456 parameters in the encoder, 23,611,392 in the
    aggregator and 3,146,240 in the predictions; a hop of 160 samples and a receptive field of 465,
    so that ten seconds at 16 kHz give 998 frames. The context sees 79 frames, 0.8 s.

    The normalisation averages over time, so that every frame depends on the whole waveform: extract
    features of whole clips, not of windows. Waveforms are taken as they are, without any scaling.

    References
    ----------
    Schneider, S. et al. "wav2vec: Unsupervised pre-training for speech recognition", Interspeech
    2019, and its implementation in fairseq.

    Examples
    --------
    >>> import torch
    >>> from sk_asd.networks import Wav2Vec1
    >>> net = Wav2Vec1(16).eval()
    >>> encoded, context = net(torch.zeros(2, 16000))
    >>> encoded.shape, context.shape
    (torch.Size([2, 16, 98]), torch.Size([2, 16, 98]))
    """

    def __init__(
        self,
        channels=512,
        *,
        encoder=_ENCODER,
        aggregator=_AGGREGATOR,
        n_steps=12,
        residual_scale=0.5,
        log_compression=True,
    ):
        super().__init__()
        encoder = [tuple(layer) for layer in encoder]
        aggregator = list(aggregator)
        if not encoder or any(len(layer) != 2 for layer in encoder):
            raise ValueError(f"encoder must be pairs of kernel and stride, got {encoder!r}.")
        smallest = min([*aggregator, *(value for layer in encoder for value in layer)])
        check_positive(channels=channels, n_steps=n_steps, kernels_and_strides=smallest)
        if residual_scale is not None:
            check_positive(residual_scale=residual_scale)
        self.config = {
            "channels": channels,
            "encoder": [list(layer) for layer in encoder],
            "aggregator": aggregator,
            "n_steps": n_steps,
            "residual_scale": residual_scale,
            "log_compression": log_compression,
        }
        self.channels = channels
        self.n_steps = n_steps
        self.residual_scale = residual_scale
        self.log_compression = log_compression
        self.hop_length = math.prod(stride for _, stride in encoder)
        self.receptive_field = 1
        for kernel, stride in reversed(encoder):
            self.receptive_field = (self.receptive_field - 1) * stride + kernel
        self.offset = math.ceil(self.receptive_field / self.hop_length)

        widths = [1, *[channels] * (len(encoder) - 1)]
        self.encoder = nn.ModuleList(
            _Layer(width, channels, kernel, stride)
            for width, (kernel, stride) in zip(widths, encoder)
        )
        self.aggregator = nn.ModuleList(
            _Layer(channels, channels, kernel, causal=True) for kernel in aggregator
        )
        self.predictor = nn.ConvTranspose2d(channels, channels, (1, n_steps))

    def n_frames(self, n_samples):
        """Frames of a waveform.

        Parameters
        ----------
        n_samples : int
            Samples of the waveform.

        Returns
        -------
        int
            Number of frames, 0 if the waveform is shorter than the receptive field.
        """
        return max(0, (n_samples - self.receptive_field) // self.hop_length + 1)

    def forward(self, waveform):
        """Compute features.

        Parameters
        ----------
        waveform : Tensor of shape (batch, n_samples)
            Waveforms of equal length.

        Returns
        -------
        encoded : Tensor of shape (batch, channels, n_frames)
            Features of the encoder.
        context : Tensor of shape (batch, channels, n_frames)
            Features of the aggregator; a frame has seen no later ones but by the normalisation.
        """
        encoded = self.encode(waveform)
        return encoded, self.aggregate(encoded)

    def encode(self, waveform):
        """Compute the features of the encoder.

        Parameters
        ----------
        waveform : Tensor of shape (batch, n_samples)
            Waveforms of equal length.

        Returns
        -------
        Tensor of shape (batch, channels, n_frames)
            Features of the encoder.
        """
        if waveform.ndim != 2:
            raise ValueError(
                "Expected waveforms of shape (batch, n_samples), got shape "
                f"{tuple(waveform.shape)}."
            )
        if waveform.shape[1] < self.receptive_field:
            raise ValueError(
                f"Waveforms of {waveform.shape[1]} samples are shorter than the receptive field "
                f"of {self.receptive_field} samples."
            )
        x = waveform.unsqueeze(1)
        for layer in self.encoder:
            x = layer(x)
        return torch.log1p(x) if self.log_compression else x

    def aggregate(self, encoded):
        """Compute the context of encoded frames.

        Parameters
        ----------
        encoded : Tensor of shape (batch, channels, n_frames)
            Features of the encoder.

        Returns
        -------
        Tensor of shape (batch, channels, n_frames)
            Features of the aggregator.
        """
        x = encoded
        for layer in self.aggregator:
            if self.residual_scale is None:
                x = layer(x)
            else:
                x = (x + layer(x)) * math.sqrt(self.residual_scale)
        return x

    def predict(self, context):
        """Predict encoded frames from the context.

        Parameters
        ----------
        context : Tensor of shape (batch, channels, n_frames)
            Features of the aggregator.

        Returns
        -------
        Tensor of shape (batch, n_steps, channels, n_frames)
            Entry ``[:, s, :, t]`` predicts the encoder's frame ``t + offset + s``.
        """
        # The transposed convolution of one column, whose kernel has shape (in, out, 1, n_steps).
        predicted = torch.einsum("bit,ios->bsot", context, self.predictor.weight[:, :, 0])
        return predicted + self.predictor.bias[:, None]

    def draw_negatives(self, n_clips, n_frames, n_negatives=10, generator=None):
        """Draw the frames that a true frame is to be told from.

        Parameters
        ----------
        n_clips : int
            Number of waveforms.
        n_frames : int
            Frames of a waveform, at least two.
        n_negatives : int, default=10
            Draws for every frame.
        generator : torch.Generator, default=None
            Source of the draws; None is torch's global generator.

        Returns
        -------
        LongTensor of shape (n_clips, n_negatives, n_frames)
            Frames of the same waveform, uniformly from all but the frame itself.
        """
        if n_frames < 2:
            raise ValueError(f"Negatives are other frames, of which {n_frames} has none.")
        shape = (n_clips, n_negatives, n_frames)
        drawn = torch.randint(n_frames - 1, shape, generator=generator)
        return drawn + (drawn >= torch.arange(n_frames))

    def contrastive_loss(self, encoded, context, negatives, *, infonce=False):
        """Compare predictions with the frame that came and with others.

        The logit of a frame is the dot product of its features with the prediction.

        Parameters
        ----------
        encoded : Tensor of shape (batch, channels, n_frames)
            Features of the encoder.
        context : Tensor of shape (batch, channels, n_frames)
            Features of the aggregator.
        negatives : LongTensor of shape (batch, n_negatives, n_frames)
            Frames of :meth:`draw_negatives`.
        infonce : bool, default=False
            The other loss that fairseq has, InfoNCE: the true frame is one class of
            ``1 + n_negatives``. It does not depend on what logits have in common.

        Returns
        -------
        loss : Tensor of shape ()
            Binary cross-entropy of true (1) and other frames (0), summed over all and divided by
            the number of true ones; or the mean cross-entropy if `infonce` is set.
        accuracy : Tensor of shape ()
            Share of predictions that the true frame suits better than all negatives; at chance
            ``1 / (1 + n_negatives)``.

        Raises
        ------
        ValueError
            If there are too few frames to predict any.
        """
        batch, n_negatives, n_frames = negatives.shape
        if n_frames <= self.offset:
            raise ValueError(
                f"{n_frames} frames are too few: predictions reach at least {self.offset} frames "
                "ahead."
            )
        frames = encoded.transpose(1, 2)
        rows = negatives.transpose(1, 2).reshape(batch, -1, 1).expand(-1, -1, self.channels)
        others = frames.gather(1, rows).view(batch, n_frames, n_negatives, self.channels)
        candidates = torch.cat([frames.unsqueeze(2), others], dim=2)

        # Predictions are put to the frames that they are for, of which the first have none.
        lags = [self.offset + step for step in range(self.n_steps) if self.offset + step < n_frames]
        predicted = self.predict(context)
        predicted = torch.stack(
            [F.pad(predicted[:, i, :, :-lag], (lag, 0)) for i, lag in enumerate(lags)], dim=3
        )
        logits = torch.einsum("bcts,btnc->btsn", predicted, candidates).float()
        made = torch.arange(n_frames)[:, None] >= torch.tensor(lags)
        logits = logits[:, made.to(logits.device)]
        true, false = logits[..., 0], logits[..., 1:]
        if infonce:
            loss = (logits.logsumexp(dim=-1) - true).mean()
        else:
            loss = -(F.logsigmoid(true).sum() + F.logsigmoid(-false).sum()) / true.numel()
        return loss, (true > false.amax(dim=-1)).float().mean()

    def fairseq_names(self):
        """Names that fairseq has for the entries of the state dict.

        Returns
        -------
        dict of str to str
            From the names here to those of a fairseq checkpoint; values and shapes are the same.
        """
        names = {}
        for stack, theirs, conv, norm in (
            ("encoder", "feature_extractor", 0, 2),
            ("aggregator", "feature_aggregator", 1, 3),
        ):
            for i in range(len(self.get_submodule(stack))):
                names[f"{stack}.{i}.conv"] = f"{theirs}.conv_layers.{i}.{conv}"
                names[f"{stack}.{i}.norm"] = f"{theirs}.conv_layers.{i}.{norm}"
        names["predictor"] = "wav2vec_predictions.project_to_steps"
        return {
            name: f"{names[module]}.{parameter}"
            for name in self.state_dict()
            for module, _, parameter in [name.rpartition(".")]
        }
