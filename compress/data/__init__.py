"""Data: cuts from many formats, synthetic speech, augmentation, batches."""
