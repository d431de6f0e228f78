"""What a run leaves on disk and how it survives being stopped: directory, metrics, checkpoints, resume, signals."""
