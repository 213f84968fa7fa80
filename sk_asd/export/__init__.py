"""Systems as graphs that run without this package."""

from sk_asd.export._onnx import ExportReport, export_onnx

__all__ = ["ExportReport", "export_onnx"]
