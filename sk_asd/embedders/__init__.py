"""Embedders: networks trained by self-supervised classification, as transformers."""

from sk_asd.embedders._multi_head import MultiHeadEmbedder
from sk_asd.embedders._section import SectionEmbedder
from sk_asd.embedders._wav2vec_pretrainer import Wav2VecPretrainer

__all__ = ["MultiHeadEmbedder", "SectionEmbedder", "Wav2VecPretrainer"]
