"""Slow, honest twins of the clever kernels."""
