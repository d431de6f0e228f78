"""VQA accuracy as a module of Hugging Face `evaluate`, equal to the official evaluator, quirks included."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from toolkit.metrics.vqa import vqa_accuracy

_DESCRIPTION = (
    "Accuracy of open-ended visual question answering (Antol et al., 2015): an answer counts fully if at least "
    "three of the other annotators gave it. Normalisation and leave-one-out as in the official evaluator, or by a "
    "named rule."
)
_INPUTS = """
Args:
    predictions: answers.
    references: for each answer the list of the annotators' answers, usually ten.
    rule: official (default), index, lmms, textvqa, vlmevalkit, vizwiz, simple or exact.
    per_question: also return each answer's accuracy.
Returns:
    vqa_accuracy: mean accuracy in percent. vqa_accuracies: each answer's, with per_question.
"""
_CITATION = """
@inproceedings{antol2015vqa, title={VQA: Visual Question Answering}, author={Antol, Stanislaw and Agrawal, Aishwarya and
Lu, Jiasen and Mitchell, Margaret and Batra, Dhruv and Zitnick, C. Lawrence and Parikh, Devi}, booktitle={ICCV},
year={2015}}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class VqaAccuracy(evaluate.Metric):
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
        rule: str = "official",
        per_question: bool = False,
    ) -> dict[str, Any]:
        pairs = zip(predictions, references, strict=True)
        scores = [vqa_accuracy(answer, answers, rule=rule) for answer, answers in pairs]
        found: dict[str, Any] = {"vqa_accuracy": sum(scores) / len(scores)}
        return found | {"vqa_accuracies": scores} if per_question else found
