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

_asked = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib
except (OSError, UnicodeDecodeError):
    for part in [name for name in sys.modules if name.startswith("matplotlib.")]:
        del sys.modules[part]  # a second import needs them new
    # its own matplotlibrc lies there, and the one in the current folder is read first
    with contextlib.chdir(Path(importlib.util.find_spec("matplotlib").origin).parent / "mpl-data"):
        import matplotlib
finally:
    if _asked is not None:
        os.environ["MPLBACKEND"] = _asked
if _asked is not None:
    with contextlib.suppress(ValueError):  # what is drawn later, by somebody else, is drawn as they asked
        matplotlib.rcParams["backend"] = _asked

from matplotlib import style  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402  pyplot's belong to the whole program, and to its screen

__all__ = ["Figure", "matplotlib", "style"]
