"""Scenes: the embedded data. Small pictures of coloured shapes with captions, questions and preferences.

Everything is drawn and written by a deterministic generator: nothing is downloaded, nothing is licensed.
``gold`` (the hidden preference criterion) is imported only by evaluation and by the simulated raters, never
by training code; a test of the layers says so.
"""
