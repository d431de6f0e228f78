"""Reward models that look at the picture: a vision-language model with a scalar head, trained on preferences."""
