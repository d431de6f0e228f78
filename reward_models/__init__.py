"""Reward models that look at the picture: a VLM with a scalar head, trained on preferences."""
