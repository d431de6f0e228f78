"""Training of reward models: transformers' ``Trainer`` with our batches, loss, optimizer groups and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from reward_models.measures import pair_measures
from reward_models.model import VlmRewardModel
from reward_models.objective import PairLabels, list_loss, pair_loss
from reward_models.pairs import PairBatch, PairCollator, RankedBatch, RankedCollator, score_lists, score_pairs
from toolkit.config.schema import RewardLossSpec
from toolkit.errors import RunFailed
from toolkit.records import PreferenceRow, RankedRow
from toolkit.training.partitioned import trained_tensors

__all__ = ["RewardTrainer"]

WEIGHTS_FILE = "model.safetensors"
"""Trained tensors of a checkpoint, under the name that transformers' ``Trainer`` resumes from."""


class RewardTrainer(Trainer):
    """Trains a ``VlmRewardModel`` on preference rows.

    Logs the loss, and over the pairs since the last log line the share ranked right (``accuracy``) and the
    mean difference of scores (``margin``); at evaluations the same on the validation rows, by source too.

    Args:
        model: the model; what has ``requires_grad`` trains.
        args: learning rate and weight decay are those of the adapter (or the full weights).
        rows: training pairs, or ranked lists where the loss is of lists. A loss counts as its row's weight
            in their mean.
        val_rows: validation pairs; may be empty.
        collator: makes batches of pairs.
        loss: which loss.
        head_learning_rate: learning rate of the scalar head, which starts at zero and needs a larger one.
    """

    optimizer: Any
    control: Any

    def __init__(
        self,
        model: VlmRewardModel,
        args: TrainingArguments,
        *,
        rows: Sequence[PreferenceRow] | Sequence[RankedRow],
        val_rows: Sequence[PreferenceRow],
        collator: PairCollator,
        loss: RewardLossSpec,
        head_learning_rate: float,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=list(rows),  # type: ignore[arg-type]
            eval_dataset=list(val_rows) or None,  # type: ignore[arg-type]
            data_collator=(  # type: ignore[arg-type]
                RankedCollator(collator.encoder) if isinstance(rows[0], RankedRow) else collator
            ),
        )
        self.pair_collator = collator
        self.mean_weight = sum(row.weight for row in rows) / len(rows)
        self.loss = loss
        self.head_learning_rate = head_learning_rate
        self._since_log = torch.zeros(3, dtype=torch.float64)  # pairs ranked right, sum of differences, pairs

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of one batch of pairs or lists, a scalar; with ``return_outputs`` also the scores."""
        if "lists" in inputs:
            loss, outputs, differences = self._list_loss(model, inputs["lists"])
        else:
            loss, outputs, differences = self._pair_loss(model, inputs["pairs"])
        right = (differences > 0).double() + 0.5 * (differences == 0).double()
        sums = torch.stack([right.sum(), differences.double().sum(), right.new_tensor(len(differences))])
        self._since_log += sums.cpu()
        return (loss, outputs) if return_outputs else loss

    def _pair_loss(self, model: nn.Module, pairs: PairBatch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Loss, scores, and differences of the pairs that are no ties."""
        chosen, rejected = score_pairs(model, pairs)
        loss = pair_loss(chosen, rejected, pairs.labels, self.loss) / self.mean_weight
        difference = (chosen - rejected).detach()[~pairs.labels.tie]
        return loss, {"chosen": chosen, "rejected": rejected}, difference

    def _list_loss(self, model: nn.Module, lists: RankedBatch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Loss, scores, and differences of all pairs of a better and a worse completion."""
        scores = score_lists(model, lists)
        loss = list_loss(scores, lists.ranks, lists.weight, self.loss) / self.mean_weight
        real = lists.ranks >= 0
        better = (lists.ranks.unsqueeze(2) < lists.ranks.unsqueeze(1)) & real.unsqueeze(2)
        difference = (scores.unsqueeze(2) - scores.unsqueeze(1)).detach()[better]
        return loss, {"scores": scores}, difference

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add accuracy and margin since the last line to lines of training steps."""
        if "loss" in logs:
            # Every process takes part, also one whose batches held nothing but ties.
            sums = self.accelerator.reduce(self._since_log.float().to(self.args.device), "sum")
            right, difference, pairs = sums.tolist()
            if pairs:
                logs |= {"accuracy": right / pairs, "margin": difference / pairs}
            self._since_log.zero_()
        super().log(logs, start_time)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """One parameter group for adapter or weights, one for the head with its own learning rate."""
        if self.optimizer is None:
            owner = self.model if model is None else model
            trained = [(name, p) for name, p in owner.named_parameters() if p.requires_grad]
            head = [p for name, p in trained if ".head." in f".{name}"]
            body = [p for name, p in trained if ".head." not in f".{name}"]
            if not head or not body:
                raise RunFailed(
                    "a reward model trains a head and an adapter (or its weights); one of them is frozen"
                )
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, owner)
            groups = [
                {"params": body, "weight_decay": self.args.weight_decay},
                {"params": head, "weight_decay": 0.0, "lr": self.head_learning_rate},
            ]
            self.optimizer = kind(groups, **options)
        return self.optimizer

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Measures of ``pair_measures`` on the validation rows, and their loss; every process scores all of them."""
        rows: Sequence[PreferenceRow] = self.eval_dataset if eval_dataset is None else eval_dataset
        chosen, rejected = self.scores(rows)
        loss = pair_loss(torch.from_numpy(chosen), torch.from_numpy(rejected), PairLabels.of(rows), self.loss)
        loss = loss / (sum(row.weight for row in rows) / len(rows))
        measured = pair_measures(chosen, rejected, [row.source for row in rows])
        metrics = {f"{metric_key_prefix}_{k}": v for k, v in {"loss": loss.item(), **measured}.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def scores(self, rows: Sequence[PreferenceRow]) -> tuple[Any, Any]:
        """Scores of the chosen and of the rejected completions, two float64 numpy arrays (N,), in evaluation mode."""
        model = self.model_wrapped
        was_training = model.training
        model.eval()
        chosen, rejected = torch.empty(2, len(rows), dtype=torch.float64).unbind()
        # Neighbours of like length share little padding; the order changes no score.
        order = sorted(
            range(len(rows)), key=lambda index: len(rows[index].chosen) + len(rows[index].rejected)
        )
        with torch.no_grad():
            for start in range(0, len(rows), self.args.per_device_eval_batch_size):
                part = order[start : start + self.args.per_device_eval_batch_size]
                good, bad = score_pairs(model, self.pair_collator([rows[i] for i in part])["pairs"])
                chosen[part], rejected[part] = good.double().cpu(), bad.double().cpu()
        model.train(was_training)
        return chosen.numpy(), rejected.numpy()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the trained tensors, and nothing of the frozen base, for a checkpoint."""
        state = trained_tensors(self)
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            save_file(state, str(folder / WEIGHTS_FILE), metadata={"format": "pt"})
