"""The one exception a user is meant to read, and the checks that lead to it."""


class InputError(ValueError):
    """Something given from outside is wrong; the message names the file or flag and says what to do."""


def require(condition: bool, complaint: str) -> None:
    """ValueError with ``complaint`` unless ``condition`` holds; who knows the file makes an InputError of it."""
    if not condition:
        raise ValueError(complaint)
