"""Loading: settings reach the real call, adapters and bases are told apart, mistakes have remedies."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from toolkit.config.schema import LoraSpec, ModelSpec, QuantizationSpec
from toolkit.errors import CheckpointError, RecipeError
from toolkit.models.encoding import collate, encode_prompt
from toolkit.models.generation import generate
from toolkit.models.loading import disable_dropout, load_vlm
from toolkit.models.logprobs import completion_logprobs
from toolkit.models.roles import role_parameters
from toolkit.models.structure import inner_model, language_linear_names
from toolkit.records import image_prompt

from .conftest import FAMILIES, picture, samples


@torch.no_grad()
def scores(vlm):
    prompts, completions = samples(vlm)
    return completion_logprobs(vlm.model, collate(vlm, prompts, completions))[0]


def test_a_saved_adapter_gives_the_same_scores_here_and_in_plain_peft(trainable, tmp_path):
    trainable.model.save_pretrained(tmp_path / "final")
    trainable.processor.save_pretrained(tmp_path / "final")
    trainable.model.eval()
    expected = scores(trainable)
    reloaded = load_vlm(ModelSpec(id=str(tmp_path / "final")), trainable=False)
    assert torch.equal(scores(reloaded), expected)
    assert list(reloaded.model.peft_config) == ["default"]
    assert reloaded.base_id == trainable.base_id
    base = AutoModelForImageTextToText.from_pretrained(trainable.base_id)
    reloaded.model = PeftModel.from_pretrained(base, tmp_path / "final").eval()
    assert torch.equal(scores(reloaded), expected)
    assert not list(tmp_path.rglob("*.bin")) + list(tmp_path.rglob("*.pt"))


def test_an_adapter_goes_on_training(policy, tmp_path):
    policy.model.save_pretrained(tmp_path)
    again = load_vlm(ModelSpec(id=str(tmp_path)), trainable=True)
    assert {n for n, p in again.model.named_parameters() if p.requires_grad} == {
        n for n, _ in again.model.named_parameters() if "lora_" in n
    }
    for (_, a), (_, b) in zip(
        role_parameters(again.model, "default"), role_parameters(policy.model, "default"), strict=True
    ):
        assert torch.equal(a, b)
    with pytest.raises(RecipeError, match="rank, alpha: found 8, 8"):
        load_vlm(ModelSpec(id=str(tmp_path), lora=LoraSpec(rank=8, alpha=8)), trainable=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_lora_is_on_the_language_model_only_and_every_part_learns(directories, name):
    vlm = load_vlm(ModelSpec(id=str(directories[name]), lora=LoraSpec(rank=2, alpha=4)), trainable=True)
    adapted = {n.split(".lora_")[0] for n, p in vlm.model.named_parameters() if p.requires_grad}
    assert {n.removeprefix("base_model.model.") for n in adapted} == set(language_linear_names(vlm.model))
    prompts, completions = samples(vlm)
    completion_logprobs(vlm.model, collate(vlm, prompts, completions))[0].sum().backward()
    assert all(p.grad is not None for p in vlm.model.parameters() if p.requires_grad)


def test_chosen_targets_and_unknown_ones(directories):
    spec = ModelSpec(
        id=str(directories["llava"]), lora=LoraSpec(rank=2, alpha=4, targets=["q_proj", "v_proj"])
    )
    vlm = load_vlm(spec, trainable=True)
    names = {n.split(".lora_")[0].rsplit(".", 1)[-1] for n, _ in role_parameters(vlm.model, "default")}
    assert names == {"q_proj", "v_proj"}
    wrong = ModelSpec(id=str(directories["llava"]), lora=LoraSpec(targets=["k_porj"]))
    with pytest.raises(RecipeError, match="called k_porj"):
        load_vlm(wrong, trainable=True)


def test_settings_reach_the_real_call(directories, monkeypatch):
    seen = {}
    original = AutoModelForImageTextToText.from_pretrained

    def spy(identifier, **arguments):
        seen.update(arguments, id=identifier)
        return original(identifier, **arguments)

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", spy)
    spec = ModelSpec(
        id=str(directories["llava"]),
        revision="v1",
        dtype="bfloat16",
        attn_implementation="eager",
        lora=LoraSpec(),
    )
    vlm = load_vlm(spec.model_copy(update={"gradient_checkpointing": True}), trainable=True)
    config = inner_model(vlm.model).config
    assert seen["trust_remote_code"] is False
    assert seen["use_safetensors"] is True
    assert seen["local_files_only"]
    assert config._attn_implementation == "eager"
    assert config.text_config._attn_implementation == "eager"
    assert inner_model(vlm.model).lm_head.weight.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for _, p in role_parameters(vlm.model, "default"))
    assert inner_model(vlm.model).is_gradient_checkpointing
    assert vlm.model.training


def test_revision_reaches_hub_models(monkeypatch):
    from transformers import AutoConfig

    def refuse(identifier, **arguments):
        raise OSError(f"{identifier}@{arguments['revision']} local={arguments['local_files_only']}")

    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    with pytest.raises(CheckpointError, match="owner/model@abc local=False"):
        load_vlm(ModelSpec(id="owner/model", revision="abc"), trainable=False)


@pytest.mark.parametrize(("name", "limit"), [("qwen2_5_vl", 32 * 32), ("idefics3", 48 * 48)])
def test_max_pixels_makes_fewer_image_tokens(directories, name, limit):
    def tokens(spec):
        vlm = load_vlm(spec, trainable=False)
        prompt = encode_prompt(vlm, image_prompt("x"), [picture(0, 96, 96)])
        generate(vlm, [prompt], max_new_tokens=1, temperature=0.0)
        return int((prompt.input_ids == vlm.family.image_token_id).sum())

    spec = ModelSpec(id=str(directories[name]))
    assert tokens(spec.model_copy(update={"max_pixels": limit})) < tokens(spec)


def test_max_pixels_that_a_fixed_size_exceeds_is_refused(directories):
    load_vlm(ModelSpec(id=str(directories["llava"]), max_pixels=48 * 48), trainable=False)
    with pytest.raises(RecipeError, match="48 x 48"):
        load_vlm(ModelSpec(id=str(directories["llava"]), max_pixels=100), trainable=False)


def test_frozen_and_full_training(directories):
    frozen = load_vlm(ModelSpec(id=str(directories["llava"])), trainable=False).model
    assert not frozen.training
    assert not any(p.requires_grad for p in frozen.parameters())
    full = load_vlm(ModelSpec(id=str(directories["llava"])), trainable=True).model
    assert full.training
    assert all(p.requires_grad for p in full.parameters())


def test_dropout_can_be_switched_off(directories):
    spec = ModelSpec(id=str(directories["llava"]), lora=LoraSpec(dropout=0.5))
    vlm = load_vlm(spec, trainable=True)
    torch.nn.init.ones_(role_parameters(vlm.model, "default")[1][1])
    assert not torch.equal(scores(vlm), scores(vlm))
    disable_dropout(vlm.model)
    assert torch.equal(scores(vlm), scores(vlm))


def test_mistakes_have_remedies(directories, tmp_path, in_tmp_path):
    def fails(identifier, message, **settings):
        with pytest.raises(CheckpointError, match=message) as caught:
            load_vlm(ModelSpec(id=str(identifier), **settings), trainable=False)
        assert caught.value.remedy
        assert caught.value.exit_code == 2

    (tmp_path / "run" / "final").mkdir(parents=True)
    (tmp_path / "run" / "final" / "config.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "run", "is no checkpoint")
    fails(tmp_path / "empty", "is no checkpoint")
    fails(tmp_path / "run" / "final", "cannot load")
    fails(tmp_path / "absent", "there is no directory")
    fails("out/sft/final", "there is no directory")
    fails(tmp_path / "run" / "final" / "config.json", "is a file")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").touch()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/gone/base"}))
    fails(adapter, "belongs to the base model /gone/base")


@pytest.fixture
def copied(directories, tmp_path):
    """A copy of the tiny LLaVA's directory, to be damaged."""
    return shutil.copytree(directories["llava"], tmp_path / "copy")


def refused(directory):
    with pytest.raises(CheckpointError) as caught:
        load_vlm(ModelSpec(id=str(directory)), trainable=False)
    assert caught.value.remedy
    return str(caught.value)


def test_truncated_weights(copied):
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    assert "cannot load" in refused(copied)


def test_missing_weights_are_not_made_up(copied):
    weights = load_file(copied / "model.safetensors")
    weights.pop("language_model.lm_head.weight")
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 of the model's weights, such as lm_head.weight" in refused(copied)


@pytest.mark.parametrize("file", ["tokenizer.json", "processor_config.json", "chat_template.jinja"])
def test_missing_processor_files(copied, file):
    (copied / file).unlink()
    assert str(copied) in refused(copied)


def test_incomplete_or_foreign_adapters(policy, directories, tmp_path):
    policy.model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    weights = load_file(file)
    save_file(dict(list(weights.items())[1:]), file, metadata={"format": "pt"})
    assert "cannot load the adapter" in refused(tmp_path)
    file.write_bytes(b"damaged")
    assert "cannot load the adapter" in refused(tmp_path)
    save_file(weights, file, metadata={"format": "pt"})
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(directories["idefics3"])
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert "cannot load the adapter" in refused(tmp_path)
    file.unlink()
    assert "has no adapter_model.safetensors" in refused(tmp_path)


def test_an_adapter_of_a_base_given_by_a_relative_path_is_read_from_elsewhere(copied, tmp_path, monkeypatch):
    monkeypatch.chdir(copied.parent)
    vlm = load_vlm(ModelSpec(id="copy", lora=LoraSpec(rank=2, alpha=4)), trainable=True)
    vlm.model.save_pretrained("adapter")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_vlm(ModelSpec(id="../adapter"), trainable=False).base_id == str(copied.resolve())


def test_weights_other_than_safetensors_are_refused(directories, tmp_path):
    for file in directories["llava"].iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="safetensors"):
        load_vlm(ModelSpec(id=str(tmp_path)), trainable=False)


def test_quantised_weights_do_not_train_themselves(directories):
    spec = ModelSpec(id=str(directories["llava"]), quantization=QuantizationSpec())
    with pytest.raises(RecipeError, match="cannot be trained"):
        load_vlm(spec, trainable=True)
