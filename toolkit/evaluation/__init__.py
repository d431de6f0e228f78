"""Decoding of test splits, scores with intervals, comparison of systems and the report page."""
