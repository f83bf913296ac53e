"""What may be the name of a class: text in any script, and nothing that steers a terminal."""

import unicodedata

from maskbench.runtime.command_line import steers


def is_text(name: str) -> bool:
    """Whether a name holds characters of text alone: letters, marks, joiners and spaces of any kind are."""
    return not any(map(steers, name))


def shown(name: str) -> str:
    """A name for a message: as escapes what :func:`is_text` refuses, bytes that are no UTF-8 among it."""
    text = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(c if is_text(c) else c.encode("unicode_escape").decode() for c in text)


def alike(names: list[str]) -> tuple[str, str] | None:
    """Two of the names that differ in nothing but case, blanks, or the way their letters are stored, or None."""
    found: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
        key = " ".join(key.split())
        if key in found:
            return found[key], name
        found[key] = name
    return None
