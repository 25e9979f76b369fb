"""The transducer loss and its lattice, on the two arrays log_blank and log_emit."""
