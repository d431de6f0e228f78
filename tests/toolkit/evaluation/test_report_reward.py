"""The reward model's sections of the report: figures, reliability plot, best-of-n table; nothing unescaped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.evaluation.report import write_report
from toolkit.evaluation.report_inputs import StageRun
from toolkit.evaluation.report_reward import best_of_n_section, diagnostics_section

EVALUATION: dict[str, Any] = {
    "n": 1234,
    "accuracy": 0.875,
    "blanked_accuracy": 0.52,
    "swapped_accuracy": None,
    "by_source": {"<b>people</b>": [0.75, 400]},
    "ece": 0.031,
    "reliability": [{"predicted": p, "observed": p + 0.02, "pairs": 10.0} for p in (0.1, 0.5, 0.9)],
    "invariance": {"batch_left_padded": 1.2e-6},
    "ensemble": {"members": [0.8, 0.9], "std": {"own": 0.11, "noise": 0.37}},
}
BEST: dict[str, Any] = {
    "system": "sft",
    "criterion": "scenes",
    "prompts": 200,
    "n": [1, 2],
    "kl": [0.0, 0.19],
    "curves": {
        "learned": [{"mean": 0.1, "low": 0.05, "high": 0.15}, {"mean": 0.456, "low": 0.4, "high": 0.5}],
        "<i>": [{"mean": 0.1, "low": 0.05, "high": 0.15}, {"mean": 0.6, "low": 0.5, "high": 0.7}],
    },
    "differences": {"a − b": {"mean": 0.02, "low": -0.01, "high": 0.05}},
    "agreement": {"cider": {"tau": 0.321, "prompts": 190.0}},
}


def run(evaluation: dict[str, Any]) -> StageRun:
    return StageRun("reward", "reward", "", {}, [], evaluation=evaluation)


def test_figures_and_reliability() -> None:
    html = diagnostics_section([run(EVALUATION), run({})])
    for shown in (
        "1,234 held-out pairs",
        "87.5 %",
        "52.0 %",
        "0.031",
        "1.2e-06",
        "0.370",
        "reliability",
        "<svg",
    ):
        assert shown in html
    assert "&lt;b&gt;people" in html
    assert "<b>people" not in html
    assert "pictures of other pairs" not in html  # not measured
    assert diagnostics_section([run({})]) == ""


def test_best_of_n() -> None:
    html = best_of_n_section(BEST)
    for shown in (
        "n = 2",
        "0.456",
        "0.400 – 0.500",
        "+0.020 [-0.010, +0.050]".replace("-", "−"),
        "0.321",
        "200 prompts",
    ):
        assert shown in html or shown.replace("−", "-") in html
    assert "<i>" not in html.replace('<i style="', "")
    assert best_of_n_section({}) == ""


def test_the_page_reads_both_files(tmp_path: Path) -> None:
    reward, evaluation = tmp_path / "reward", tmp_path / "eval"
    (evaluation / "systems").mkdir(parents=True)
    reward.mkdir()
    (reward / "recipe.resolved.yaml").write_text("stage: reward\n")
    (reward / "reward_evaluation.json").write_text(json.dumps(EVALUATION))
    (evaluation / "summary.json").write_text("{}")
    (evaluation / "best_of_n.json").write_text(json.dumps(BEST))
    page = write_report(tmp_path).read_text()
    assert 'id="reward-diagnostics"' in page
    assert 'id="best-of-n"' in page
    assert 'href="#best-of-n"' in page
