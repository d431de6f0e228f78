"""Loaded by every Python process that a test starts (this folder is on its PYTHONPATH)."""

import network_guard

network_guard.install()
