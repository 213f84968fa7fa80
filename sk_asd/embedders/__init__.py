"""Embedders: networks trained by self-supervised classification, as transformers."""

from sk_asd.embedders._section import SectionEmbedder

__all__ = ["SectionEmbedder"]
