"""Fresh scenes, and pairs about them that the hidden criterion labels: what the reward benchmarks measure on."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.data.scenes.sampling import Combinations
    from toolkit.data.scenes.scene import Scene, Split
    from toolkit.models.loading import LoadedVlm
    from toolkit.records import PreferenceRow, PromptRow

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout that is not installed serves too

__all__ = ["bundled_pairs", "load_policy", "on_policy_pairs", "prompts_about", "scenes_of"]

SCENES_PER_PAIR = 8
"""Of eight scenes at least one gets a pair of each bundled source (the rarest, ``relation``, about 0.13 a scene)."""
_ROUND, _COMPLETIONS, _MAX_NEW_TOKENS, _BATCH = 500, 4, 32, 256


def scenes_of(split: Split, seed: int, combinations: Combinations, pairs: int) -> list[Scene]:
    """Enough scenes for ``pairs`` pairs a source; the same for the same arguments."""
    from toolkit.data.scenes.sampling import sample_scenes

    return list(sample_scenes(seed, split, SCENES_PER_PAIR * pairs + 100, combinations=combinations))


def bundled_pairs(scenes: Sequence[Scene], seed: int, number: int) -> list[PreferenceRow]:
    """The first ``number`` pairs of each source (order, attribute, relation, answer), as gold has them: no slips."""
    from toolkit.data.scenes.raters import PAIR_SOURCES, sample_pairs
    from toolkit.data.scenes.writing import CAPTION_PROMPT
    from toolkit.records import PreferenceRow, image_prompt

    pairs = sample_pairs(scenes, seed, flip_fraction=0.0)
    return [
        PreferenceRow(
            sample_id=f"{pair.scene.image_id}-{source}",
            task="vqa" if pair.question else "caption",
            prompt=image_prompt(pair.question or CAPTION_PROMPT),
            chosen=pair.chosen,
            rejected=pair.rejected,
            images=(_picture(pair.scene),),
            source=source,
        )
        for source in PAIR_SOURCES
        for pair in [pair for pair in pairs if pair.source == source][:number]
    ]


def load_policy(chain: Path, system: str = "sft") -> LoadedVlm:
    """A system of a finished quickstart, in the precision of its reward model."""
    from reward_models.config import read_config
    from toolkit.config.schema import ModelSpec
    from toolkit.models.loading import load_vlm

    config = read_config(chain / "reward" / "final")
    spec = ModelSpec(
        id=str(chain / system / "final"),
        dtype=config.dtype,
        quantization=config.quantization,  # type: ignore[arg-type]
    )
    return load_vlm(spec, trainable=False)


def prompts_about(scenes: Sequence[Scene], task: str) -> list[PromptRow]:
    """The caption prompt of every scene, or its three questions with the true answer for all ten annotators."""
    from toolkit.data.scenes.questions import questions
    from toolkit.data.scenes.writing import CAPTION_PROMPT
    from toolkit.records import PromptRow, image_prompt

    asked = [
        (scene, question.text, (question.answer,) * 10) for scene in scenes for question in questions(scene)
    ]
    if task == "caption":
        asked = [(scene, CAPTION_PROMPT, ()) for scene in scenes]
    return [
        PromptRow(
            sample_id=f"{scene.image_id}-{number}",
            task="caption" if task == "caption" else "vqa",
            prompt=image_prompt(text),
            images=(_picture(scene),),
            image_id=scene.image_id,
            answers=answers,
        )
        for number, (scene, text, answers) in enumerate(asked)
    ]


def on_policy_pairs(
    vlm: LoadedVlm, scenes: Sequence[Scene], number: int, *, seed: int
) -> list[PreferenceRow]:
    """Up to ``number`` pairs of a policy's own texts, three captions to an answer, four samples a prompt.

    The two samples farthest apart by gold are a pair. Sources say what tells them apart: ``on_policy_order``,
    ``on_policy_relation``, ``on_policy_content`` (groups named, their attributes and counts), ``on_policy_answer``.
    """
    found: list[PreferenceRow] = []
    answers = number // 4
    for task, wanted in (("caption", number - answers), ("vqa", answers)):
        pairs: list[PreferenceRow] = []
        step = max(1, min(_ROUND, wanted))
        for start in range(0, len(scenes), step):
            if len(pairs) < wanted:
                pairs += _sampled_pairs(vlm, scenes[start : start + step], task, seed=seed + start)
        found += pairs[:wanted]
    return found


def _sampled_pairs(vlm: LoadedVlm, scenes: Sequence[Scene], task: str, *, seed: int) -> list[PreferenceRow]:
    import dataclasses

    from recipes.preferences import vqa_scores
    from reward_models.on_policy import ranked_pairs, sample_completions
    from toolkit.config.schema import GenerationSpec
    from toolkit.data.scenes.gold import gold

    rows, known = prompts_about(scenes, task), {scene.image_id: scene for scene in scenes}
    generation = GenerationSpec(max_new_tokens=_MAX_NEW_TOKENS, temperature=1.0, batch_size=_BATCH)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "completions.jsonl"
        completions = sample_completions(
            vlm, rows, number=_COMPLETIONS, generation=generation, seed=seed, file=file
        )

    def rate(row: PromptRow, texts: Sequence[str]) -> Sequence[float]:
        if task == "vqa":
            return vqa_scores(row, texts)
        return [gold(known[int(row.image_id)], text) for text in texts]

    pairs = ranked_pairs(rows, completions, rate, pairs_per_prompt=1, flip_fraction=0.0, seed=seed)
    if task == "vqa":
        return [dataclasses.replace(pair, source="on_policy_answer") for pair in pairs]
    return [
        dataclasses.replace(
            pair,
            source="on_policy_"
            + difference(known[int(pair.sample_id.split("-")[0])], pair.chosen, pair.rejected),
        )
        for pair in pairs
    ]


def difference(scene: Scene, first: str, second: str) -> str:
    """What tells two captions of a scene apart: ``content``, or else the ``order`` of mention, or the ``relation``."""
    named = [_named(scene, text) for text in (first, second)]
    if sorted(named[0]) != sorted(named[1]):
        return "content"
    return "order" if named[0] != named[1] else "relation"


def _named(scene: Scene, text: str) -> list[tuple[int, str, str, str]]:
    """The groups a caption names, in its order; a right size is as good as none."""
    from toolkit.data.scenes.gold import mentions

    sizes = {group.kind: group.size for group in scene.groups}
    return [
        (m.count, "" if m.size in (None, sizes.get((m.colour, m.shape))) else m.size or "", m.colour, m.shape)
        for m in mentions(text)
    ]


@cache
def _picture(scene: Scene) -> bytes:
    from toolkit.data.scenes.drawing import draw_scene

    file = io.BytesIO()
    draw_scene(scene).save(file, "PNG")
    return file.getvalue()
