"""The parts of bench/sparsity.py: speed and bytes of patterns, and what they cost in words."""
