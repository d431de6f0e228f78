"""The model card beside saved weights: what they are, how to load them, and what they were trained on.

Everything in it is read from files of the run; PEFT's and TRL's templates, which leave that to be filled in, are
replaced. Local paths are told by their names alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.config.document import parse_text, plain
from toolkit.runs.environment import package_versions

__all__ = ["CARD_FILE", "model_card", "write_model_card"]

CARD_FILE = "README.md"

_STAGES = {
    "pretrain": "a vision-language model trained from scratch",
    "judging": "a vision-language model trained to judge texts by pictures",
    "sft": "supervised fine-tuning on captions and answers",
    "reward": "a reward model trained on preferences",
    "rl": "a policy trained by reinforcement learning on a composite reward",
    "preference": "a policy trained by direct preference optimisation",
}
# Dotted keys of a resolved recipe that become rows of the table. Options of reward terms and what a trainer says to
# the hub may hold secrets.
_SETTINGS = re.compile(
    r"model\.(dtype|max_pixels|quantization\..*|lora\..*)|run\.seed|trainer\.(?!hub_|push_|.*token$|.*_dir$).*"
    r"|(architecture|tower|loss|source_weights)\..*|(head_learning_rate|blank_images|plain_texts)"
    r"|rollout\.(prompts_per_iteration|samples_per_prompt|max_new_tokens|(final_)?temperature|backend)"
    r"|ppo\.(iterations|epochs|minibatches|estimator|gamma|gae_lambda|clip|critic|missing_eos_penalty|final|best_metric)"
    r"|kl\.(coefficient|controller|target_nats)|optimizer\..*"
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def write_model_card(folder: Path, run: Path) -> None:
    """Write the card of the model saved in ``folder``, over any template there.

    Args:
        folder: adapter or whole weights; may still have its temporary name.
        run: the run's directory; without a resolved recipe there the card says what the weights' own files say.
    """
    (folder / CARD_FILE).write_text(model_card(folder, run), encoding="utf-8")


def model_card(folder: Path, run: Path) -> str:
    """The text of the card, Markdown with a YAML head; see ``write_model_card``."""
    recipe, adapter = _recipe(run / "recipe.resolved.yaml"), _json(folder / "adapter_config.json")
    reward = _json(folder / "reward_config.json")
    stage = str(recipe.get("stage") or ("reward" if reward else ""))
    model = recipe.get("model") or {}
    base = adapter.get("base_model_name_or_path") or reward.get("base_id") or model.get("id")
    head = {
        "library_name": "peft" if adapter else "transformers",
        **({"base_model": _model_name(base)} if base else {}),
        "pipeline_tag": "image-text-to-text",
        "tags": ["vlm-rlhf", *([stage] if stage else []), *(["lora"] if adapter else [])],
    }
    parts = [
        "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---"]),
        f"# {_code(run.resolve().name)}",
        _what(stage, base, model.get("id"), adapter),
        "## Loading\n\n" + _loading(adapter, model.get("dtype"), reward=bool(reward)),
        _data(recipe.get("data") or {}),
        _settings(recipe),
        "## Versions\n\n" + ", ".join(f"{name} {version}" for name, version in package_versions().items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(stage: str, base: str | None, start: str | None, adapter: Mapping[str, Any]) -> str:
    lines = [
        f"Stage {_code(stage)} of vlm-rlhf: {_STAGES[stage]}." if stage in _STAGES else "Made by vlm-rlhf."
    ]
    if adapter:
        revision = adapter.get("revision")
        at = f" at revision {_code(revision)}" if revision else ""
        lines.append(f"A LoRA adapter of rank {adapter.get('r')} on {_code(_model_name(base))}{at}.")
    elif base:
        lines.append(f"All weights, trained from those of {_code(_model_name(base))}.")
    if adapter and start and start != base:
        lines.append(f"Training began from {_code(_model_name(start))}.")
    return " ".join(lines)


def _loading(adapter: Mapping[str, Any], dtype: str | None, *, reward: bool) -> str:
    if reward:
        return (
            "With vlm-rlhf, from the folder that holds `final`; base, precision and processor must be those in "
            "`reward_config.json`:\n\n```python\nfrom pathlib import Path\n\n"
            "from reward_models.scorer import LearnedReward\nfrom toolkit.records import image_prompt\n\n"
            'reward = LearnedReward.load("final")\nprompt, pictures = image_prompt("Describe the image."), '
            '(Path("picture.png"),)\nscores = reward.score([prompt], [pictures], ["a red circle"])\n```'
        )
    options = [f", dtype={json.dumps(dtype)}" if dtype else ""]
    if not adapter:
        lines = [
            "from transformers import AutoModelForImageTextToText, AutoProcessor\n",
            f'model = AutoModelForImageTextToText.from_pretrained("final"{options[0]})',
        ]
    else:
        revision = adapter.get("revision")
        options.append(f", revision={json.dumps(revision)}" if revision else "")
        lines = [
            "from peft import PeftConfig, PeftModel",
            "from transformers import AutoModelForImageTextToText, AutoProcessor\n",
            'base = PeftConfig.from_pretrained("final").base_model_name_or_path',
            f"model = AutoModelForImageTextToText.from_pretrained(base{''.join(options)})",
            'model = PeftModel.from_pretrained(model, "final")',
        ]
    code = "\n".join([*lines, 'processor = AutoProcessor.from_pretrained("final")'])
    return f"From the folder that holds `final`:\n\n```python\n{code}\n```"


def _data(data: Mapping[str, Any]) -> str:
    lines = []
    for part in ("train", "val"):
        for source in data.get(part) or []:
            names = [source.get(key) for key in ("captions", "questions", "annotations", "file")]
            told = ", ".join(_code(_file_name(name)) for name in names if name)
            limit = f", at most {source['limit']}" if source.get("limit") else ""
            lines.append(f"- {part}: {source.get('kind')} from {told}{limit}")
    return (
        "\n".join([f"## Data\n\nBelow {_code(Path(str(data.get('root'))).name)}:\n", *lines]) if lines else ""
    )


def _settings(recipe: Mapping[str, Any]) -> str:
    rows = [(key, value) for key, value in _leaves(recipe) if _SETTINGS.fullmatch(key)]
    for term in recipe.get("rewards") or []:
        model = f", model {_model_name(term['model'])}" if term.get("model") else ""
        told = f"weight {term.get('weight')}, normalise {term.get('normalise')}{model}"
        rows.append((f"reward {_file_name(str(term.get('name') or term.get('term')))}", told))
    lines = [f"| {_cell(key)} | {_cell(value)} |" for key, value in rows]
    return "\n".join(["## Settings\n", "| key | value |", "| --- | --- |", *lines]) if lines else ""


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and texts of all values that are set; lists of plain values are one value."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    elif value is not None and value != []:
        yield prefix, _file_name(value) if isinstance(value, str) else json.dumps(value)


def _model_name(name: str | Path | None) -> str:
    """A hub id as it is; of a local folder its name, or that of the run where the folder is its ``final``."""
    path = Path(str(name))
    if _HUB_ID.fullmatch(str(name)) and not path.exists():
        return str(name)
    parts = [part for part in path.parts if part not in ("/", ".", "..")]
    return next((part for part in reversed(parts) if part not in ("final", "best")), path.name)


def _file_name(name: str) -> str:
    """A relative path as it is; one from the root, the home or above by its last part."""
    outside = name.startswith(("/", "~")) or ".." in Path(name).parts
    return Path(name).name if outside else name


def _code(text: Any) -> str:
    """A text from elsewhere as a code span, in which nothing is markup."""
    return f"`{' '.join(str(text).split()).replace('`', chr(39)) or ' '}`"


def _cell(text: Any) -> str:
    return _code(text).replace("|", "\\|")


def _recipe(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    tree = parse_text(path.read_text(encoding="utf-8"), path.name, [])
    values = None if tree is None else plain(tree)
    return values if isinstance(values, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
