"""CIDEr-D as a module of Hugging Face `evaluate`, equal to pycocoevalcap 1.2, without Java."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from toolkit.errors import UsageError
from toolkit.metrics import CiderD, DocumentFrequencies
from toolkit.metrics.captions import score_captions

_DESCRIPTION = (
    "CIDEr-D (Vedantam, Zitnick and Parikh, 2015): the consensus of a caption with its references by the "
    "TF-IDF cosine of n-grams of one to four words. Tokens, scores and quirks as pycocoevalcap 1.2."
)
_INPUTS = """
Args:
    predictions: captions.
    references: for each caption the list of its references.
    document_frequencies: "corpus" (in the references given here), or a table of `vlm-rlhf data document-frequencies`.
    per_caption: also return each caption's score.
Returns:
    cider: mean score, 0 to 10 (published as a hundredfold). cider_scores: each caption's, with per_caption.
"""
_CITATION = """
@inproceedings{vedantam2015cider, title={CIDEr: Consensus-based Image Description Evaluation},
author={Vedantam, Ramakrishna and Zitnick, C. Lawrence and Parikh, Devi}, booktitle={CVPR}, year={2015}}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class Cider(evaluate.Metric):
    """``evaluate.load(path).compute(predictions=…, references=…)``."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {
                "predictions": datasets.Value("string"),
                "references": datasets.Sequence(datasets.Value("string")),
            }
        )
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation=_CITATION, inputs_description=_INPUTS, features=features
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[list[str]],
        document_frequencies: str = "corpus",
        per_caption: bool = False,
    ) -> dict[str, Any]:
        own = dict(enumerate(references))
        if document_frequencies == "corpus":
            scored = score_captions(own, dict(enumerate(predictions)), ["cider"]).per_image
            scores = [scored[place]["cider"] for place in own]
        else:
            table = DocumentFrequencies.load(document_frequencies)
            if table.end_token is not None:
                raise UsageError(
                    f"{document_frequencies} was counted with an end token, which captions here lack"
                )
            scores = CiderD(own, table).score(list(own), predictions).tolist()
        found: dict[str, Any] = {"cider": sum(scores) / len(scores)}
        return found | {"cider_scores": scores} if per_caption else found
