"""The one exception a user is meant to read."""


class InputError(ValueError):
    """Something given from outside is wrong; the message names the file or flag and says what to do."""
