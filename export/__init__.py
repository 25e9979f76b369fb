"""Torch modules that obey the streaming protocol -> a verified bundle; no training here."""
