"""Loading the compiled ops, ``maskbench._C``: which devices have them, and why others do not."""

import os
import warnings
from importlib.machinery import PathFinder
from pathlib import Path

import torch

_PACKAGE = Path(__file__).resolve().parent.parent
_REBUILD = "python setup.py build_ext --inplace --force"
if not (_PACKAGE.parent / "setup.py").exists():  # installed
    _REBUILD = "pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps, of a checkout"


def load_kernels() -> tuple[frozenset[str], str]:
    """Register the compiled ops; returns the device types that have them, and why the others do not."""
    choice = os.environ.get("MASKBENCH_BACKEND", "")
    if choice not in ("", "reference"):
        return frozenset(), f"MASKBENCH_BACKEND must be reference or unset, got {choice!r}"  # scripts refuse it
    if choice:
        return frozenset(), "MASKBENCH_BACKEND=reference"
    # in this package, and nowhere else that an installed maskbench may have one
    spec = PathFinder.find_spec("maskbench._C", [str(_PACKAGE)])
    if spec is None or spec.origin is None:
        return frozenset(), "maskbench._C is not built"
    # asked of the file, as a library built for another torch may crash while it loads
    if f"maskbench._C built for torch {torch.__version__}\0".encode() not in Path(spec.origin).read_bytes():
        return frozenset(), f"maskbench._C was built for another torch than {torch.__version__}"
    try:
        from maskbench import _C
    except ImportError as error:
        return frozenset(), f"maskbench._C does not load: {error}"
    if _C.build_info()["cuda"] is None:
        return frozenset({"cpu"}), "maskbench._C was built without CUDA"
    return frozenset({"cpu", "cuda"}), "maskbench has no kernels for it"


COMPILED, REASON = load_kernels()
BUILD_INFO: dict[str, object] = {}
if COMPILED:
    from maskbench import _C

    BUILD_INFO = _C.build_info()
SIMD = BUILD_INFO.get("simd_in_use", "none")
if not COMPILED and os.environ.get("MASKBENCH_BACKEND") != "reference":
    warnings.warn(f"{REASON}; the slower PyTorch reference runs. Build it: {_REBUILD}", RuntimeWarning, stacklevel=2)


def backend(device: torch.device | str) -> str:
    """Which implementation runs on ``device``: "cuda", "cpu" (compiled kernels) or "reference"."""
    kind = torch.device(device).type
    return kind if kind in COMPILED else "reference"
