"""Files: written whole or not at all, checked before they are believed, kept so that work is not repeated."""
