"""The quickstart for several seeds: a table with every seed, and whether each acceptance line is reached.

    python benchmarks/quickstart_seeds.py --seeds 0 1 2 --out out/seeds      (about 10 minutes a seed on 2 cores)

A seed covers data, fine-tuning, reward model and RL. With ``--json`` one JSON object goes to stdout:
``{"seeds": {seed: {"rows", "differences", "reward_model", "seconds", "wall_seconds", "lines"}}}``, where ``lines``
are the ratios and differences that the acceptance lines speak of.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROWS = ("blind", "human", "base", "sft", "ppo", "dpo")
COLUMNS = ("cider", "bleu_4", "rouge_l", "vqa_accuracy", "reward", "gold", "mean_tokens")


def main() -> int:
    """Run what is missing, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("out/seeds"))
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    arguments = parser.parse_args()
    summaries = {seed: summary_of(seed, arguments.out / f"seed-{seed}") for seed in arguments.seeds}
    if arguments.json:
        found = {seed: {**summary, "lines": acceptance(summary)} for seed, summary in summaries.items()}
        sys.stdout.write(json.dumps({"seeds": found}) + "\n")
    else:
        sys.stdout.write("\n\n".join(tables(summaries)) + "\n")
    return 0


def summary_of(seed: int, out: Path) -> dict[str, Any]:
    """The summary of a seed's quickstart; finished stages are not run again."""
    command = [sys.executable, "-m", "toolkit", "quickstart", "--seed", str(seed), "--out", str(out)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    found: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    finished = json.loads((out / "finished.json").read_text(encoding="utf-8"))
    return {
        **found,
        "wall_seconds": finished["seconds"],
    }  # stages run side by side: their seconds add up to more


def acceptance(summary: dict[str, Any]) -> dict[str, float]:
    """The numbers the acceptance lines speak of."""
    rows, differences, card = summary["rows"], summary["differences"], summary["reward_model"]
    blind, human, sft = rows["blind"], rows["human"], rows["sft"]
    ppo, dpo = differences["ppo_minus_sft"], differences["dpo_minus_sft"]
    return {
        "sft_cider_over_blind": sft["cider"] / blind["cider"],
        "sft_cider_share_of_human": (sft["cider"] - blind["cider"]) / (human["cider"] - blind["cider"]),
        "sft_minus_base_cider_low": differences["sft_minus_base"]["cider"]["low"],
        "sft_minus_blind_vqa_points": sft["vqa_accuracy"] - blind["vqa_accuracy"],
        "reward_accuracy": card["accuracy"],
        "reward_accuracy_worst_source": min(source["accuracy"] for source in card["by_source"].values()),
        "reward_minus_text_only": card["accuracy"] - card["text_only_accuracy"],
        "ppo_cider_low": ppo["cider"]["low"],
        "ppo_reward_low": ppo["reward"]["low"],
        "ppo_gold_low": ppo["gold"]["low"],
        "ppo_vqa_low": ppo["vqa_accuracy"]["low"],
        "dpo_reward_low": dpo["reward"]["low"],
        "dpo_gold_low": dpo["gold"]["low"],
        "dpo_cider_low_share_of_sft": dpo["cider"]["low"] / sft["cider"],
        "dpo_vqa_low": dpo["vqa_accuracy"]["low"],
        "wall_seconds": summary["wall_seconds"],
    }


def tables(summaries: dict[int, dict[str, Any]]) -> list[str]:
    """Markdown: rows of every seed, differences with intervals, reward model by source, acceptance numbers."""
    return [
        _rows_table(summaries),
        _differences_table(summaries),
        _reward_table(summaries),
        _transposed("acceptance line", {seed: acceptance(summary) for seed, summary in summaries.items()}),
        _transposed("stage, seconds", {seed: summary["seconds"] for seed, summary in summaries.items()}),
    ]


def _rows_table(summaries: dict[int, dict[str, Any]]) -> str:
    lines = [_line(["seed", "row", *COLUMNS]), _line(["---"] * (len(COLUMNS) + 2))]
    for seed, summary in summaries.items():
        lines += [
            _line([str(seed), name, *(_number(summary["rows"][name][column]) for column in COLUMNS)])
            for name in ROWS
        ]
    return "\n".join(lines)


def _differences_table(summaries: dict[int, dict[str, Any]]) -> str:
    columns = ("cider", "reward", "gold", "vqa_accuracy")
    lines = [_line(["seed", "difference", *columns]), _line(["---"] * (len(columns) + 2))]
    for seed, summary in summaries.items():
        for name, difference in summary["differences"].items():
            cells = [
                f"{_number(difference[c]['mean'])} [{_number(difference[c]['low'])}, {_number(difference[c]['high'])}]"
                for c in columns
            ]
            lines.append(_line([str(seed), name, *cells]))
    return "\n".join(lines)


def _reward_table(summaries: dict[int, dict[str, Any]]) -> str:
    kinds = ("accuracy", "text_only_accuracy", "blanked_accuracy", "n")
    lines = [_line(["seed", "source", *kinds]), _line(["---"] * (len(kinds) + 2))]
    for seed, summary in summaries.items():
        card = summary["reward_model"]
        for source, values in {"all": card, **card["by_source"]}.items():
            lines.append(_line([str(seed), source, *(_number(values[kind]) for kind in kinds)]))
    return "\n".join(lines)


def _transposed(title: str, columns: dict[int, dict[str, float]]) -> str:
    names = list(next(iter(columns.values())))
    lines = [_line([title, *(f"seed {seed}" for seed in columns)]), _line(["---"] * (len(columns) + 1))]
    return "\n".join(
        [*lines, *(_line([name, *(_number(values[name]) for values in columns.values())]) for name in names)]
    )


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    raise SystemExit(main())
