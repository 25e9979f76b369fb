"""Each layer of an exported graph in a form of its own: forms.py has the list."""

from export.quantize.calibration import calibrate
from export.quantize.forms import FORMS, METHODS, Method, check_method
from export.quantize.graph import check_nothing_skipped, quantize_graph
from export.quantize.job import Ranges
from export.quantize.layers import LayerInfo, list_layers

__all__ = [
    "FORMS",
    "METHODS",
    "LayerInfo",
    "Method",
    "Ranges",
    "calibrate",
    "check_method",
    "check_nothing_skipped",
    "list_layers",
    "quantize_graph",
]
