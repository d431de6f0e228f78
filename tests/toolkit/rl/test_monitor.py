"""The end of the progress line."""

from __future__ import annotations

from toolkit.rl.monitor import progress_note


def test_the_line_tells_reward_parts_kl_held_out_score_and_speed() -> None:
    values = {
        "reward/total": 0.4321,
        "reward/cider": 3.0,
        "reward/cider/weighted": 0.25,
        "reward/mine.py:short/weighted": 0.18,
        "kl/k1_nats": 1.239,
        "rollout/tokens": 9.5,
    }
    line = progress_note(values, 0.71, completions=64, seconds=2.0)
    assert line == "reward 0.432 (cider 0.25, mine.py:short 0.18)  kl 1.24  held-out 0.710  304 tokens/s"
    assert "held-out" not in progress_note(values, None, completions=64, seconds=2.0)
