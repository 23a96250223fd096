"""Plain data as YAML and JSON text. Unprintable characters are escaped, and read back unchanged."""

from __future__ import annotations


def yaml_text(value: object) -> str:
    """``value`` (dict, list, str, int, float, bool, None) as one YAML document, keys in their given order."""
    import yaml

    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10_000)
    if _shows_plainly(text):
        return text
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=False, width=10_000)


def json_text(value: object) -> str:
    """``value`` as JSON, indented by two, ending in a line break."""
    import json

    text = json.dumps(value, indent=2, ensure_ascii=False)
    return (text if _shows_plainly(text) else json.dumps(value, indent=2)) + "\n"


def _shows_plainly(text: str) -> bool:
    """Whether nothing in it can control a terminal, or is a line break to YAML only (U+0085, U+2028)."""
    return all(line.isprintable() for line in text.split("\n"))
