"""matplotlib, imported whatever the environment asks for.

A notebook's kernel exports the back end that it draws with. Elsewhere there is no such back end, and matplotlib refuses
to load. So it does where a user's matplotlibrc cannot be read. Pictures here go into files, in matplotlib's own style,
and need neither.
"""

import contextlib
import importlib.util
import os
import sys
from pathlib import Path


@contextlib.contextmanager
def _environment(name: str, value: str | None):
    """A variable set, or unset, for a while."""
    asked = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if asked is not None:
            os.environ[name] = asked


with _environment("MPLBACKEND", None):
    try:
        import matplotlib
    except (OSError, UnicodeDecodeError):
        for part in [name for name in sys.modules if name.startswith("matplotlib.")]:
            del sys.modules[part]  # a second import needs them new
        package = Path(importlib.util.find_spec("matplotlib").origin).parent
        with _environment("MATPLOTLIBRC", str(package / "mpl-data" / "matplotlibrc")):
            import matplotlib
if backend := os.environ.get("MPLBACKEND"):
    with contextlib.suppress(ValueError):  # what is drawn later, by somebody else, is drawn as they asked
        matplotlib.rcParams["backend"] = backend

__all__ = ["matplotlib"]
