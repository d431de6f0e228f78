"""Which metrics become curves, and in which order."""

from __future__ import annotations

from toolkit.evaluation.report_curves import curves_section
from toolkit.evaluation.report_inputs import StageRun


def titles(lines: list[dict[str, object]]) -> list[str]:
    html = curves_section([StageRun("run", "rl", "", {}, lines)])
    return [part.split("</strong>")[0] for part in html.split("<strong>")[1:]]


def test_what_matters_comes_first_and_bookkeeping_is_left_out() -> None:
    keys = (
        "reward/cider/normalised",
        "reward/total",
        "kl/k1_nats",
        "val/cider",
        "learning_rate",
        "time/update_seconds",
    )
    lines: list[dict[str, object]] = [
        {"step": step, **dict.fromkeys(keys, float(step))} for step in (1, 2, 3)
    ]
    assert titles(lines) == ["cider", "reward/total", "kl/k1_nats", "reward/cider/normalised"]


def test_what_chooses_the_best_policy_and_the_reward_terms_stand_before_what_sums_or_counts_them() -> None:
    keys = (
        "policy/clip_fraction", "reward/failed_fraction", "reward/flat_fraction", "reward/total/calibrated",
        "reward/cider", "reward/clipscore", "reward/total", "rollout/tokens", "val/score", "val/cider",
    )  # fmt: skip
    lines: list[dict[str, object]] = [{"step": step, **dict.fromkeys(keys, float(step))} for step in (1, 2)]
    assert titles(lines) == [
        "cider", "score", "reward/total", "reward/cider", "reward/clipscore", "reward/total/calibrated",
        "rollout/tokens", "policy/clip_fraction", "reward/failed_fraction", "reward/flat_fraction",
    ]  # fmt: skip


def test_training_and_validation_share_a_chart() -> None:
    lines: list[dict[str, object]] = [
        {"step": 1, "loss": 1.0, "eval_loss": 2.0},
        {"step": 2, "loss": 0.5, "eval_loss": 1.0},
    ]
    assert titles(lines) == ["loss"]
    assert "validation" in curves_section([StageRun("run", "sft", "", {}, lines)])


def test_gaps_text_and_single_points_make_no_curve() -> None:
    lines: list[dict[str, object]] = [
        {"step": 1, "a": None, "b": "x", "c": True, "d": 1.0},
        {"step": 2, "a": None},
    ]
    assert curves_section([StageRun("run", "sft", "", {}, lines)]) == ""
    assert curves_section([]) == ""
