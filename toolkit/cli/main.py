"""``vlm-rlhf``: one table of commands; the module of a command is imported when that command is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import toolkit
from toolkit.errors import UsageError

__all__ = ["COMMANDS", "main"]

# Command → the module whose ``add_parser(subparsers)`` defines it, and its line in ``--help``.
COMMANDS: dict[str, tuple[str, str]] = {
    "quickstart": ("toolkit.cli.quickstart", "the whole chain on the bundled sample, on a CPU"),
    "run": ("toolkit.cli.run", "run a recipe, alone or on several processes"),
    "check": ("toolkit.cli.check", "every problem of a recipe at once; loads no model"),
    "recipes": ("toolkit.cli.recipes", "list or copy the recipes that come along; their JSON schema"),
    "predict": ("toolkit.cli.predict", "what a checkpoint says about an image"),
    "eval": ("toolkit.cli.evaluate", "score a checkpoint on a benchmark"),
    "compare": ("toolkit.cli.compare", "paired differences of two runs, with intervals"),
    "report": ("toolkit.cli.report", "one self-contained HTML page about a run"),
    "score": ("toolkit.cli.score", "score caption or answer files with the official metrics"),
    "tokenize": ("toolkit.cli.score", "PTB tokens of captions, stdin to stdout"),
    "data": ("toolkit.cli.data", "check data files, make the sample"),
    "doctor": ("toolkit.cli.doctor", "what this machine has and lacks"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; never raises for a user's mistake.

    ``--debug``, anywhere, shows tracebacks of expected errors too.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or os.environ.get("VLM_RLHF_DEBUG") == "1"
    if "--debug" in words:
        words = [word for word in words if word != "--debug"]
        os.environ["VLM_RLHF_DEBUG"] = "1"  # stages run as children
    try:
        command = next((word for word in words if not word.startswith("-")), None)
        if command not in COMMANDS:
            _overview().parse_args(words)  # --help, --version, or an error that names the commands
            _overview().print_help(sys.stderr)
            return 2
    except SystemExit as end:
        return _code(end)
    from toolkit.cli.guard import guarded
    from toolkit.runs.logging import setup_logging
    from toolkit.runs.offline import quiet_environment

    quiet_environment()
    setup_logging()
    return guarded(lambda: _dispatch(str(command), words), debug=debug)


def _dispatch(command: str, words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="vlm-rlhf", allow_abbrev=False)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    importlib.import_module(COMMANDS[command][0]).add_parser(subparsers)
    try:
        arguments, rest = parser.parse_known_args(words)
        if rest and not hasattr(arguments, "overrides"):
            subparsers.choices[command].error(f"unrecognized arguments: {' '.join(rest)}")
    except SystemExit as end:
        return _code(end)
    if rest:  # overrides written after an option, and options that are none: refused with the right spelling
        arguments.overrides = [*arguments.overrides, *rest]
    handler: Callable[[argparse.Namespace], int] | None = getattr(arguments, "handler", None)
    if handler is None:
        raise UsageError(f"{command} needs a subcommand", remedy=f"vlm-rlhf {command} --help")
    return handler(arguments)


class _Overview(argparse.ArgumentParser):
    """Shows the table of commands and suggests one for a misspelt name."""

    def error(self, message: str) -> Any:
        """Exit with 2 after one line."""
        self.exit(2, f"error: {message}\n  remedy: vlm-rlhf --help lists the commands\n")


def _overview() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    parser = _Overview(
        prog="vlm-rlhf",
        usage="vlm-rlhf COMMAND …",
        description="RLHF for vision-language models, from fine-tuning to evaluation.",
        epilog="commands:\n" + "\n".join(lines) + "\n\n`vlm-rlhf COMMAND --help` says more about one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vlm-rlhf {toolkit.__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of expected errors too")
    parser.add_argument("command", nargs="?", type=_known_command, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def _known_command(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise argparse.ArgumentTypeError(f"there is no command '{name}'{hint}")


def _code(end: SystemExit) -> int:
    return end.code if isinstance(end.code, int) else 0 if end.code is None else 2
