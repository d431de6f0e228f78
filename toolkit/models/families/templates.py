"""Chat templates of the tiny models: each accepts content as a string and as a list of blocks."""

from __future__ import annotations

__all__ = ["compact_template", "turn_template"]


def compact_template(*, image: str, eos: str) -> str:
    """An image and its text, a newline, the answer, the end token: few tokens, because all of them cost time."""
    return (
        _content_macro(image) + "{%- for message in messages -%}"
        "{%- if message['role'] == 'assistant' -%}{{ '\\n' }}"
        "{%- generation -%}{{ content(message) + '" + eos + "' }}{%- endgeneration -%}"
        "{%- else -%}{{ content(message) }}{%- endif -%}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '\\n' }}{%- endif -%}"
    )


def turn_template(*, image: str, opening: str, roles: dict[str, str], gap: str, closing: str) -> str:
    """Turns of one form for both roles: opening, role name, gap, content, closing.

    Args:
        roles: what the template calls the user and the assistant.
        closing: written after every turn; holds the end token, and may write more after it.
    """
    names = ", ".join(f"'{role}': '{name}'" for role, name in roles.items())
    return (
        _content_macro(image) + "{%- set names = {" + names + "} -%}"
        "{%- for message in messages -%}"
        "{{ '"
        + opening
        + "' + names[message['role']] + '"
        + gap
        + "' + content(message) + '"
        + closing
        + "' }}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '"
        + opening
        + "' + names['assistant'] + '"
        + gap.rstrip(" ")
        + "' }}"
        "{%- endif -%}"
    )


def _content_macro(image: str) -> str:
    return (
        "{%- macro content(message) -%}"
        "{%- if message['content'] is string -%}{{ message['content'] }}"
        "{%- else -%}{%- for block in message['content'] -%}"
        "{%- if block['type'] == 'image' -%}{{ '" + image + "' }}"
        "{%- elif block['type'] == 'text' -%}{{ block['text'] }}{%- endif -%}"
        "{%- endfor -%}{%- endif -%}{%- endmacro -%}"
    )
