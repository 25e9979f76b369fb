"""The three networks of a transducer: encoder, predictor and joiner."""
