"""SFT: what it trains, what it writes, and that a killed run goes on as if nothing had happened."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

import toolkit.training.sft as sft
from toolkit.data.datasets import sft_dataset
from toolkit.data.images import load_image
from toolkit.errors import Interrupted, RecipeError, RunFailed
from toolkit.models.encoding import collate, encode_completion, encode_prompt
from toolkit.models.logprobs import completion_logprobs
from toolkit.runs.directory import RunDirectory

OPTIONS = {"max_steps": 7, "per_device_train_batch_size": 4, "learning_rate": 2e-3}


def train(vlm, rows, spec, *, val=4, resume=False, checkpointing=False, **options):
    directory = RunDirectory(spec.output_dir)
    directory.path.mkdir(parents=True, exist_ok=True)
    sft.train_sft(
        vlm.model,
        vlm.processor,
        rows,
        rows[:val],
        directory=directory,
        run=spec,
        trainer_options={**OPTIONS, **options},
        gradient_checkpointing=checkpointing,
        resume=resume,
    )
    return directory


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    [file] = folder.glob("*.safetensors")
    return load_file(str(file))


def logprobs_of(vlm, rows):
    prompts = [encode_prompt(vlm, r.prompt, [load_image(i) for i in r.images]) for r in rows]
    batch = collate(vlm, prompts, [encode_completion(vlm, r.completion) for r in rows])
    vlm.model.eval()
    with torch.no_grad():
        return completion_logprobs(vlm.model, batch)[0].sum(1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora", "nf4"])
def test_killed_and_resumed_equals_uninterrupted(
    kind, new_vlm, sft_rows, run_spec, monkeypatch, kill_at, killed
):
    whole = train(new_vlm(kind), sft_rows, run_spec("whole"))
    with monkeypatch.context() as patch:
        original = sft.fit

        def fit(trainer, **arguments):
            trainer.add_callback(kill_at(5))
            original(trainer, **arguments)

        patch.setattr(sft, "fit", fit)
        with pytest.raises(killed):
            train(new_vlm(kind), sft_rows, run_spec("cut"))
    cut = train(new_vlm(kind), sft_rows, run_spec("cut"), resume=True)
    assert cut.metrics.path.read_text() == whole.metrics.path.read_text()
    expected, found = weights_of(whole.final), weights_of(cut.final)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    # Everything was done, but final/ was lost: resuming does no step too many.
    lines = cut.metrics.path.read_text()
    again = train(new_vlm(kind), sft_rows, run_spec("cut"), resume=True)
    assert again.metrics.path.read_text() == lines
    assert all(torch.equal(weights_of(again.final)[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", ["lora", "nf4"])
def test_adapters_stay_in_float32_and_final_loads_in_plain_peft(kind, new_vlm, base, sft_rows, run_spec):
    vlm = new_vlm(kind)
    directory = train(vlm, sft_rows, run_spec("run"), max_steps=3)
    trained = [parameter for parameter in vlm.model.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    assert {tensor.dtype for tensor in weights_of(directory.final).values()} == {torch.float32}
    assert AutoProcessor.from_pretrained(directory.final).chat_template == vlm.processor.chat_template
    if kind == "lora":
        plain = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), directory.final)
        here = logprobs_of(vlm, sft_rows[:4])
        vlm.model = plain
        torch.testing.assert_close(logprobs_of(vlm, sft_rows[:4]), here, atol=1e-5, rtol=0)


def test_final_of_a_full_model_loads_in_plain_transformers_and_holds_no_pickle(new_vlm, sft_rows, run_spec):
    vlm = new_vlm("full")
    directory = train(vlm, sft_rows, run_spec("run"), max_steps=3)
    here = logprobs_of(vlm, sft_rows[:4])
    vlm.model = AutoModelForImageTextToText.from_pretrained(directory.final)
    torch.testing.assert_close(logprobs_of(vlm, sft_rows[:4]), here, atol=1e-6, rtol=0)
    assert not [p for p in directory.final.rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_the_run_directory_holds_metrics_checkpoints_and_nothing_half_written(new_vlm, sft_rows, run_spec):
    directory = train(new_vlm("lora"), sft_rows, run_spec("run", save_total_limit=1))
    assert {path.name for path in directory.path.iterdir()} == {"metrics.jsonl", "checkpoint-6", "final"}
    lines = [json.loads(line) for line in directory.metrics.path.read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 3, 4, 6, 7]
    assert [line["step"] for line in lines if "eval_loss" in line] == [4, 7]
    assert not [name for line in lines for name in line if "runtime" in name or "per_second" in name]


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_the_loss_is_over_the_completion_as_our_own_encoding_has_it(
    family, new_vlm, base, qwen_base, sft_rows, run_spec, monkeypatch
):
    vlm = new_vlm("lora", folder=base if family == "llava" else qwen_base)
    seen = {}
    monkeypatch.setattr(sft, "fit", lambda trainer, **k: seen.update(trainer=trainer))
    monkeypatch.setattr(sft, "save_final", lambda *a: None)
    train(vlm, sft_rows, run_spec("run"))
    rows = sft_rows[:5]
    dataset = sft_dataset(rows)
    batch = seen["trainer"].data_collator([dataset[index] for index in range(5)])
    for index, row in enumerate(rows):
        prompt = encode_prompt(vlm, row.prompt, [load_image(i) for i in row.images]).input_ids
        completion = encode_completion(vlm, row.completion)
        attended = batch["attention_mask"][index].bool()
        expected = [*prompt.tolist(), *completion.tolist()]
        found = batch["input_ids"][index][attended].tolist()
        # Qwen's template writes a newline after the end token; TRL keeps it, and nothing reads it.
        assert found[: len(expected)] == expected
        assert len(found) - len(expected) <= (family == "qwen2_5_vl")
        labels = batch["labels"][index]
        assert labels[labels != -100].tolist() == found[len(prompt) :]


def test_settings_reach_the_trainer(new_vlm, sft_rows, run_spec, monkeypatch):
    seen = {}
    monkeypatch.setattr(sft, "fit", lambda trainer, **k: seen.update(args=trainer.args))
    monkeypatch.setattr(sft, "save_final", lambda *a: None)
    spec = run_spec("run", seed=17, log_every_steps=3, save_every_steps=5)
    train(new_vlm("lora"), sft_rows, spec, checkpointing=True, weight_decay=0.125)
    args = seen["args"]
    assert (args.seed, args.logging_steps, args.save_steps, args.eval_steps) == (17, 3, 5, 4)
    assert (args.learning_rate, args.weight_decay, args.max_length) == (2e-3, 0.125, None)
    assert args.gradient_checkpointing
    assert args.gradient_checkpointing_kwargs["use_reentrant"] is False
    assert not args.bf16
    assert not args.fp16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_dir": "x"}, "trainer.output_dir: set run.output_dir instead"),
        ({"gradient_checkpointing": True}, "set model.gradient_checkpointing instead"),
        ({"packing_speed": 3}, "packing_speed"),
        ({"lr_scheduler_type": "sideways"}, "SFTConfig refuses it"),
    ],
)
def test_wrong_trainer_options_are_refused_before_anything_is_written(
    options, message, new_vlm, sft_rows, run_spec
):
    with pytest.raises(RecipeError, match=message):
        train(new_vlm("lora"), sft_rows, run_spec("run"), **options)


def test_a_loss_that_is_no_number_stops_the_run(new_vlm, sft_rows, run_spec):
    vlm = new_vlm("lora")
    with torch.no_grad():
        next(p for p in vlm.model.parameters() if p.requires_grad).fill_(torch.nan)
    with pytest.raises(RunFailed, match="the loss is nan at step 2"):
        train(vlm, sft_rows, run_spec("run"), val=0)


@pytest.mark.slow
def test_a_signal_ends_the_run_after_a_checkpoint_from_which_it_goes_on(new_vlm, sft_rows, run_spec):
    spec = run_spec("run")
    directory = RunDirectory(spec.output_dir)
    directory.stop.request()
    vlm = new_vlm("lora")
    with pytest.raises(Interrupted, match="after step 1 of 7") as caught:
        sft.train_sft(
            vlm.model, vlm.processor, sft_rows, [], directory=directory, run=spec, trainer_options=OPTIONS
        )
    assert caught.value.exit_code == 143
    assert [path.name for path in directory.path.glob("checkpoint-*")] == ["checkpoint-1"]
    assert not directory.final.exists()
    again = train(new_vlm("lora"), sft_rows, spec, resume=True)
    whole = train(new_vlm("lora"), sft_rows, run_spec("whole"))
    expected, found = weights_of(whole.final), weights_of(again.final)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_the_model_card_loads_what_was_trained(kind, new_vlm, sft_rows, run_spec, monkeypatch):
    vlm = new_vlm(kind)
    final = train(vlm, sft_rows, run_spec("run"), max_steps=1, gradient_accumulation_steps=1).final
    card = (final / "README.md").read_text()
    assert "More Information Needed" not in card
    monkeypatch.chdir(final.parent)
    names = {}
    exec(card.split("```python\n")[1].split("```")[0], names)
    assert isinstance(names["model"], PeftModel) == (kind == "lora")
    loaded = dict(names["model"].named_parameters())
    trained = {name: value for name, value in vlm.model.named_parameters() if value.requires_grad}
    assert trained
    assert all(torch.equal(loaded[name], value) for name, value in trained.items())
    assert names["processor"].chat_template == vlm.processor.chat_template
