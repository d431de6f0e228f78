"""The ``eval`` stage: decode the test split with every system, score it beside its baselines, write the summary.

The folder it leaves can be scored, compared and reported again without models or data: ``summary.json``,
``references.json``, ``questions.json``, ``annotations.json``, ``systems/<name>/{predictions.jsonl,
captions_results.json, vqa_results.json, per_image.jsonl, per_question.jsonl}`` and ``samples/``.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.evaluation.baselines import (
    constant_answer,
    constant_caption,
    leave_one_answer_out,
    leave_one_reference_out,
    shuffled_images,
)
from toolkit.evaluation.inputs import EvaluationInputs, read_inputs
from toolkit.evaluation.predictions import Prediction
from toolkit.evaluation.protocol import protocol
from toolkit.evaluation.samples import write_samples
from toolkit.evaluation.scoring import SystemScores
from toolkit.evaluation.split import TestSplit
from toolkit.evaluation.summary import build_differences, build_intervals, build_row, write_summary
from toolkit.evaluation.system import (
    CaptionScorer,
    decode_system,
    gold_scorer,
    reward_scorer,
    score_system,
    write_samples_of,
)
from toolkit.evaluation.tokens import TokenCounter
from toolkit.records import PreferenceRow, PromptRow

if TYPE_CHECKING:
    from toolkit.config.schema import EvalRecipe, SystemSpec
    from toolkit.rewards.base import Reward
    from toolkit.runs.directory import RunDirectory

__all__ = ["RewardModelCard", "decode_shares", "evaluate_systems"]

RewardModelCard = Callable[[Sequence[PreferenceRow]], Mapping[str, Any]]
_logger = logging.getLogger("vlm_rlhf.evaluation")


def decode_shares(recipe: EvalRecipe, run: RunDirectory, split: TestSplit) -> None:
    """Decode everything that ``evaluate_systems`` will score, together with the other processes of the launcher.

    Raises:
        CheckpointError: a system is no checkpoint.
    """
    from toolkit.evaluation.shares import DecodingTask, decode_together

    def task(system: SystemSpec, name: str, rows: Sequence[PromptRow]) -> DecodingTask:
        return DecodingTask(system.model, rows, run.path / "systems" / name, f"decode {name}")

    tasks = [task(system, system.name, split.rows) for system in recipe.systems]
    wrong = shuffled_images(split.rows)
    tasks += [task(s, "blind-shuffled", wrong) for s in recipe.systems if s.name == recipe.blind_from]
    stopped = "evaluation stopped; decoded batches are kept"
    decode_together(tasks, recipe.generation, lambda: run.stop.raise_if_requested(stopped))


def evaluate_systems(
    recipe: EvalRecipe,
    run: RunDirectory,
    *,
    inputs: EvaluationInputs | None = None,
    reward: Reward | None = None,
    reward_model_card: RewardModelCard | None = None,
) -> dict[str, Any]:
    """Run the ``eval`` stage and return what ``summary.json`` holds.

    Args:
        recipe: the recipe.
        run: the prepared run directory. Decoding goes on where an earlier run stopped.
        inputs: what ``read_inputs`` returned; read here by default.
        reward: scores captions for the column ``reward``; the recipe's script loads it, for this layer knows no
            reward models.
        reward_model_card: accuracies of the reward model on the pairs of ``inputs``, as
            ``toolkit.evaluation.pairs.accuracy_card`` builds them.

    Raises:
        RecipeError: names that clash or do not exist, pairs without a reward model; all at once.
        DataError: the data are unfit for scoring.
    """
    inputs = inputs or read_inputs(recipe, judged=reward_model_card is not None)
    split = inputs.split
    stage = _Stage(recipe, run, inputs, _scorers(inputs, reward))
    systems = {system.name: stage.decoded(system) for system in recipe.systems}
    diversity = stage.diversity()
    blind, told = stage.blind()
    human = stage.human()
    rows = {name: scores for name, scores in (("blind", blind), ("human", human), *systems.items()) if scores}
    summary: dict[str, Any] = {
        "rows": {name: build_row(scores) for name, scores in rows.items()},
        "reward_model": dict(reward_model_card(inputs.pairs)) if reward_model_card and inputs.pairs else None,
        "differences": build_differences(rows, recipe.differences),
        "intervals": {name: build_intervals(scores) for name, scores in rows.items()},
        "baselines": {"blind": told},
        **({"diversity": diversity} if diversity else {}),
        "protocol": protocol(recipe, split),
        "seconds": {},
    }
    split.write(run.path)
    write_samples(run.path / "samples", split, systems)
    write_summary(run.path / "summary.json", summary)
    return summary


@dataclasses.dataclass(frozen=True, slots=True)
class _Stage:
    recipe: EvalRecipe
    run: RunDirectory
    inputs: EvaluationInputs
    scorers: Mapping[str, CaptionScorer]

    @property
    def split(self) -> TestSplit:
        return self.inputs.split

    def decoded(self, system: SystemSpec) -> SystemScores:
        return self.score(system.name, self.split, self.decode(system, system.name, self.split))

    def decode(self, system: SystemSpec, name: str, split: TestSplit) -> list[Prediction]:
        return decode_system(
            system.model,
            split.rows,
            decoding=self.recipe.generation,
            folder=self.folder(name),
            label=f"decode {name}",
            after_batch=lambda: self.run.stop.raise_if_requested(
                "evaluation stopped; decoded batches are kept"
            ),
        )

    def score(self, name: str, split: TestSplit, predictions: Sequence[Prediction]) -> SystemScores:
        by_id = {prediction.sample_id: prediction for prediction in predictions}
        _logger.info("score %s", name)
        return score_system(
            self.folder(name), split, by_id, scorers=self.scorers, resamples=self.recipe.resamples
        )

    def diversity(self) -> dict[str, dict[str, float]]:
        """Diversity of each system's samples, where several a prompt were drawn."""
        from toolkit.metrics.diversity import score_diversity
        from toolkit.metrics.frequencies import DocumentFrequencies

        found: dict[str, dict[str, float]] = {}
        for system in self.recipe.systems:
            folder = self.folder(system.name)
            texts = write_samples_of(folder, system.model, self.split.rows, self.recipe.generation)
            if texts is not None:
                table = DocumentFrequencies.from_references(self.split.references)
                found[system.name] = score_diversity(texts, frequencies=table)
        return found

    def folder(self, name: str) -> Path:
        return self.run.path / "systems" / name

    def blind(self) -> tuple[SystemScores, dict[str, Any]]:
        """The better of constant texts and shuffled pictures, for captions and for answers separately."""
        constants = self.constant_texts()
        texts = [constants[row.task] for row in self.split.rows]
        constant = self.score("blind-constant", self.split, self.spoken(self.split, texts))
        told = {"constant_caption": constants.get("caption"), "constant_answer": constants.get("vqa")}
        candidates = {"a constant text": constant}
        system = next((item for item in self.recipe.systems if item.name == self.recipe.blind_from), None)
        if system is not None:
            wrong = TestSplit.from_rows(shuffled_images(self.split.rows), where="shuffled images")
            decoded = self.decode(system, "blind-shuffled", wrong)
            candidates[f"{system.name} with shuffled images"] = self.score(
                "blind-shuffled", self.split, decoded
            )
        return _better(candidates, told)

    def constant_texts(self) -> dict[str, str]:
        texts: dict[str, str] = {}
        if self.split.captions:
            texts["caption"] = constant_caption(self.inputs.train_references or self.split.references)
        if self.split.questions:
            texts["vqa"] = constant_answer(self.split.questions)
        return texts

    def human(self) -> SystemScores | None:
        """People against the other people, where every row has enough of them."""
        captions = leave_one_reference_out(self.split.captions)
        answers = leave_one_answer_out(self.split.questions)
        if captions is None and answers is None:
            return None
        caption_texts, caption_rows = captions or ([], [])
        answer_texts, answer_rows = answers or ([], [])
        split = TestSplit(captions=tuple(caption_rows), questions=tuple(answer_rows))
        return self.score("human", split, self.spoken(split, [*caption_texts, *answer_texts]))

    def spoken(self, split: TestSplit, texts: Sequence[str]) -> list[Prediction]:
        """Texts that no model wrote, counted with the tokenizer of the first system."""
        counter = TokenCounter(self.recipe.systems[0].model)
        pairs = zip(split.rows, texts, strict=True)
        return [Prediction(row.sample_id, text, counter.count(text) + 1, True) for row, text in pairs]


def _better(
    candidates: Mapping[str, SystemScores], told: Mapping[str, str | None]
) -> tuple[SystemScores, dict[str, Any]]:
    """Captions of the candidate with the higher CIDEr, answers of the one with the higher accuracy."""
    chosen: dict[str, str | None] = {}
    for task, key in (("caption", "cider"), ("vqa", "vqa_accuracy")):
        scores = {name: found for name in candidates if (found := candidates[name].value(key)) is not None}
        chosen[task] = max(scores, key=scores.__getitem__, default=None)
    draws = {task: candidates[name].draws[task] for task, name in chosen.items() if name is not None}
    best = SystemScores(
        captions=candidates[chosen["caption"]].captions if chosen["caption"] else None,
        vqa=candidates[chosen["vqa"]].vqa if chosen["vqa"] else None,
        draws=draws,
    )
    rows = {name: build_row(scores) for name, scores in candidates.items()}
    return best, {**chosen, **told, "candidates": rows}


def _scorers(inputs: EvaluationInputs, reward: Reward | None) -> dict[str, CaptionScorer]:
    scorers: dict[str, CaptionScorer] = {}
    if reward is not None:
        scorers["reward"] = reward_scorer(reward, "score with the reward model")
    if inputs.scenes is not None:
        scorers["gold"] = gold_scorer(inputs.scenes)
    return scorers
