"""The parts of bench/runtime.py: the models it runs, the two engines, and what is measured."""
