"""Rewards: metric rewards, shaping terms, user functions and their weighted sum. Loads no torch."""
