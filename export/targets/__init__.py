"""Targets: each writes three graphs that one family of sherpa-onnx loads unmodified."""

from export.targets.sherpa_lstm import export_sherpa_lstm

TARGETS = {"sherpa_lstm": export_sherpa_lstm}
