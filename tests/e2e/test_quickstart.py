"""What the whole chain leaves behind, read with plain libraries."""

import json
import math

import pytest

pytestmark = [pytest.mark.slow]

ROWS = ("blind", "human", "base", "sft", "ppo", "dpo")
COLUMNS = ("cider", "bleu_4", "rouge_l", "vqa_accuracy", "reward", "gold", "mean_tokens", "n")
STAGES = ("sft", "preferences", "reward", "reward-text-only", "ppo", "dpo", "eval", "report")


@pytest.fixture(scope="module")
def summary(smoke):
    return json.loads((smoke / "summary.json").read_text())


def test_summary_has_every_row_and_column(summary):
    assert list(summary["rows"]) == list(ROWS)
    for name, row in summary["rows"].items():
        assert set(COLUMNS) <= set(row), name
        assert row["n"] == 120
        assert all(value is None or math.isfinite(value) for value in row.values()), name


def test_summary_has_the_reward_model_and_the_differences(summary):
    card = summary["reward_model"]
    assert {"accuracy", "text_only_accuracy", "blanked_accuracy", "n"} <= set(card)
    assert {"order", "attribute", "relation", "answer", "on_policy"} <= set(card["by_source"])
    assert set(summary["differences"]) == {"sft_minus_base", "ppo_minus_sft", "dpo_minus_sft"}
    for difference in summary["differences"].values():
        for column in ("cider", "reward", "gold", "vqa_accuracy"):
            assert difference[column]["low"] <= difference[column]["mean"] <= difference[column]["high"]


def test_summary_tells_the_seconds_of_every_stage(summary):
    assert set(summary["seconds"]) == set(STAGES)
    assert all(seconds >= 0 for seconds in summary["seconds"].values())
    assert summary["seconds"]["ppo"] > 0


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo", "dpo"])
def test_final_holds_no_pickle(smoke, stage):
    names = [path.name for path in (smoke / stage / "final").rglob("*") if path.is_file()]
    assert any(name.endswith(".safetensors") for name in names)
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl", ".pickle"))]


@pytest.mark.parametrize("stage", ["sft", "ppo", "dpo"])
def test_final_loads_with_plain_peft_and_gives_the_same_log_probabilities(smoke, stage):
    """peft + transformers without the toolkit, on a float32 base, against our own loader and scorer."""
    import torch
    from peft import PeftModel
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from toolkit.config.schema import ModelSpec
    from toolkit.models.encoding import collate, encode_completion, encode_prompt
    from toolkit.models.loading import load_vlm
    from toolkit.models.logprobs import completion_logprobs
    from toolkit.records import image_prompt

    final = smoke / stage / "final"
    picture = Image.open(sorted((smoke / "data" / "test" / "images").iterdir())[0]).convert("RGB")
    answer = "a large red circle and a small blue square"
    vlm = load_vlm(ModelSpec(id=str(final)), trainable=False)
    batch = collate(
        vlm,
        [encode_prompt(vlm, image_prompt("Describe the image."), [picture])],
        [encode_completion(vlm, answer)],
    )
    with torch.no_grad():
        ours, mask = completion_logprobs(vlm.model, batch)

    base = json.loads((final / "adapter_config.json").read_text())["base_model_name_or_path"]
    model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), final).eval()
    processor = AutoProcessor.from_pretrained(final)
    messages = [*image_prompt("Describe the image."), {"role": "assistant", "content": answer}]
    inputs = processor(text=processor.apply_chat_template(messages), images=[picture], return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[0, :-1].log_softmax(-1)
    plain = logits.gather(-1, inputs["input_ids"][0, 1:, None])[:, 0][-int(mask.sum()) :]
    assert torch.allclose(ours[mask], plain, atol=1e-5), (ours[mask] - plain).abs().max()


@pytest.mark.parametrize("stage", ["sft", "ppo", "dpo"])
def test_the_policies_were_four_bit(smoke, stage):
    """The run's own recipe gives a language model of 4-bit layers and nothing else in 4 bit."""
    from bitsandbytes.nn import Linear4bit

    from toolkit.config.loading import load_recipe
    from toolkit.models.loading import load_vlm

    recipe = load_recipe(smoke / stage / "recipe.resolved.yaml")
    vlm = load_vlm(recipe.model, trainable=False)
    quantised = [name for name, module in vlm.model.named_modules() if isinstance(module, Linear4bit)]
    assert len(quantised) == 7 * 4, "seven linear layers in each of four decoder layers"
    assert all("language_model" in name for name in quantised)
    metrics = [json.loads(line) for line in (smoke / stage / "metrics.jsonl").read_text().splitlines()]
    assert metrics


def test_a_finished_chain_is_not_run_again(smoke, cli):
    before = {path: path.stat().st_mtime_ns for path in smoke.rglob("*.safetensors")}
    done = cli("quickstart", "--smoke", "--out", str(smoke))
    assert done.returncode == 0, done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in smoke.rglob("*.safetensors")}


def test_the_report_holds_the_samples_and_nothing_from_outside(smoke):
    page = (smoke / "report" / "report.html").read_text()
    assert "data:image/" in page
    assert "ppo" in page
    for outside in ('src="http', 'href="http', "<script src", "@import", "url(http"):
        assert outside not in page


def test_predict_gives_a_first_look(smoke, cli):
    picture = sorted((smoke / "data" / "test" / "images").iterdir())[0]
    done = cli(
        "predict", str(smoke / "ppo" / "final"), "--image", str(picture), "--prompt", "Describe the image."
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
