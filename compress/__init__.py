"""Train, compress and export small streaming speech recognisers."""
