"""The pixels of a DICOM file, as its maker wanted them seen. Nothing else of it is read: no names, no dates.

pydicom reads the file; it is an extra, ``pip install 'maskbench[dicom]'``.
"""

import functools
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maskbench.data.pixels import Reading, Undecided, check_size, scaled
from maskbench.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

ENDINGS = frozenset({".dcm", ".dicom"})
_MARK_AT, _MARK = 128, b"DICM"
_JPEG_OF_12_BITS = "1.2.840.10008.1.2.4.51"
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")

_PALETTES = [
    f"{kind}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for kind, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
]
_FIELDS = [  # what pixels are made of
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *_PALETTES,
]


@functools.cache
def _is_installed() -> bool:
    return importlib.util.find_spec("pydicom") is not None and importlib.util.find_spec("pydicom.pixels") is not None


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, whatever it is called; false where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(_MARK_AT + len(_MARK))[_MARK_AT:] == _MARK
    except OSError:
        return False


def check_installed(path: Path) -> None:
    """InputError where a file cannot be read because pydicom is missing, or older than 3."""
    if not _is_installed():
        raise InputError(f"{path}: is DICOM, which needs pydicom 3 or newer; run pip install 'pydicom>=3'")


def pixels(path: Path, reading: Reading) -> np.ndarray:
    """A frame as uint8 ``[H, W]`` or ``[H, W, 3]``.

    Stored values are rescaled; the levels of ``reading`` make bytes of them, or else the file's own window.

    Raises:
        Undecided: a flag must say how it is read, it must be converted first, or it is too large.
        InputError: pydicom is missing, or the file has no pixels. Of damaged files, pydicom raises whatever it likes.
    """
    check_installed(path)
    import pydicom
    from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote what is in the file
        try:
            data = pydicom.dcmread(path, specific_tags=_FIELDS)
        except pydicom.errors.InvalidDicomError:
            raise InputError(f"{path}: lacks the head of a DICOM file; mend it (dcmconv writes one)") from None
        if "Rows" not in data:
            raise InputError(f"{path}: is DICOM without pixels; move it away")
        check_size(data.Columns, data.Rows, path)
        frame = reading.pick(int(data.get("NumberOfFrames") or 1), path)
        _check_compression(data, path)
        values, kind = pixel_array(data, index=frame), data.PhotometricInterpretation
        if kind == "PALETTE COLOR":
            descriptor, entries = data.RedPaletteColorLookupTableDescriptor, data.get("RedPaletteColorLookupTableData")
            depth = round(8 * len(entries) / (descriptor[0] or 2**16)) if entries else descriptor[2]
            coloured = apply_color_lut(_within_table(values, descriptor, depth, path), data)
            return scaled(coloured, 0, 2 ** min(depth, descriptor[2]) - 1)
        if values.ndim == 3:  # pydicom has made RGB of YBR
            if values.shape[2] != 3 or kind.startswith("YBR_PARTIAL"):
                raise Undecided(f"{path}: has {values.shape[2]} samples of kind {kind} a pixel; convert it to RGB")
            return values if values.dtype == np.uint8 else reading.to_bytes(values, path)
        if not kind.startswith("MONOCHROME"):
            raise Undecided(f"{path}: has pixels of kind {kind}, which are not read; convert it to RGB")
        _lift_groups(data, frame)
        for table in data.get("ModalityLUTSequence") or ():
            if table.LUTDescriptor[2] > 8:
                table.LUTDescriptor[2] = 16  # as the entries are held; pydicom asks NumPy for numbers of 12 bits
        grey = _grey(data, values, apply_modality_lut(values, data), reading, path)
        return 255 - grey if kind == "MONOCHROME1" else grey


def _check_compression(data: "Dataset", path: Path) -> None:
    from pydicom.pixels import get_decoder

    syntax = data.file_meta.TransferSyntaxUID
    try:
        can_be_read = get_decoder(syntax).is_available
    except NotImplementedError:
        can_be_read = False
    # which pydicom says that Pillow reads, and Pillow does not
    is_rare = syntax == _JPEG_OF_12_BITS or (syntax in _JPEG_2000 and data.SamplesPerPixel > 1)
    if data.BitsStored > 8 and is_rare and not any(map(importlib.util.find_spec, ("pylibjpeg", "gdcm"))):
        can_be_read = False
    if not can_be_read:
        raise Undecided(
            f"{path}: its pixels are compressed as {syntax.name}; decompress it, such as by gdcmconv --raw, or install "
            "what pydicom needs for that (pylibjpeg)"
        )


def _lift_groups(data: "Dataset", frame: int) -> None:
    """Bring scale and window of a frame to where files of one frame have them."""
    shared, frames = data.get("SharedFunctionalGroupsSequence"), data.get("PerFrameFunctionalGroupsSequence")
    for group in (*(shared or ())[:1], *(frames or ())[frame : frame + 1]):
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in group.get(name) or ():
                data.update(item)


def _grey(data: "Dataset", stored: np.ndarray, values: np.ndarray, reading: Reading, path: Path) -> np.ndarray:
    """Rescaled values as bytes: by the levels where they are deep, the file's table or window, or as they are."""
    from pydicom.pixels import apply_voi

    is_deep = stored.dtype != np.uint8 or not np.array_equal(stored, values)
    if is_deep and reading.levels is not None:
        return reading.to_bytes(values, path)
    if data.get("VOILUTSequence"):
        descriptor = data.VOILUTSequence[0].LUTDescriptor
        inside = _within_table(values, descriptor, descriptor[2], path)
        return scaled(apply_voi(inside, data), 0, 2 ** descriptor[2] - 1)
    window = _window(data)
    if window is not None:
        return scaled(values, *window)
    return reading.to_bytes(values, path) if is_deep else scaled(stored, 0, 2**data.BitsStored - 1)


def _within_table(values: np.ndarray, descriptor: Sequence[int], depth: int, path: Path) -> np.ndarray:
    """Values clipped to those that a lookup table has; pydicom counts places in the type of its entries, and wraps.

    Args:
        descriptor: number of entries (0: 2^16), first value, bits of an entry.
        depth: bits of an entry as the file holds it.
    """
    entries, first = descriptor[0] or 2**16, descriptor[1]
    if depth <= 8 and entries > 256:
        raise Undecided(
            f"{path}: has a lookup table of {entries:,} entries of {depth} bits, which is not read; convert it to one "
            "without a table"
        )
    if values.dtype.kind in "iu":
        values = values.astype(np.int64)  # whose bounds no table exceeds
    return values.clip(first, first + entries - 1)


def _window(data: "Dataset") -> tuple[float, float] | None:
    """The values that the file's first window makes black and white (DICOM PS3.3, C.11.2.1.2); None without one."""
    center, width = (_first(data.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = data.get("VOILUTFunction") or "LINEAR"
    if center is None or width is None or width <= 0 or function not in ("LINEAR", "LINEAR_EXACT"):
        return None
    if function == "LINEAR":
        center, width = center - 0.5, max(width - 1, 1e-3)
    return center - width / 2, center + width / 2


def _first(value: object) -> float | None:
    """A field of one number or of several; None where it is empty."""
    numbers = value if hasattr(value, "__len__") else [value]
    return float(numbers[0]) if len(numbers) and numbers[0] is not None else None
