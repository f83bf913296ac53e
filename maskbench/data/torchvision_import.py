"""torchvision, imported so that it also loads beside a torch build without CUDA.

The package index's torchvision carries compiled ops that want CUDA libraries. Beside a CPU-only torch
they do not load, and the import stops at ``operator torchvision::nms does not exist``. Datasets and
transforms need none of these ops, so declaring their schemas first lets the import through.
"""

import sys

import torch

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left behind
    _schemas = torch.library.Library("torchvision", "FRAGMENT")
    for _op in ("nms", "qnms"):
        _schemas.define(f"{_op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

__all__ = ["torchvision"]
