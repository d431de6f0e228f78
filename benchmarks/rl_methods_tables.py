"""What ``rl_methods.py`` prints: Markdown tables with every seed."""

from __future__ import annotations

from typing import Any

COLUMNS = ("cider", "reward", "gold", "vqa_accuracy", "mean_tokens", "vocabulary")
PAIRED = ("cider", "reward", "gold", "vqa_accuracy")
Found = dict[str, dict[int, dict[str, Any]]]


def tables(found: Found) -> list[str]:
    """Scores, differences to SFT, vision gaps, what the runs cost and the guard rails said, and the aims."""
    return [_scores(found), _differences(found), _gaps(found), _runs(found), _aims(found)]


def _scores(found: Found) -> str:
    rows = [
        [str(seed), name, *(_number(system["scores"][column]) for column in COLUMNS)]
        for seed, name, system in _systems(found)
    ]
    return _table(["seed", "system", *COLUMNS], rows)


def _differences(found: Found) -> str:
    rows = [
        [str(seed), name, *(_interval(system["minus_sft"][column]) for column in PAIRED)]
        for seed, name, system in _systems(found)
        if name != "sft"
    ]
    return _table(["seed", "minus sft", *PAIRED], rows)


def _gaps(found: Found) -> str:
    columns = ("cider", "vqa_accuracy")
    rows = [
        [str(seed), name, *(_interval(system["vision_gap"][column]) for column in columns)]
        for seed, name, system in _systems(found)
    ]
    return _table(["seed", "vision gap", *columns], rows)


def _runs(found: Found) -> str:
    rows = [
        [
            str(seed),
            name,
            str(system["rollouts"]),
            _number(system["seconds"]),
            "not recorded" if system["warnings"] is None else "; ".join(system["warnings"]) or "none",
        ]
        for seed, name, system in _systems(found)
        if "rollouts" in system
    ]
    return _table(["seed", "run", "rollouts", "seconds", "guard rails"], rows)


def _aims(found: Found) -> str:
    seeds = found["aims"]
    names = list(dict.fromkeys(name for values in seeds.values() for name in values))
    rows = [[name, *(_number(values.get(name)) for values in seeds.values())] for name in names]
    return _table(["ppo-composite", *(f"seed {seed}" for seed in seeds)], rows)


def _systems(found: Found) -> list[tuple[int, str, dict[str, Any]]]:
    return [(seed, name, system) for seed, own in found["seeds"].items() for name, system in own.items()]


def _interval(value: dict[str, float]) -> str:
    return f"{_number(value['mean'])} [{_number(value['low'])}, {_number(value['high'])}]"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join(_line(cells) for cells in (heads, ["---"] * len(heads), *rows))


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
