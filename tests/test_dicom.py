"""DICOM by value: rescaled, through its window or the levels, and nothing but pixels read."""

from pathlib import Path

import numpy as np
import pytest

from maskbench.data import datasets, dicom, folder_files
from maskbench.data.folders import _decode
from maskbench.data.pixels import AS_IT_IS, Reading, Undecided
from maskbench.errors import InputError

SIDE = 8
STORED = np.linspace(0, 4095, SIDE * SIDE).round().reshape(SIDE, SIDE).astype(np.uint16)


@pytest.fixture
def write(tmp_path):
    """Writes pixels with fields of DICOM; gives the path."""
    pydicom = pytest.importorskip("pydicom")

    def write(pixels: np.ndarray, name: str = "x.dcm", syntax: str | None = None, **fields: object) -> Path:
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = syntax or pydicom.uid.ExplicitVRLittleEndian
        data = pydicom.Dataset()
        data.file_meta = meta
        data.SOPClassUID = data.SOPInstanceUID = pydicom.uid.generate_uid()
        data.PatientName = "Nobody^May^Read^This"
        data.Rows, data.Columns = pixels.shape[-3:-1] if pixels.shape[-1] == 3 else pixels.shape[-2:]
        data.SamplesPerPixel = 3 if pixels.shape[-1] == 3 else 1
        data.PlanarConfiguration = 0
        data.PhotometricInterpretation = "RGB" if pixels.shape[-1] == 3 else "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
        data.HighBit = data.BitsStored - 1
        data.PixelRepresentation = int(pixels.dtype.kind == "i")
        data.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        for field, value in fields.items():
            setattr(data, field, value)
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        data.save_as(path, enforce_file_format=True)
        return path

    return write


def pixels(path: Path, reading: Reading = AS_IT_IS) -> np.ndarray:
    found = _decode(path, SIDE, reading)
    assert isinstance(found, np.ndarray), found
    return found


def grey(path: Path, reading: Reading = AS_IT_IS) -> np.ndarray:
    found = pixels(path, reading)
    assert (found == found[:1]).all()
    return found[0]


def at(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def test_the_window_of_the_file(write):
    window = {"WindowCenter": 2048, "WindowWidth": 1001}
    assert np.array_equal(grey(write(STORED, **window)), at(STORED, 1547.5, 2547.5))  # C.11.2.1.2.1
    several = {"WindowCenter": [2048, 1], "WindowWidth": [1001, 1]}
    assert np.array_equal(grey(write(STORED, **several)), at(STORED, 1547.5, 2547.5))
    exact = window | {"VOILUTFunction": "LINEAR_EXACT"}
    assert np.array_equal(grey(write(STORED, **exact)), at(STORED, 1547.5, 2548.5))
    narrow = grey(write(STORED, WindowCenter=2048, WindowWidth=1))
    assert np.array_equal(narrow, np.where(STORED > 2047.5, 255, 0))


def test_colours_that_pydicom_leaves_as_they_are_stored_are_refused(write):
    path = write(np.zeros((SIDE, SIDE, 3), np.uint8), PhotometricInterpretation="YBR_PARTIAL_420")
    found = _decode(path, SIDE, AS_IT_IS)
    assert isinstance(found, Undecided) and "kind YBR_PARTIAL_420 a pixel; convert it to RGB" in str(found)


def test_stored_values_are_rescaled_before_window_and_levels(write):
    rescale = {"RescaleSlope": 0.5, "RescaleIntercept": -1024}
    values = STORED * 0.5 - 1024
    path = write(STORED, **rescale, WindowCenter=40, WindowWidth=401)
    assert np.array_equal(grey(path), at(values, -160.5, 239.5))
    assert np.array_equal(grey(path, Reading(levels=(-1000, 400))), at(values, -1000, 400))
    path = write((STORED - 2048).astype(np.int16), **rescale)
    assert np.array_equal(grey(path, Reading(levels=(-2048, 0))), at(values - 1024, -2048, 0))


def test_0_is_white_in_monochrome1(write):
    path = write(STORED, PhotometricInterpretation="MONOCHROME1", WindowCenter=2048, WindowWidth=1001)
    assert np.array_equal(grey(path), 255 - at(STORED, 1547.5, 2547.5))


def test_deep_pixels_without_a_window_are_refused(write):
    for fields in ({}, {"WindowCenter": 5, "WindowWidth": 0}, {"WindowCenter": None, "WindowWidth": None}):
        found = _decode(write(STORED, **fields), SIDE)
        assert isinstance(found, Undecided) and "x.dcm: has more than 8 bits" in str(found), fields
    sigmoid = {"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "SIGMOID"}
    assert isinstance(_decode(write(STORED, **sigmoid), SIDE), Undecided)


def test_8_bits_stay_as_they_are(write):
    small = (STORED >> 4).astype(np.uint8)
    for reading in (AS_IT_IS, Reading(levels=(0, 10))):
        assert np.array_equal(grey(write(small), reading), small)
    assert np.array_equal(grey(write(small >> 2, BitsStored=6, HighBit=5)), at(small >> 2, 0, 63))
    colour = np.stack([small, small[::-1], small.T], -1)
    assert np.array_equal(pixels(write(colour)), colour.transpose(2, 0, 1))


def test_deep_colours_want_levels(write):
    colour = np.stack([STORED, STORED[::-1], STORED.T], -1)
    assert isinstance(_decode(write(colour), SIDE), Undecided)
    assert np.array_equal(pixels(write(colour), Reading(levels=(0, 4095))), at(colour, 0, 4095).transpose(2, 0, 1))


def test_palettes(write):
    table = (np.arange(256)[::-1] * 257).astype("<u2").tobytes()
    fields = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        fields[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        fields[f"{colour}PaletteColorLookupTableData"] = table
    small = (STORED >> 4).astype(np.uint8)
    assert np.array_equal(grey(write(small, **fields)), 255 - small)


def test_a_table_of_the_file(write):
    import pydicom

    table = pydicom.Dataset()
    table.LUTDescriptor = [4096, 0, 12]
    table.LUTData = (4095 - np.arange(4096)).astype("<u2").tobytes()
    path = write(STORED, VOILUTSequence=[table], BitsStored=12, HighBit=11)
    assert np.array_equal(grey(path), at(4095 - STORED, 0, 4095))


def test_a_scale_by_a_table_of_12_bits(write):
    import pydicom

    table = pydicom.Dataset()
    table.LUTDescriptor = [4096, 0, 12]
    table.LUTData = (4095 - np.arange(4096)).astype("<u2").tobytes()
    path = write(STORED, ModalityLUTSequence=[table], BitsStored=12, HighBit=11)
    assert np.array_equal(grey(path, Reading((0, 4095))), at(4095 - STORED, 0, 4095))


def test_tables_of_few_entries_end_where_they_end(write):
    """pydicom counts places in a table in the type of its entries: beyond 255 those of 8 bits would begin again."""
    import pydicom

    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 8], np.arange(256).astype("<u2").tobytes()
    path = write(STORED, VOILUTSequence=[table], BitsStored=12, HighBit=11)
    assert np.array_equal(grey(path), STORED.clip(0, 255))
    table.LUTDescriptor, table.LUTData = [4096, 0, 8], (np.arange(4096) >> 4).astype("<u2").tobytes()
    with pytest.raises(Undecided, match="a lookup table of 4,096 entries of 8 bits"):
        raise _decode(write(STORED, VOILUTSequence=[table], BitsStored=12, HighBit=11), SIDE, AS_IT_IS)
    small = (STORED >> 4).astype(np.uint8)
    fields = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        fields[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        fields[f"{colour}PaletteColorLookupTableData"] = bytes(range(255, -1, -1))  # of 8 bits, whatever it says
    assert np.array_equal(grey(write(small, **fields)), 255 - small)


def test_several_frames_are_refused_or_chosen_with_their_own_scale(write):
    import pydicom

    def group(**fields: object) -> pydicom.Dataset:
        scale, window = pydicom.Dataset(), pydicom.Dataset()
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = fields["slope"], 0, "US"
        window.WindowCenter, window.WindowWidth = 2048, 4096
        both = pydicom.Dataset()
        both.PixelValueTransformationSequence, both.FrameVOILUTSequence = [scale], [window]
        return both

    frames = np.stack([STORED, STORED[::-1]])
    groups = {"PerFrameFunctionalGroupsSequence": [group(slope=1), group(slope=2)]}
    path = write(frames, NumberOfFrames=2, **groups)
    assert "has 2 pages or frames" in str(_decode(path, SIDE))
    for page, values in ((1, STORED), (2, 2 * STORED[::-1].astype(int))):
        assert np.array_equal(grey(path, Reading(page=page)), at(values, 0, 4095))
    assert "no page 3" in str(_decode(path, SIDE, Reading(page=3)))


def test_what_cannot_be_decompressed_says_so(write):
    import pydicom

    jpeg_ls = write(STORED.astype(np.uint8))
    data = pydicom.dcmread(jpeg_ls)
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    data.PixelData = pydicom.encaps.encapsulate([b"1234"])
    data["PixelData"].is_undefined_length = True
    data.save_as(jpeg_ls)
    found = _decode(jpeg_ls, SIDE)
    if pydicom.pixels.get_decoder(pydicom.uid.JPEGLSLossless).is_available:
        pytest.skip("this pydicom reads JPEG-LS")
    assert isinstance(found, Undecided) and "compressed as JPEG-LS" in str(found) and "gdcmconv --raw" in str(found)


@pytest.mark.parametrize(
    ("syntax", "samples"), [("1.2.840.10008.1.2.4.51", 1), ("1.2.840.10008.1.2.4.90", 3)], ids=["JPEG", "JPEG 2000"]
)
def test_what_pillow_does_not_decompress_is_not_taken_for_damaged(write, monkeypatch, syntax, samples):
    import pydicom

    monkeypatch.setattr(dicom.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(dicom, "_is_installed", lambda: True)
    path = write(STORED if samples == 1 else np.stack([STORED] * 3, -1), BitsStored=12, HighBit=11)
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = pydicom.encaps.encapsulate([b"1234"])
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    found = _decode(path, SIDE)
    assert isinstance(found, Undecided) and "compressed as JPEG" in str(found) and "pylibjpeg" in str(found)


def test_nothing_but_pixels_is_read(write, monkeypatch):
    import pydicom

    path, read = write((STORED >> 4).astype(np.uint8)), []
    original = pydicom.dcmread
    monkeypatch.setattr(pydicom, "dcmread", lambda *args, **how: read.append(original(*args, **how)) or read[-1])
    pixels(path)
    assert "Rows" in read[0] and "PatientName" not in read[0] and "Nobody" not in str(read[0])
    assert b"Nobody" in path.read_bytes()


def test_damaged_files_and_files_without_pixels(write, tmp_path):
    import pydicom

    path = write(STORED)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert "x.dcm: cannot be read as an image" in str(_decode(path, SIDE))
    path.write_bytes(b"no dicom")
    assert "x.dcm: lacks the head of a DICOM file" in str(_decode(path, SIDE))
    path.write_bytes(whole)
    data = pydicom.dcmread(path)
    for name in ("Rows", "Columns", "PixelData"):
        delattr(data, name)
    data.save_as(path)
    assert "x.dcm: is DICOM without pixels" in str(_decode(path, SIDE))
    assert "x.dcm: 60000 x 60000 pixels are too many" in str(_decode(write(STORED, Rows=60_000, Columns=60_000), SIDE))


def test_a_folder_of_dicom(write, tmp_path):
    small = (STORED >> 4).astype(np.uint8)
    for name in ("ill", "well"):
        for number in range(3):
            write(small, f"{name}/{number}.DCM")
    found = datasets.load(f"folder:{tmp_path}", image_size=SIDE)
    assert found.classes == ["ill", "well"] and (found.images.numpy() == small).all()


@pytest.mark.parametrize("name", ["IM0001.IMA", "1.2.840.113619.2.55"])
def test_dicom_under_another_name_is_told_to_be_renamed(write, tmp_path, name):
    write(np.zeros((SIDE, SIDE), np.uint8), "cats/0.dcm").rename(tmp_path / "cats" / name)
    with pytest.raises(InputError, match=r"it is DICOM: rename it to end in \.dcm"):
        folder_files.find(tmp_path)


def test_without_pydicom_one_line_says_so_before_work(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom, "_is_installed", lambda: False)
    (tmp_path / "ill").mkdir()
    (tmp_path / "ill" / "0.dcm").write_bytes(b"x")
    said = r"ill/0\.dcm: is DICOM, which needs pydicom 3 or newer; run pip install 'pydicom>=3'"
    with pytest.raises(InputError, match=said):
        datasets.load(f"folder:{tmp_path}", skip_corrupt=True)
