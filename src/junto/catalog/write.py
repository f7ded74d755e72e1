# SPDX-License-Identifier: Apache-2.0
"""A dataset file's text from values, for programs that publish."""

import json
from collections.abc import Mapping, Sequence

from junto.errors import InvalidInput


def dataset_file(name: str, source: str, rules: Sequence[Mapping[str, object]], unit: str | None) -> str:
    """The text that `spec.parse` reads as one dataset. Raises InvalidInput for a value TOML has no word for."""
    lines = [f"[dataset.{_text(name)}]", f"source = {_text(source)}"]
    if unit is not None:
        lines.append(f"unit = {_text(unit)}")
    for rule in rules:
        lines += ["", f"[[dataset.{_text(name)}.rule]]", *(f"{key} = {_value(value)}" for key, value in rule.items())]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            return _text(value)
        case list() | tuple():
            return "[" + ", ".join(_value(item) for item in value) + "]"
        case _:
            raise InvalidInput(f"a rule holds a {type(value).__name__}: use text, numbers and lists of them")


def _text(text: str) -> str:
    # JSON's escapes are TOML's too, once the character DEL is escaped as well (TOML v1.0, "String").
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
