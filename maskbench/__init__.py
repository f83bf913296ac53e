"""maskbench: mask images so that they can be classified but not seen, and measure how well that works.

The method is the adversarial autoencoder of Lis, Koryciński and Ciecierski, "Classification of
masked image data", PLoS ONE 16(7): e0254181, 2021.

What a user of masked files needs is here; nothing is imported before it is asked for.

    load            read a masked set: ``load("masked/digits.pt").numpy("train")``
    save            write one
    MaskedSet       its type
    MaskedDataset   one part of it, for a DataLoader
    METHODS, make, Recipe, MaskingMethod    the masking methods
    audit           measure what masks leak
    InputError      what every function here raises of bad input
"""

from importlib import import_module

__version__ = "0.1.0"

_PLACES = {
    "InputError": "errors",
    "METHODS": "masking",
    "MaskedDataset": "data.masked_dataset",
    "MaskedSet": "data.masked_set",
    "MaskingMethod": "masking",
    "Recipe": "masking",
    "audit": "leakage.audit",
    "load": "data.masked_set",
    "make": "masking",
    "save": "data.masked_set",
}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
