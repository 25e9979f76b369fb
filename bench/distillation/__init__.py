"""The parts of bench/seeds.py: what is compared, on which data, by which teachers."""
