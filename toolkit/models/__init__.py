"""Loading, quantisation, adapters and roles, encoding, log-probabilities and generation."""
