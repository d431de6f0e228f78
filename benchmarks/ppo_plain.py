"""PPO for a LLaVA as one would write it down with transformers and peft, for one process: the other side of a race.

No roles, no guards, no log, no resume, no feature reuse; one shared value head. Prompts are encoded beforehand and have
one length. The random numbers of ``toolkit.rl`` come in as arguments, so that both sides train on the same rollouts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoModelForImageTextToText, AutoProcessor


class PlainPpo:
    """One policy with a LoRA; ``iterate`` samples, scores, rewards and updates."""

    def __init__(
        self, base: Path, *, rank: int, images: Sequence[Any], score: Callable[[list[str]], torch.Tensor]
    ) -> None:
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_pretrained(base)
        targets = r".*language_model\..*(q|k|v|o|gate|up|down)_proj"
        self.model = get_peft_model(
            model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
        ).eval()
        self.processor, self.score = AutoProcessor.from_pretrained(base), score
        self.head = torch.nn.Linear(model.config.get_text_config().hidden_size, 1)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)
        adapter = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.trained = [*adapter, *self.head.parameters()]
        groups = [{"params": adapter, "lr": 5e-4}, {"params": list(self.head.parameters()), "lr": 2e-3}]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0)
        content = [{"type": "image"}, {"type": "text", "text": "Describe the image."}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        self.inputs = self.processor(text=[text] * len(images), images=list(images), return_tensors="pt")

    def iterate(
        self, rows: list[int], *, seed: int, epochs: list[list[list[int]]], max_new_tokens: int
    ) -> None:
        """One iteration on the prompts ``rows``; ``epochs`` are lists of minibatches."""
        prompt = {name: value[rows] for name, value in self.inputs.items()}
        length, tokenizer = prompt["input_ids"].shape[1], self.processor.tokenizer
        torch.manual_seed(seed)
        with torch.no_grad():
            ids = self.model.generate(
                **prompt, do_sample=True, top_k=0, top_p=1.0, temperature=1.0, max_new_tokens=max_new_tokens,
                suppress_tokens=[self.model.config.image_token_id],
            )  # fmt: skip
            tokens = ids[:, length:]
            is_end = tokens == tokenizer.eos_token_id
            mask = (is_end.cumsum(1) - is_end.long() == 0).float()
            ended = (is_end * mask).any(1)
            attention = torch.cat([prompt["attention_mask"], mask.long()], 1)
            batch = {**prompt, "input_ids": ids, "attention_mask": attention}
            old, old_values, _ = self.forward(batch, tokens, mask)
            with self.model.disable_adapter():
                reference, _, _ = self.forward(batch, tokens, mask)
            texts = [tokenizer.decode(row[keep.bool()], skip_special_tokens=True).strip()
                     for row, keep in zip(tokens, mask, strict=True)]  # fmt: skip
            scores = self.score(texts) - 1.0 * ~ended
            rewards = -0.03 * (old - reference) * mask
            rewards[torch.arange(len(rows)), mask.sum(1).long() - 1] += scores
            advantages, carried, following = torch.zeros_like(rewards), 0.0, 0.0
            for step in reversed(range(tokens.shape[1])):
                delta = rewards[:, step] + following - old_values[:, step]
                carried = (delta + 0.95 * carried) * mask[:, step]
                advantages[:, step], following = carried, old_values[:, step]
            returns = (advantages + old_values) * mask
            kept = advantages[mask.bool()].double()
            whitened = (advantages.double() - kept.mean()) / (kept.var(unbiased=False) + 1e-8).sqrt()
            advantages = (whitened * mask).float()
        for minibatches in epochs:
            for part in minibatches:
                chosen = {name: value[part] for name, value in batch.items()}
                self.update(
                    chosen,
                    tokens[part],
                    mask[part],
                    old[part],
                    old_values[part],
                    advantages[part],
                    returns[part],
                )

    def forward(self, batch: dict, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Log-probabilities, values and entropy of the completions, ``(B, T)``."""
        kept = tokens.shape[1] + 1
        output = self.model(**batch, logits_to_keep=kept, output_hidden_states=True)
        logprobs = functional.log_softmax(output.logits[:, :-1], -1)
        chosen = logprobs.gather(-1, tokens[..., None]).squeeze(-1) * mask
        values = self.head(output.hidden_states[-1][:, -kept:-1]).squeeze(-1) * mask
        return chosen, values, -(logprobs.exp() * logprobs).sum(-1)

    def update(
        self, batch: dict, tokens: Any, mask: Any, old: Any, old_values: Any, advantages: Any, returns: Any
    ) -> None:
        """One optimizer step on a minibatch."""
        new, values, _ = self.forward(batch, tokens, mask)
        ratio = torch.exp(new - old)
        policy = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.2))
        clipped = old_values + (values - old_values).clamp(-0.2, 0.2)
        value = 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())
        loss = ((policy + 0.5 * value) * mask).sum() / mask.sum()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
