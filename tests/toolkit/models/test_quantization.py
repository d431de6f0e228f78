"""4-bit loading: exactly the language model's layers, and gradients that stay right after an evaluation."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from toolkit.config.schema import LoraSpec, ModelSpec, QuantizationSpec
from toolkit.errors import RunFailed
from toolkit.models.encoding import collate
from toolkit.models.loading import load_vlm
from toolkit.models.logprobs import completion_logprobs
from toolkit.models.quantization import check_quantized, quantized_linear_names
from toolkit.models.roles import role_parameters
from toolkit.models.structure import inner_model, language_linear_names

from .conftest import FAMILIES, randomise, samples

bitsandbytes = pytest.importorskip("bitsandbytes")


def load(directory, **settings):
    spec = ModelSpec(
        id=str(directory), quantization=QuantizationSpec(**settings), lora=LoraSpec(rank=4, alpha=8)
    )
    return load_vlm(spec, trainable=True)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", FAMILIES)
def test_all_language_layers_and_nothing_else(directories, name, bits):
    vlm = load(directories[name], bits=bits)
    plain = load_vlm(ModelSpec(id=str(directories[name])), trainable=False)
    assert quantized_linear_names(vlm.model, bits) == language_linear_names(plain.model)
    head = inner_model(vlm.model).get_output_embeddings()
    assert type(head) is torch.nn.Linear
    check_quantized(vlm.model, bits)


def test_other_layers_quantised_is_an_error(directories):
    vlm = load(directories["llava"])
    inner_model(vlm.model).lm_head = bitsandbytes.nn.Linear4bit(64, 64)
    with pytest.raises(RunFailed, match="1 other layers"):
        check_quantized(vlm.model, 4)


def test_settings_reach_the_layers(directories):
    vlm = load(
        directories["llava"], type="fp4", double=False, compute_dtype="bfloat16", storage_dtype="float32"
    )
    layers = [m for m in vlm.model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert {m.weight.quant_type for m in layers} == {"fp4"}
    assert not any(m.weight.quant_state.nested for m in layers)
    assert {m.compute_dtype for m in layers} == {torch.bfloat16}
    assert {m.weight.dtype for m in layers} == {torch.float32}


def test_close_to_the_full_model(directories):
    full = load_vlm(ModelSpec(id=str(directories["llava"])), trainable=False)
    prompts, completions = samples(full)
    with torch.no_grad():
        expected, mask = completion_logprobs(full.model, collate(full, prompts, completions))
        found, _ = completion_logprobs(load(directories["llava"]).model, collate(full, prompts, completions))
    assert 0 < (expected - found)[mask].abs().max() < 0.2


def gradient(vlm):
    prompts, completions = samples(vlm)
    vlm.model.train()
    vlm.model.zero_grad()
    completion_logprobs(vlm.model, collate(vlm, prompts, completions))[0].sum().backward()
    return torch.cat([parameter.grad.flatten() for _, parameter in role_parameters(vlm.model, "default")])


@pytest.mark.filterwarnings("ignore:Merge lora module to 4-bit")
@pytest.mark.parametrize("name", FAMILIES)
def test_an_evaluation_does_not_spoil_the_gradients_or_a_merge(directories, name):
    vlm = load(directories[name])
    randomise(vlm, "default", seed=1)
    before = gradient(vlm)
    prompts, completions = samples(vlm)
    batch = collate(vlm, prompts, completions)
    vlm.model.eval()
    with torch.no_grad():
        scored, _ = completion_logprobs(vlm.model, batch)
    after = gradient(vlm)
    assert (before != 0).any()
    assert cosine_similarity(before, after, dim=0) > 0.99999
    vlm.model.eval()
    merged = vlm.model.merge_and_unload()
    with torch.no_grad():
        found, mask = completion_logprobs(merged, batch)
    assert (found - scored)[mask].abs().max() < 0.2
