"""A picture file as pixels: one page of it, upright, opaque, with 8 bits a channel.

Pillow reads the files, but for DICOM. It gives the upper 8 bits of deep colours, so these are read twice: once as they
are, and once with the bytes of each value swapped.
"""

import contextlib
import functools
import os
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from maskbench.data import dicom
from maskbench.data.pixels import Reading, Undecided, check_size, scaled
from maskbench.errors import InputError

# no pictures, or none without another program or library; FITS has a scale that Pillow does not read
_NOT_STILL = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF"}
_ADVICE = {  # of files that are refused, by ending
    ".heic .heif .jxl": "save it as JPEG or PNG",
    ".cr2 .cr3 .nef .arw .dng .raf .orf .rw2": "develop it to TIFF or PNG",
    ".svg .svgz .eps .ps .pdf .ai .wmf .emf": "draw it as PNG, in the size that counts",
    ".fits .fit .npy .npz .mat .h5 .hdf .hdf5": "save all images as one file of NumPy arrays, for npz:FILE",
    ".nii .gz .nrrd .mha .mhd": "save its slices as PNG, or as one file of NumPy arrays for npz:FILE",
    ".mp4 .avi .mov .mkv .mpg .mpeg .webm": "save the frames that count as PNG",
    ".ima .dic": "rename it to end in .dcm if it is DICOM",
    ".zip .tar .7z .rar .tgz": "unpack it",
    "": "give it the ending of its format, such as .png or .dcm",
}
_FOREIGN = {  # how files begin that Pillow does not read: what they are, and their ending in _ADVICE
    re.compile(rb".{4}ftyp(he(ic|ix|im|is|vc|vx|vm|vs)|(mif1|msf1)(?!.*avi[fs]))", re.DOTALL): ("HEIC", ".heic"),
    re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"): ("JPEG XL", ".jxl"),
    re.compile(rb"%PDF-"): ("PDF", ".pdf"),
}
_TURNS = {  # EXIF orientation: what brings the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# tags of EXIF and TIFF
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION, _PLANES, _SAMPLE_FORMAT = 258, 262, 274, 284, 339
_PLACES_AND_LENGTHS = (273, 324), (279, 325)  # of strips or tiles
_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}  # big, little and native byte order

# text and colour profiles, which are not looked at: Pillow refuses pictures with more than 1 MB of either
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**26


@functools.cache
def endings() -> frozenset[str]:
    """Endings of the files that :func:`decode` reads, in small letters, with the dot."""
    of_pillow, formats = Image.registered_extensions(), {*_formats(), "MPO"}  # which is opened as a JPEG
    return dicom.ENDINGS.union(ending for ending, name in of_pillow.items() if name in formats)


@functools.cache
def _formats() -> tuple[str, ...]:
    """Still formats that Pillow reads and that have endings."""
    named = set(Image.registered_extensions().values()) - _NOT_STILL
    return tuple(name for name in Image.ID if name in named)


def ending(name: str) -> str:
    """Of a file's name, in small letters, with the dot."""
    return os.path.splitext(name)[1].lower()


def advice(suffix: str) -> str:
    """What to do with a file of this ending, which is not read."""
    known = (text for endings, text in _ADVICE.items() if suffix in (endings.split() or [""]))
    return f"{next(known, 'convert it, to PNG if it is a picture')}, or move it away"


def decode(path: Path, size: int, reading: Reading) -> np.ndarray:
    """A picture as uint8 ``[3, size, size]``, RGB: bilinear, antialiased.

    Raises:
        Undecided: a flag must say how it is read.
        InputError: it can never be read. Of damaged files, decoders raise whatever they like.
    """
    if path.suffix.lower() in dicom.ENDINGS:
        picture = Image.fromarray(dicom.pixels(path, reading))
    else:
        try:
            picture = _opaque(path, size, reading)
        except InputError:
            raise
        except Exception:
            if _is_rare(path):
                kinds = "lossless, or with more than 8 bits a channel"
                raise Undecided(f"{path}: is of a kind that is not read, {kinds}; convert it to PNG") from None
            raise
    small = picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(small).transpose(2, 0, 1)


def _opaque(path: Path, size: int, reading: Reading) -> Image.Image:
    """A file that Pillow reads: a page of it, upright, RGB, nothing shining through."""
    with _page(path, reading) as image:
        image.draft(None, (2 * size, 2 * size))  # a JPEG is decoded at a fraction of its size, no smaller than this
        if _is_deep(image, path):
            colours, alpha = _deep(image, path, reading)
            picture = Image.fromarray(colours if alpha is None else reading.over_ground(colours, alpha))
        elif image.mode == "LAB":
            raise Undecided(f"{path}: has LAB colours; convert it to RGB")
        elif image.format == "TIFF" and 2 in image.tag_v2.get(_SAMPLE_FORMAT, ()):  # Pillow would take -1 for white
            raise Undecided(f"{path}: has signed values of 8 bits; convert it to unsigned ones")
        elif image.has_transparency_data:
            rgba = np.asarray(image.convert("RGBA"))
            picture = Image.fromarray(reading.over_ground(rgba[..., :3], rgba[..., 3]))
        else:
            picture = image.convert("RGB")
        turn = _TURNS.get(_orientation(image))
        return picture if turn is None else picture.transpose(turn)


def _open(path: Path) -> Image.Image:
    """A file that Pillow reads, not decoded yet; Undecided for a format or a whole TIFF that Pillow does not know."""
    try:
        return Image.open(path, formats=_formats())
    except UnidentifiedImageError:
        if _is_whole_tiff(path):
            kinds = "such as floating point, signed or 32 bits in colour"
            raise Undecided(f"{path}: a TIFF with pixels that are not read, {kinds}; convert it to 16 bits") from None
        with open(path, "rb") as file:
            head = file.read(132)
        kinds = [known for start, known in _FOREIGN.items() if start.match(head)]
        kinds += [("DICOM", ".dic")] * dicom.is_dicom(path)
        for kind, known_by in kinds:
            raise Undecided(f"{path}: is {kind}, whatever its name says; {advice(known_by)}") from None
        raise


def _is_rare(path: Path) -> bool:
    """Whether a file says that it is a lossless JPEG, or a JPEG or Photoshop's with more than 8 bits a channel."""
    with open(path, "rb") as file:
        head = file.read(26)
        if head.startswith(b"8BPS"):
            return int.from_bytes(head[22:24]) > 8
        file.seek(2 if head.startswith(b"\xff\xd8\xff") else os.stat(path).st_size)
        while len(head := file.read(5)) == 5 and head[0] == 0xFF:
            marker = head[1]
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the frame's kind, then its bits
                return marker % 4 == 3 or head[4] > 8
            file.seek(int.from_bytes(head[2:4]) - 3, os.SEEK_CUR)
    return False


def _is_whole_tiff(path: Path) -> bool:
    """Whether a TIFF's first directory names pixels that lie within the file."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
            head += file.read(8) if 43 in head[2:4] else b""  # with 64-bit addresses
            tags = ImageFileDirectory_v2(head)
            file.seek(tags.next)
            tags.load(file)
            size = file.seek(0, os.SEEK_END)
        places, lengths = (tags.get(of_strips) or tags.get(of_tiles) for of_strips, of_tiles in _PLACES_AND_LENGTHS)
        return all(place + length <= size for place, length in zip(places, lengths, strict=True))
    except Exception:  # of hostile bytes Pillow promises nothing narrower
        return False


@contextlib.contextmanager
def _page(path: Path, reading: Reading) -> Iterator[Image.Image]:
    """A file, opened, at the page that is read; nothing is decoded yet."""
    with _open(path) as image:
        check_size(*image.size, path)
        # what a telephone puts behind a JPEG (MPO), and Photoshop's layers, are parts of the first picture
        pages = 1 if image.format in ("MPO", "PSD") else getattr(image, "n_frames", 1)
        page = reading.pick(pages, path)
        if pages > 1:
            image.seek(page)
            check_size(*image.size, path)
        yield image


def _orientation(image: Image.Image) -> int:
    """EXIF's word on how the camera was held, 1 to 8; 1 where it says nothing that can be read."""
    try:
        found = image.getexif().get(_ORIENTATION)
    except Exception:  # of odd EXIF, Pillow promises nothing narrower, and the picture may be good
        return 1
    return found if isinstance(found, int) else 1


def _is_deep(image: Image.Image, path: Path) -> bool:
    """Whether a picture that is not decoded yet has more than 8 bits a channel."""
    if image.mode.startswith(("I", "F")):
        return True
    codec, _, _, arguments = image.tile[0] if image.tile else ("", None, 0, "")
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) > 8
    if image.format == "JPEG2000":
        return _bits_of_jpeg2000(path) > 8
    if image.format == "PPM":
        return codec.startswith("ppm") and arguments[1] > 255
    if image.format == "SGI":
        return codec == "SGI16" or (codec == "sgi_rle" and arguments[2] == 2)
    return image.format == "PNG" and arguments.endswith(";16B")


def _deep(image: Image.Image, path: Path, reading: Reading) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours of a deep picture at the levels, uint8 ``[H, W]`` or ``[H, W, 3]``, and its alpha, uint8 ``[H, W]``."""
    values, alpha = _values(image, path, reading), None
    if values.ndim == 3 and values.shape[2] in (2, 4):
        values, alpha = values[..., :-1], scaled(values[..., -1], 0, 2**16 - 1)
        values = values[..., 0] if values.shape[2] == 1 else values
    elif (clear := image.info.get("transparency")) is not None:  # a PNG's colour that stands for nothing
        shown = (values != np.asarray(clear)).reshape(*values.shape[:2], -1).any(-1)
        alpha = 255 * shown.astype(np.uint8)
    colours = reading.to_bytes(values, path)
    if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0:  # 0 is white
        colours = 255 - colours
    if alpha is not None and colours.ndim == 2:
        colours = np.repeat(colours[..., None], 3, 2)
    return colours, alpha


def _values(image: Image.Image, path: Path, reading: Reading) -> np.ndarray:
    """All bits of a deep picture: ``[H, W]``, or uint16 ``[H, W, 2, 3 or 4]``, the last of 2 and of 4 alpha."""
    codec, _, _, arguments = image.tile[0]
    raw = arguments if isinstance(arguments, str) else arguments[0]
    if image.format == "PPM" and codec == "ppm":  # Pillow would stretch them to 16 bits
        raw = "RGB;16B" if image.mode == "RGB" else "I;16B"
        image.tile = [_tile(image.tile[0], "raw", raw)]
    if image.mode.startswith(("I", "F")) and codec != "ppm_plain":
        values = np.asarray(image)
        if image.format == "JPEG2000":  # Pillow has stretched them to 16 bits
            values = values >> (16 - _bits_of_jpeg2000(path))
        if image.format == "TIFF" and values.dtype == np.int32 and image.tag_v2.get(_SAMPLE_FORMAT, (1,)) == (1,):
            values = values.view(np.uint32)
        return values
    in_planes = image.format == "TIFF" and image.tag_v2.get(_PLANES) == 2
    later_frame = image.format == "PNG" and image.tell() > 0  # is drawn over those before it
    if not re.fullmatch("(RGB[XA]?|LA);16[LBN]", raw) or in_planes or later_frame:
        raise Undecided(f"{path}: has more than 8 bits a channel, in a form that is not read; convert it to PNG")
    if raw == "LA;16B":  # four bytes a pixel: those of grey and those of alpha
        return _raw(image, "RGBA").view(">u2")
    with _page(path, reading) as again:
        if again.format == "PPM":
            again.tile = [_tile(again.tile[0], "raw", raw)]
        low = _raw(again, raw[:-1] + _SWAPPED[raw[-1]])
    return _raw(image, raw).astype(np.uint16) << 8 | low


def _raw(image: Image.Image, raw: str) -> np.ndarray:
    """The pixels of an opened picture, its bytes taken for those of another raw mode."""
    image.tile = [_tile(tile, tile[0], raw) for tile in image.tile]
    return np.array(image)


def _tile(tile: tuple, codec: str, raw: str) -> tuple:
    """Pillow's plan for a part of a file, with another codec and raw mode."""
    arguments = (raw, *tile[3][1:]) if isinstance(tile[3], tuple) and codec == tile[0] else raw
    return getattr(tile, "_make", tuple)((codec, tile[1], tile[2], arguments))


def _bits_of_jpeg2000(path: Path) -> int:
    """Bits of the deepest channel of a JPEG 2000, which Pillow does not tell: of its SIZ marker."""
    data = path.read_bytes()
    start = data.index(b"\xff\x4f\xff\x51") + 4
    (channels,) = struct.unpack_from(">H", data, start + 36)
    return max((data[start + 38 + 3 * channel] & 0x7F) + 1 for channel in range(channels))
