"""The parts of bench/quantize.py: the models, their variants, and what each variant costs."""
