"""What differs between families of vision-language models."""

from __future__ import annotations

from typing import Any

from toolkit.models.families.family import Family
from toolkit.models.families.known import Idefics3Family, LlavaFamily, PaddedFamily, QwenVlFamily

__all__ = ["Family", "family_of"]

_KNOWN: dict[str, type[Family]] = {
    "llava": LlavaFamily,
    "llava_next": PaddedFamily,
    "idefics3": Idefics3Family,
    "smolvlm": Idefics3Family,
    "qwen2_vl": QwenVlFamily,
    "qwen2_5_vl": QwenVlFamily,
    "qwen3_vl": QwenVlFamily,
}


def family_of(model_or_config: Any) -> Family:
    """The family of a model or of its configuration; a generic one for model types not known here."""
    config = getattr(model_or_config, "config", model_or_config)
    return _KNOWN.get(config.model_type, Family)(config)
