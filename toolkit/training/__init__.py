"""Supervised fine-tuning and direct preference optimisation, thinly on TRL's trainers."""
