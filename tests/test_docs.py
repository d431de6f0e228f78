"""What the documents say is true: links lead somewhere, examples are valid, the two commands come first."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parent.parent
_PAGES = sorted([*_REPOSITORY.glob("*.md"), *(_REPOSITORY / "docs").rglob("*.md")])
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)[^)]*\)")


def _name(page: Path) -> str:
    return str(page.relative_to(_REPOSITORY))


def _blocks(language: str) -> list[tuple[str, str]]:
    pages = ((page, page.read_text(encoding="utf-8")) for page in _PAGES)
    return [
        (_name(page), match[2])
        for page, text in pages
        for match in _BLOCK.finditer(text)
        if match[1] == language
    ]


@pytest.mark.parametrize("page", _PAGES, ids=_name)
def test_links_lead_to_files(page: Path) -> None:
    targets = _LINK.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing, f"{_name(page)} links to files that are not there: {missing}"


def test_readme_gives_both_commands_at_once() -> None:
    top = (_REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()[:15]
    for command in ("make quickstart", "make test"):
        assert any(line.startswith(command) for line in top), f"`{command}` is not in the first 15 lines"


def test_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    makefile = (_REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for page in _PAGES:
        for target in re.findall(r"^make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{_name(page)}: make {target}"


def _subcommands() -> list[str]:
    text = "\n".join(page.read_text(encoding="utf-8") for page in _PAGES)
    return sorted(
        set(
            re.findall(
                r"(?:^|`)vlm-rlhf ([a-z]+(?: (?:ls|cp|schema|captions|vqa|sample|check|document-frequencies)\b)?)",
                text,
                re.MULTILINE,
            )
        )
    )


@pytest.mark.parametrize("command", _subcommands())
def test_documented_commands_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from toolkit.cli.main import main

    try:
        code = main([*command.split(), "--help"])
    except SystemExit as stopped:
        code = stopped.code
    assert code in (0, None), capsys.readouterr().err
    assert "usage" in capsys.readouterr().out.lower()


@pytest.mark.parametrize(("page", "block"), _blocks("yaml"))
def test_recipe_examples_are_valid(page: str, block: str) -> None:
    from ruamel.yaml import YAML

    from toolkit.config.loading import parse_recipe

    values = YAML(typ="safe", pure=True).load(block)
    if set(values) == {"rewards"}:
        values |= {
            "stage": "rl",
            "model": {"id": "m"},
            "data": {"root": ".", "train": [{"kind": "rows", "file": "f"}]},
            "run": {"output_dir": "o"},
        }
    parse_recipe(values, source=page)


@pytest.mark.parametrize(("page", "block"), _blocks("json"))
def test_json_examples_are_json(page: str, block: str) -> None:
    json.loads(block)
