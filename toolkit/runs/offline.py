"""A quiet environment: no library reports anything to anybody, and CPU threads wait without spinning."""

from __future__ import annotations

import os

__all__ = ["quiet_environment"]

_TELEMETRY_OFF = {
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_MODE": "offline",
}
_BEHAVIOUR = {
    # A busy core makes spinning OpenMP threads 6-10 times slower; waiting ones lose nothing.
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def quiet_environment() -> None:
    """Set variables that switch telemetry off, unless the user set them. Call before importing heavy libraries.

    OpenMP reads its policy when torch is first imported, the hub client its own when it is imported. A hub download
    still happens when a recipe names a hub model; ``HF_HUB_OFFLINE=1`` forbids that.
    """
    for name, value in (_TELEMETRY_OFF | _BEHAVIOUR).items():
        os.environ.setdefault(name, value)
