"""What a reader must know to reproduce a score: decoding, prompts, tokenizer, versions, intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.evaluation.decoding import Strategy
from toolkit.evaluation.split import TestSplit, prompt_text

if TYPE_CHECKING:
    from toolkit.config.schema import DecodingSpec, EvalRecipe

__all__ = ["decoding_protocol", "protocol"]

_SHOWN_PROMPTS = 3


def protocol(recipe: EvalRecipe, split: TestSplit) -> dict[str, Any]:
    """The ``protocol`` entry of ``summary.json``; every value is text."""
    return decoding_protocol(recipe.generation, split, resamples=recipe.resamples)


def decoding_protocol(decoding: DecodingSpec, split: TestSplit, *, resamples: int) -> dict[str, Any]:
    """How texts were decoded and scored, as short texts by topic."""
    import toolkit
    from toolkit.metrics.tokenizer import TOKENIZER

    prompts = list(dict.fromkeys(prompt_text(row.prompt) for row in split.captions))
    how, limit = Strategy.of(decoding).describe(), decoding.max_new_tokens
    batches = f"batches of {decoding.batch_size}"
    told: dict[str, Any] = {"decoding": f"{how}, at most {limit} new tokens, {batches}"}
    if prompts:
        told["caption_prompt"] = " | ".join(prompts[:_SHOWN_PROMPTS])
        told["caption_tokenizer"] = f"PTB as in pycocoevalcap 1.2, each caption alone ({TOKENIZER})"
        told["caption_metrics"] = (
            "BLEU, ROUGE-L and CIDEr-D as pycocoevalcap 1.2, document frequencies of the split"
        )
    if split.questions:
        rules = dict.fromkeys(str(row.meta.get("rule", "official")) for row in split.questions)
        told["vqa_rule"] = ", ".join(
            "official VQA v2 accuracy" if rule == "official" else rule for rule in rules
        )
        asked = list(dict.fromkeys(prompt_text(row.prompt) for row in split.questions))
        told["question_prompt"] = asked[0]
    told["intervals"] = f"95 % percentile bootstrap over images, {resamples} resamples, seed 0"
    told["version"] = f"vlm-rlhf {toolkit.__version__}"
    return told
