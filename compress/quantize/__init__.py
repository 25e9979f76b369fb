"""Quantisation that listens: forms chosen layer by layer under a budget of word errors."""
