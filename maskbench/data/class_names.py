"""What may be the name of a class: text in any script, and nothing that steers a terminal."""

import unicodedata

# control characters, halves of characters (bytes of a file name that are no UTF-8), ends of lines and paragraphs
_REFUSED = {"Cc", "Cs", "Zl", "Zp"}
_TURNS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # make what follows read backwards


def is_text(name: str) -> bool:
    """Whether a name holds characters of text alone: letters, marks, joiners and spaces of any kind are."""
    return not any(unicodedata.category(character) in _REFUSED or character in _TURNS for character in name)


def shown(name: str) -> str:
    """A name for a message: as escapes what :func:`is_text` refuses, bytes that are no UTF-8 among it."""
    text = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(c if is_text(c) else c.encode("unicode_escape").decode() for c in text)


def alike(names: list[str]) -> tuple[str, str] | None:
    """Two of the names that differ in nothing but case or the way their accents are written, or None."""
    found: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if key in found:
            return found[key], name
        found[key] = name
    return None
