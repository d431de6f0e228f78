"""Caption and answer metrics equal to the official tools, without Java: numpy only, fast enough to be a reward."""

from __future__ import annotations

from toolkit.metrics.bleu import Bleu
from toolkit.metrics.captions import CaptionScores, CaptionStatistics, score_captions
from toolkit.metrics.cider import Cider, CiderD
from toolkit.metrics.frequencies import DocumentFrequencies
from toolkit.metrics.rouge import rouge_l
from toolkit.metrics.tokenizer import tokenize
from toolkit.metrics.vqa import VqaScores, normalise_answer, score_vqa, vqa_accuracy

__all__ = [
    "Bleu",
    "CaptionScores",
    "CaptionStatistics",
    "Cider",
    "CiderD",
    "DocumentFrequencies",
    "VqaScores",
    "normalise_answer",
    "rouge_l",
    "score_captions",
    "score_vqa",
    "tokenize",
    "vqa_accuracy",
]
