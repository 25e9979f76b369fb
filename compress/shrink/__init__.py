"""Shrinking: what is removed, when, and how the optimiser follows."""
