"""matplotlib, imported whatever the environment asks for.

A notebook's kernel exports the back end that it draws with. Elsewhere there is no such back end, and matplotlib refuses
to load. Pictures here go into files, without one.
"""

import contextlib
import os

_asked = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib
finally:
    if _asked is not None:
        os.environ["MPLBACKEND"] = _asked
if _asked is not None:
    with contextlib.suppress(ValueError):  # what is drawn later, by somebody else, is drawn as they asked
        matplotlib.rcParams["backend"] = _asked

__all__ = ["matplotlib"]
