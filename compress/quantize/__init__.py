"""Quantisation that listens: forms chosen by word errors, and students that learn with rounding."""
