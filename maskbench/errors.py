"""The one exception a user is meant to read, and the checks that lead to it."""


class InputError(ValueError):
    """Something given from outside is wrong; the message names the file or flag and says what to do."""


def is_of_memory(error: Exception) -> bool:
    """Whether an error says that this machine's memory is not enough: torch says so in words alone."""
    words = "allocate memory", "not enough memory", "out of memory"
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def require(condition: bool, complaint: str) -> None:
    """ValueError with ``complaint`` unless ``condition`` holds; who knows the file makes an InputError of it."""
    if not condition:
        raise ValueError(complaint)
