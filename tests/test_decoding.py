"""Pixels by value: deep ones, transparent ones, pages, odd EXIF and large profiles, every mode and format."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from maskbench.data import decoding
from maskbench.data.folders import _decode
from maskbench.data.pixels import AS_IT_IS, GROUNDS, Reading, Undecided
from maskbench.errors import InputError

SIDE = 8
RAMP = np.linspace(0, 4095, SIDE * SIDE).round().reshape(SIDE, SIDE).astype(np.uint16)  # 12 bits used
COLOUR = np.stack([RAMP, RAMP[::-1], RAMP.T], -1)
TWELVE = Reading(levels=(0, 4095))


def at_levels(values: np.ndarray, low: float = 0, high: float = 4095) -> np.ndarray:
    """What pixels must be: uint8 ``[3, H, W]``."""
    grey = np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return (
        np.broadcast_to(grey[..., None], (*grey.shape, 3)).transpose(2, 0, 1)
        if grey.ndim == 2
        else grey.transpose(2, 0, 1)
    )


def pixels(path: Path, reading: Reading = AS_IT_IS, size: int = SIDE) -> np.ndarray:
    found = _decode(path, size, reading)
    assert isinstance(found, np.ndarray), found
    assert found.dtype == np.uint8 and found.shape == (3, size, size)
    return found


def refusal(path: Path, reading: Reading = AS_IT_IS) -> str:
    found = _decode(path, SIDE, reading)
    assert isinstance(found, InputError) and str(found).startswith(f"{path}: ")
    return str(found)


def png(pixels: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """uint16 ``[H, W]`` or ``[H, W, C]`` as a PNG of 16 bits, its rows as differences of neighbours (filter 1)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = pixels.reshape(*pixels.shape[:2], -1).shape
    data = pixels.reshape(height, width, channels).astype(">u2").view(np.uint8).reshape(height, width, 2 * channels)
    rows = np.concatenate([data[:, :1], data[:, 1:] - data[:, :-1]], 1).reshape(height, -1)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    body = zlib.compress(b"".join(b"\1" + row.tobytes() for row in rows))
    parts = [(b"IHDR", head), *chunks, (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(pixels: np.ndarray, order: str = "<", compressed: bool = False, planes: bool = False, **tags: int) -> bytes:
    """``[H, W]`` or ``[H, W, C]`` of any dtype as a TIFF."""
    height, width, channels = pixels.reshape(*pixels.shape[:2], -1).shape
    array = pixels.reshape(height, width, channels).astype(pixels.dtype.newbyteorder(order))
    strips = [array[..., c].tobytes() for c in range(channels)] if planes else [array.tobytes()]
    strips = [zlib.compress(strip) for strip in strips] if compressed else strips
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    fields = {256: width, 257: height, 258: [8 * pixels.itemsize] * channels, 259: 8 if compressed else 1}
    fields |= {262: tags.get("photometric", 1 if channels == 1 else 2), 273: [], 277: channels, 278: height}
    fields |= {279: [len(strip) for strip in strips], 284: 2 if planes else 1, 339: [kind] * channels}
    if channels == 4 and fields[262] == 2:
        fields[338] = tags.get("extra", 2)
    if "orientation" in tags:
        fields[274] = tags["orientation"]
    where, offsets = 8, []
    for strip in strips:
        offsets.append(where)
        where += len(strip)
    fields[273] = offsets
    extra, entries = b"", []
    start = where + 2 + 12 * len(fields) + 4
    for tag, value in sorted(fields.items()):
        numbers = value if isinstance(value, list) else [value]
        form, letter = (4, "I") if tag in (273, 279) else (3, "H")
        packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(packed) > 4:
            packed, extra = struct.pack(f"{order}I", start + len(extra)), extra + packed
        entries.append(struct.pack(f"{order}HHI", tag, form, len(numbers)) + packed.ljust(4, b"\0"))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, where)
    return head + b"".join(strips) + struct.pack(f"{order}H", len(fields)) + b"".join(entries) + bytes(4) + extra


DEEP = {
    "grey.png": png(RAMP),
    "rgb.png": png(COLOUR),
    "little.tif": tiff(RAMP),
    "big.tif": tiff(RAMP, ">"),
    "zip.tif": tiff(RAMP, compressed=True),
    "rgb-little.tif": tiff(COLOUR),
    "rgb-big.tif": tiff(COLOUR, ">"),
    "rgb-zip.tif": tiff(COLOUR, compressed=True),
    "rgb-zip-big.tif": tiff(COLOUR, ">", compressed=True),
    "rgbx.tif": tiff(np.concatenate([COLOUR, 7 + COLOUR[..., :1]], -1), extra=0),
    "signed.tif": tiff(RAMP.astype(np.int16)),
    "int32.tif": tiff(RAMP.astype(np.int32)),
    "float.tif": tiff(RAMP.astype(np.float32)),
    "p5.pgm": b"P5 8 8 4095\n" + RAMP.astype(">u2").tobytes(),
    "p5-16.pgm": b"P5 8 8 65535\n" + RAMP.astype(">u2").tobytes(),
    "p6.ppm": b"P6 # a comment\n8 8 4095\n" + COLOUR.astype(">u2").tobytes(),
    "p6-16.ppm": b"P6 8 8 65535\n" + COLOUR.astype(">u2").tobytes(),
    "pf.pfm": b"Pf\n8 8\n-1.0\n" + RAMP[::-1].astype("<f4").tobytes(),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_pixels_are_scaled_and_never_cut(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(DEEP[name])
    wanted = COLOUR if name.startswith(("rgb", "p6")) else RAMP
    assert np.array_equal(pixels(path, TWELVE), at_levels(wanted))
    assert np.array_equal(pixels(path, Reading(levels=(1000, 1016))), at_levels(wanted, 1000, 1016))  # all 16 bits
    assert "more than 8 bits a channel, here from 0 to 4095; say with --levels" in refusal(path)


def test_levels_reach_below_zero_and_beyond_31_bits(tmp_path):
    path = tmp_path / "ct.tif"
    values = RAMP.astype(np.int16) - 1024
    path.write_bytes(tiff(values))
    assert np.array_equal(pixels(path, Reading(levels=(-1024, 3071))), at_levels(RAMP))
    path.write_bytes(tiff(RAMP.astype(np.uint32) << 20))
    assert np.array_equal(pixels(path, Reading(levels=(0, 4095 << 20))), at_levels(RAMP))
    path.write_bytes(tiff(RAMP.astype(np.float32) / 4095))
    assert np.array_equal(pixels(path, Reading(levels=(0, 1))), at_levels(RAMP))


def test_deep_pictures_whose_0_is_white(tmp_path):
    path = tmp_path / "x.tif"
    path.write_bytes(tiff(RAMP, photometric=0))
    assert np.array_equal(pixels(path, TWELVE), 255 - at_levels(RAMP))


def test_pictures_of_8_bits_stay_as_they_are_at_any_levels(tmp_path):
    grey = (RAMP >> 4).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "x.png")
    assert np.array_equal(pixels(tmp_path / "x.png", Reading(levels=(0, 10))), np.broadcast_to(grey, (3, SIDE, SIDE)))


@pytest.mark.parametrize("ground", GROUNDS)
def test_deep_transparent_pictures(tmp_path, ground):
    clear = np.zeros((SIDE, SIDE), np.uint16)
    clear[:4] = 65535
    hidden = np.where(clear[None] == 0, GROUNDS[ground], 0).astype(np.uint8)
    reading = Reading(levels=(0, 4095), ground=ground)
    for name, values, wanted in (
        ("la.png", np.stack([RAMP, clear], -1), RAMP),
        ("rgba.png", np.concatenate([COLOUR, clear[..., None]], -1), COLOUR),
    ):
        (tmp_path / name).write_bytes(png(values))
        assert np.array_equal(pixels(tmp_path / name, reading), np.where(clear == 0, hidden, at_levels(wanted)))
    (tmp_path / "rgba.tif").write_bytes(tiff(np.concatenate([COLOUR, clear[..., None]], -1)))
    assert np.array_equal(pixels(tmp_path / "rgba.tif", reading), np.where(clear == 0, hidden, at_levels(COLOUR)))
    # one colour that stands for nothing
    (tmp_path / "t.png").write_bytes(png(RAMP, (b"tRNS", struct.pack(">H", RAMP[2, 3]))))
    wanted = at_levels(RAMP).copy()
    wanted[:, 2, 3] = GROUNDS[ground]
    assert np.array_equal(pixels(tmp_path / "t.png", reading), wanted)
    (tmp_path / "t3.png").write_bytes(png(COLOUR, (b"tRNS", struct.pack(">3H", *COLOUR[5, 1]))))
    wanted = at_levels(COLOUR).copy()
    wanted[:, 5, 1] = GROUNDS[ground]
    assert np.array_equal(pixels(tmp_path / "t3.png", reading), wanted)


def test_deep_forms_that_are_not_read_are_refused(tmp_path):
    four = np.concatenate([COLOUR, COLOUR[..., :1]], -1)
    Image.fromarray((COLOUR >> 4).astype(np.uint8)).save(tmp_path / "sgi.sgi", bpc=2)
    for name, data in {
        "cmyk.tif": tiff(four, photometric=5),
        "premultiplied.tif": tiff(four, extra=1),
        "planes.tif": tiff(COLOUR, planes=True),
        "planes-zip.tif": tiff(COLOUR, planes=True, compressed=True),
        "plain.pgm": b"P2 2 1 4095\n0 4095\n",
        "plain.ppm": b"P3 1 1 4095\n0 1 4095\n",
        "sgi.sgi": None,
    }.items():
        if data:
            (tmp_path / name).write_bytes(data)
        found = _decode(tmp_path / name, SIDE, TWELVE)
        assert isinstance(found, InputError) and name in str(found), (name, found)
        assert "in a form that is not read; convert it" in str(found), found


@pytest.mark.parametrize("kind", ["f4", "i2", "u4", "f8"])
def test_a_whole_tiff_of_pixels_that_are_not_read_is_not_corrupt(tmp_path, kind):
    content = tiff(np.zeros((8, 8, 3), kind))
    path = tmp_path / "x.tif"
    path.write_bytes(content)
    with pytest.raises(Undecided, match=r"x\.tif: a TIFF with pixels that are not read.*convert it to 16 bits"):
        decoding.decode(path, 8, AS_IT_IS)
    # its pixels lie before the directory: with less of them, what names them is damaged
    path.write_bytes(content[:60] + content[160:])
    assert type(_decode(path, 8)) is InputError


def test_jpeg_2000(tmp_path):
    if not features.check("jpg_2000"):
        pytest.skip("Pillow without JPEG 2000")
    Image.fromarray(np.kron(RAMP, np.ones((4, 4), np.uint16))).save(tmp_path / "x.jp2")
    assert np.array_equal(pixels(tmp_path / "x.jp2", TWELVE, 32), at_levels(np.kron(RAMP, np.ones((4, 4)))))
    colour = np.kron((COLOUR >> 4).astype(np.uint8), np.ones((4, 4, 1), np.uint8))
    Image.fromarray(colour).save(tmp_path / "c.j2k")
    assert np.array_equal(pixels(tmp_path / "c.j2k", size=32), colour.transpose(2, 0, 1))


def test_jpeg_2000_of_12_bits(tmp_path):
    if not features.check("jpg_2000"):
        pytest.skip("Pillow without JPEG 2000")
    path = tmp_path / "x.j2k"
    values = np.kron(RAMP, np.ones((4, 4), np.uint16))

    def save(image: Image.Image, bits: int) -> None:
        image.save(path)
        data = bytearray(path.read_bytes())
        for channel in range(len(image.getbands())):
            data[42 + 3 * channel] = bits - 1  # of the marker SIZ
        path.write_bytes(data)

    save(Image.fromarray(values + (1 << 15) - (1 << 11)), 12)  # which stores them as less the middle of their range
    assert np.array_equal(pixels(path, TWELVE, 32), at_levels(values))
    save(Image.fromarray(np.kron((COLOUR >> 4).astype(np.uint8), np.ones((4, 4, 1), np.uint8))), 12)
    assert "in a form that is not read; convert it" in refusal(path, TWELVE)


def test_values_that_are_no_numbers_are_refused(tmp_path):
    for value in (np.nan, np.inf):
        values = RAMP.astype(np.float32)
        values[1, 1] = value
        (tmp_path / "x.tif").write_bytes(tiff(values))
        assert "not finite" in refusal(tmp_path / "x.tif", TWELVE) and "not finite" in refusal(tmp_path / "x.tif")


@pytest.mark.parametrize("levels", [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_levels_that_are_none(levels):
    with pytest.raises(InputError, match=r"--levels .*: the first value must be below the second"):
        Reading(levels=levels)


def drawing(alpha: int) -> Image.Image:
    """A black square of this alpha in the middle of red pixels that nobody is to see."""
    rgba = np.zeros((SIDE, SIDE, 4), np.uint8)
    rgba[..., 0] = 255
    rgba[2:6, 2:6] = 0, 0, 0, alpha
    return Image.fromarray(rgba)


@pytest.mark.parametrize("ending", ["png", "webp", "tif", "avif", "tga", "ico", "gif", "jp2", "dds", "qoi"])
@pytest.mark.parametrize("ground", GROUNDS)
def test_what_is_transparent_shows_the_ground_and_hides_what_is_below(tmp_path, ending, ground):
    path = tmp_path / f"x.{ending}"
    options = {
        "webp": {"lossless": True, "exact": True},
        "avif": {"quality": 100, "subsampling": "4:4:4"},
        "ico": {"sizes": [(SIDE, SIDE)]},
    }
    drawing(255).save(path, **options.get(ending, {}))
    found = pixels(path, Reading(ground=ground))
    wanted = np.full((3, SIDE, SIDE), GROUNDS[ground], np.uint8)
    wanted[:, 2:6, 2:6] = 0
    assert np.abs(found.astype(int) - wanted).max() <= (8 if ending == "avif" else 0)


def test_half_transparent_pictures_by_value(tmp_path):
    drawing(128).save(tmp_path / "x.png")
    for ground, value in (("white", 127), ("grey", 64), ("black", 0)):
        assert (pixels(tmp_path / "x.png", Reading(ground=ground))[:, 3, 3] == value).all()


def test_modes_with_transparency(tmp_path):
    rgba = drawing(255)
    alpha = rgba.getchannel("A")
    palette = rgba.convert("RGB").quantize(4)
    red = palette.getpixel((0, 0))
    files = {
        "la": (Image.merge("LA", (rgba.getchannel("R"), alpha)), {}),
        "p": (palette, {"transparency": red}),
        "p-bytes": (palette, {"transparency": bytes(0 if number == red else 255 for number in range(4))}),
        "rgb": (rgba.convert("RGB"), {"transparency": (255, 0, 0)}),
        "l": (rgba.getchannel("R"), {"transparency": 255}),
        "1": (rgba.getchannel("R").convert("1"), {"transparency": 1}),
    }
    for name, (image, options) in files.items():
        image.save(tmp_path / f"{name}.png", **options)
        found = pixels(tmp_path / f"{name}.png", Reading(ground="grey"))
        assert (found[:, 3, 3] == 0).all() and (found[:, 0, 0] == 128).all(), name


def test_modes_without_transparency(tmp_path):
    rgb = np.zeros((SIDE, SIDE, 3), np.uint8)
    rgb[..., 0], rgb[..., 1] = 200, 40
    image = Image.fromarray(rgb)
    for mode, ending, tolerance in (
        ("RGB", "png", 0),
        ("P", "png", 1),
        ("CMYK", "tif", 0),
        ("CMYK", "jpg", 3),
        ("YCbCr", "tif", 3),
        ("RGBX", "tif", 0),
    ):
        (image.quantize(4) if mode == "P" else image.convert(mode)).save(tmp_path / f"{mode}.{ending}")
        found = pixels(tmp_path / f"{mode}.{ending}")
        assert np.abs(found.astype(int) - rgb.transpose(2, 0, 1)).max() <= tolerance, mode
    Image.merge("LAB", [Image.new("L", (SIDE, SIDE), 100)] * 3).save(tmp_path / "lab.tif")
    assert "LAB colours; convert it to RGB" in refusal(tmp_path / "lab.tif")
    Image.new("L", (SIDE, SIDE)).save(tmp_path / "signed.tif", tiffinfo={339: 2})
    assert "signed values of 8 bits; convert it to unsigned" in refusal(tmp_path / "signed.tif")
    Image.fromarray(rgb[..., 0] > 0).save(tmp_path / "1.png")
    assert (pixels(tmp_path / "1.png") == 255).all()


def plain(value: int, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (SIDE, SIDE), (value,) * len(mode) if len(mode) > 1 else value)


@pytest.mark.parametrize("ending", ["tif", "gif", "png", "webp", "avif"])
def test_several_pages_are_refused_or_chosen(tmp_path, ending):
    path, one = tmp_path / f"x.{ending}", tmp_path / f"one.{ending}"
    options = {"quality": 100} if ending == "avif" else {"lossless": True} if ending == "webp" else {}
    pages = [plain(value) for value in (10, 100, 200)]
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)
    assert "has 3 pages or frames; save the one that counts, or say which: --page 1" in refusal(path)
    for number, value in enumerate((10, 100, 200), 1):
        assert np.abs(pixels(path, Reading(page=number)).astype(int) - value).max() <= 3
    assert "no page 4" in refusal(path, Reading(page=4))
    pages[1].save(one, **options)
    assert np.abs(pixels(one).astype(int) - 100).max() <= 3
    assert np.array_equal(pixels(one), pixels(one, Reading(page=1)))
    assert "has 1 page(s), and no page 2" in refusal(one, Reading(page=2))


def test_what_a_telephone_puts_behind_a_jpeg_is_no_page(tmp_path):
    plain(10).save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[plain(200)])
    assert np.abs(pixels(tmp_path / "x.jpg").astype(int) - 10).max() <= 3
    assert ".mpo" in decoding.endings()


@pytest.mark.parametrize("bytes_", [2_000_000, 20_000_000])
def test_large_profiles_and_texts_are_no_reason_to_refuse(tmp_path, bytes_):
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("note", "x" * bytes_, zip=True)
    text.add_itxt("more", "x" * bytes_, zip=True)
    text.add_text("plain", "x" * bytes_)
    plain(77).save(tmp_path / "x.png", icc_profile=bytes(bytes_), pnginfo=text)
    assert (pixels(tmp_path / "x.png") == 77).all()


def turned() -> Image.Image:
    """What a camera on its side saw: bright at its left, which EXIF orientation 6 turns to the top."""
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[:, :4] = 250
    return Image.fromarray(values)


def exif(*fields: bytes) -> bytes:
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + b"".join(fields) + bytes(4)


ORIENTED = struct.pack("<HHII", 0x112, 3, 1, 6)
ODD = {
    "width as text": struct.pack("<HHII", 0x100, 2, 4, 0x636261),
    "a field of no type": struct.pack("<HHII", 0x101, 99, 1, 0),
    "a field far away": struct.pack("<HHII", 0x10F, 2, 4000, 0xFFFFFF),
    "a rational of nothing": struct.pack("<HHII", 0x11A, 5, 1, 0),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_one_odd_field_of_exif_costs_nothing(tmp_path, odd, ending):
    options = {"quality": 100} | ({"lossless": True} if ending == "webp" else {})
    turned().save(tmp_path / f"x.{ending}", exif=exif(ODD[odd], ORIENTED), **options)
    found = pixels(tmp_path / f"x.{ending}")
    assert found[:, :3].min() > 240 and found[:, 5:].max() < 10


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not(tmp_path, orientation):
    turned().save(tmp_path / "x.png", exif=exif(struct.pack("<HHII", 0x112, 3, 1, orientation)))
    turned().save(tmp_path / "y.png", exif=exif(struct.pack("<HHI4s", 0x112, 2, 2, b"6")))
    turned().save(tmp_path / "z.png", exif=b"Exif\0\0rubbish")
    for name in ("x.png", "y.png", "z.png"):
        assert np.array_equal(pixels(tmp_path / name)[0], np.asarray(turned())), name


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_stands_upright_in_deep_tiffs_too(tmp_path, orientation):
    upright = RAMP.copy()
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}.get(orientation)
    image = Image.fromarray(upright)
    stored = image if undo is None else image.transpose(decoding._TURNS[undo])
    (tmp_path / "x.tif").write_bytes(tiff(np.asarray(stored), orientation=orientation))
    assert np.array_equal(pixels(tmp_path / "x.tif", TWELVE), at_levels(upright))
    colour = np.stack([np.asarray(stored)] * 3, -1)
    (tmp_path / "y.tif").write_bytes(tiff(colour, orientation=orientation))
    assert np.array_equal(pixels(tmp_path / "y.tif", TWELVE), at_levels(upright))


def test_every_still_format_of_pillow_is_read_and_nothing_else(tmp_path):
    wanted = {".avif", ".jp2", ".j2k", ".jfif", ".jpe", ".gif", ".bmp", ".webp", ".tif", ".png", ".tga", ".qoi", ".ico"}
    assert wanted | {".dcm"} <= decoding.endings()
    assert not decoding.endings() & {".pdf", ".eps", ".ps", ".mpg", ".h5", ".wmf", ".fits", ".svg", ".txt", ""}
    (tmp_path / "x.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EOF\n"
    )  # would start a program
    assert "cannot be read as an image" in refusal(tmp_path / "x.png")


@pytest.mark.parametrize("ending", ["avif", "jfif", "jp2", "gif", "bmp", "tga", "pcx", "sgi", "ppm", "dib", "xbm"])
def test_formats_by_value(tmp_path, ending):
    image = plain(255, "1" if ending == "xbm" else "RGB")
    image.save(tmp_path / f"x.{ending}", format="JPEG" if ending == "jfif" else None)
    assert (pixels(tmp_path / f"x.{ending}") >= 252).all()


def test_what_a_flag_must_say_is_not_corrupt(tmp_path):
    (tmp_path / "x.png").write_bytes(png(RAMP))
    plain(1).save(tmp_path / "x.tif", save_all=True, append_images=[plain(2)])
    for name in ("x.png", "x.tif"):
        assert isinstance(_decode(tmp_path / name, SIDE), Undecided)
    (tmp_path / "torn.png").write_bytes(png(RAMP)[:60])
    assert not isinstance(_decode(tmp_path / "torn.png", SIDE, TWELVE), Undecided)


FOREIGN = {
    "HEIC, .*; save it as JPEG or PNG": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200),
    "HEIC, .*; save it as JPEG or": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(200),
    "HEIC, .*; save": b"\0\0\0\x18ftyphevc\0\0\0\0msf1hevc" + bytes(200),
    "JPEG XL, .*; save it as JPEG or PNG": b"\xff\x0a" + bytes(200),
    "JPEG XL, .*; save it": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(200),
    "PDF, .*; draw it as PNG": b"%PDF-1.7\n" + bytes(200),
    "DICOM, .*; rename it to end in .dcm": bytes(128) + b"DICM" + bytes(200),
}


@pytest.mark.parametrize("wanted", FOREIGN)
@pytest.mark.parametrize("ending", ["jpg", "PNG", "tga"])
def test_a_good_picture_of_a_format_that_is_not_read_is_not_corrupt_whatever_it_is_called(tmp_path, wanted, ending):
    path = tmp_path / f"x.{ending}"
    path.write_bytes(FOREIGN[wanted])
    found = _decode(path, SIDE)
    assert isinstance(found, Undecided)
    assert re.search(rf"x\.{ending}: is {wanted}.*, or move it away$", str(found))


@pytest.mark.parametrize(
    "torn",
    [b"", b"\0\0\0\x1cftypavif\0\0\0\0mif1avif", b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1", b"DICM", b"<!DOCTYPE html>"],
)
def test_other_bytes_are_corrupt(tmp_path, torn):
    (tmp_path / "x.jpg").write_bytes(torn)
    found = _decode(tmp_path / "x.jpg", SIDE)
    assert isinstance(found, InputError) and not isinstance(found, Undecided)


@pytest.mark.parametrize("change", [(4, 12), (1, 0xC3)], ids=["12 bits", "lossless"])
def test_rare_jpegs_are_not_taken_for_damaged(tmp_path, change):
    """The start of a frame says how it is compressed, and how many bits a value has."""
    path = tmp_path / "x.jpg"
    Image.fromarray(RAMP.astype(np.uint8)).save(path, icc_profile=bytes(70_000))
    content = bytearray(path.read_bytes())
    frame = content.index(b"\xff\xc0")
    content[frame + change[0]] = change[1]
    path.write_bytes(content)
    found = _decode(path, SIDE)
    assert isinstance(found, Undecided) and "is of a kind that is not read" in str(found) and "convert it" in str(found)
    content[frame : frame + 5] = bytes(5)
    path.write_bytes(content)  # now it is
    assert not isinstance(_decode(path, SIDE), (Undecided, np.ndarray))


def test_photoshops_files_of_16_bits_and_huge_pictures_are_not_taken_for_damaged(tmp_path, monkeypatch):
    head = b"8BPS" + bytes([0, 1]) + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 16, 3) + bytes(12)
    (tmp_path / "x.psd").write_bytes(head)
    found = _decode(tmp_path / "x.psd", SIDE)
    assert isinstance(found, Undecided) and "more than 8 bits" in str(found)
    monkeypatch.setattr("maskbench.data.pixels.MOST_PIXELS", 63)
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    found = _decode(tmp_path / "x.png", SIDE)
    assert isinstance(found, Undecided) and "8 x 8 pixels are too many; make it smaller" in str(found)
