"""Targets: each writes three graphs that one family of sherpa-onnx loads unmodified."""

from export.targets.sherpa_lstm import export_sherpa_lstm, lstm_modules
from export.targets.sherpa_nemo import export_sherpa_nemo, nemo_modules

TARGETS = {"sherpa_lstm": export_sherpa_lstm, "sherpa_nemo": export_sherpa_nemo}
# The networks in torch as a target's graphs compute them: what the parity ladder runs.
MODULES = {"sherpa_lstm": lstm_modules, "sherpa_nemo": nemo_modules}
# The features that sherpa-onnx computes for each family, whatever a bundle says.
PRESETS = {"sherpa_lstm": "kaldi", "sherpa_nemo": "nemo"}
