"""What scripts import before all else: libraries that fail as they are imported for what is in the environment.

torch imports tqdm, and scikit-learn joblib. Both read numbers from variables then, and an odd one ends in a traceback
that does not name it.
"""

import importlib
import os
import sys
from pathlib import Path

_READ_BY = {"tqdm": ("TQDM_",), "joblib": ("JOBLIB_", "LOKY_")}

for _library, _prefixes in _READ_BY.items():
    try:
        importlib.import_module(_library)
    except ValueError as error:
        _names = [f"{name}={value!r}" for name, value in sorted(os.environ.items()) if name.startswith(_prefixes)]
        if not _names:
            raise
        print(
            f"{Path(sys.argv[0]).name}: error: {', '.join(_names)} in the environment: {_library} takes no such value "
            f"({error}); mend or unset it",
            file=sys.stderr,
        )
        sys.exit(2)
