"""What a ``.pt`` file may consist of, checked before ``torch.load`` sees it.

``torch.load(weights_only=True)`` runs no code, but it believes what the file says of itself: it unpacks compressed
records of any size, expands a tensor of four bytes to terabytes by strides of zero, hangs on nested tuples as
dictionary keys, and compares no checksums. So a file is read twice: here, where its pickle is walked opcode by
opcode without building anything of the kind, and then by torch.

A ``.pt`` file is a zip archive of uncompressed records under one folder: ``data.pkl`` (the pickle), ``data/0``,
``data/1``, ... (the tensors' bytes) and a few records of some bytes each.
"""

import io
import math
import os
import pickletools
import re
import struct
import zipfile
from typing import Any, BinaryIO

from maskbench.errors import require

_SMALL = re.compile(r"version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id")
_TENSOR = re.compile(r"data/(\d{1,9})")
_FLAGS = 0x808  # UTF-8 names, sizes after the data
_LARGEST_PICKLE = 4 * 2**20  # also of the zip's directory: a few kilobytes are usual
_DEEPEST_STACK = 10_000  # the pickler writes a thousand entries at a time

_ITEM_SIZES = {"torch FloatStorage": 4, "torch DoubleStorage": 8, "torch LongStorage": 8, "torch ByteStorage": 1}
# not written by maskbench; what reads a file says which of them it takes
_ITEM_SIZES |= {"torch IntStorage": 4, "torch ShortStorage": 2, "torch CharStorage": 1, "torch BoolStorage": 1}
_ITEM_SIZES |= {"torch HalfStorage": 2, "torch BFloat16Storage": 2}
_TENSOR_MAKER, _DICT_MAKER = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
_GLOBALS = {*_ITEM_SIZES, _TENSOR_MAKER, _DICT_MAKER}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_SCALARS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_MARK = object()


class EditedError(ValueError):
    """A file that is whole, and that somebody changed and saved in a way that is not ours; the message mends it."""


class _Name(str):
    """A global that the pickle names; never looked up."""


class _Storage(int):
    """The number of elements of a tensor's record."""


class _Outline:
    """Stands for a tensor."""


def check(file: BinaryIO) -> None:
    """Refuse anything but what ``maskbench.storage.pt.save`` writes.

    Args:
        file: open for reading, seekable; left at an arbitrary position.

    Raises:
        ValueError: not such a file, and why. Damaged zip structures may raise other exceptions too.
    """
    size = file.seek(0, os.SEEK_END)
    _check_end(file, size)
    with zipfile.ZipFile(file) as archive:
        records = _check_records(archive, size)
        outline(archive.read(records.pop("data.pkl")), {name[5:]: info.file_size for name, info in records.items()})


def _check_end(file: BinaryIO, size: int) -> None:
    """One central directory right before the end, so that every reader finds the same one."""
    require(size >= 22, "not a zip archive")
    end = size - 22
    file.seek(end)
    signature, *_, length, start, comment = struct.unpack("<4s4H2LH", file.read(22))
    require(signature == b"PK\5\6" and comment == 0, "not a zip archive, or cut off")
    if end >= 76:
        file.seek(end - 76)
        record = struct.unpack("<4sQ2H2L4Q", file.read(56))
        locator = struct.unpack("<4sLQL", file.read(20))
        if locator[0] == b"PK\6\7":  # the 64-bit form
            end -= 76
            require(record[0] == b"PK\6\6" and locator[2] == end, "its zip directory is not where it should be")
            length, start = record[-2:]
    require(start + length == end, "its zip directory is not where it should be")
    require(length <= _LARGEST_PICKLE, "its zip directory is too large")


def _check_records(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The pickle and the tensors' records by name; all have the right checksums and fit into the file."""
    infos = archive.infolist()
    folder = infos[0].orig_filename.split("/")[0] + "/" if infos else ""
    records, seen = {}, set()
    require(sum(info.file_size for info in infos) <= size, "its records claim more bytes than it has")
    for info in infos:
        require(info.orig_filename.startswith(folder), "holds more than one folder")
        name = info.orig_filename.removeprefix(folder)
        require(name not in seen, "holds a record twice")
        seen.add(name)
        require(info.compress_type == zipfile.ZIP_STORED, "holds compressed records")
        require(info.compress_size == info.file_size, "its records' sizes do not agree")
        # of a record that calls itself a folder, torch reads whatever lies in the memory
        plain = info.external_attr == info.internal_attr == info.volume == 0 and info.flag_bits & ~_FLAGS == 0
        require(plain, "holds a record that is not a plain file")
        if name == "data.pkl":
            require(info.file_size <= _LARGEST_PICKLE, "its pickle is too large")
            records[name] = info
        elif _TENSOR.fullmatch(name):
            records[name] = info
        else:
            require(bool(_SMALL.fullmatch(name)) and info.file_size <= 64, "holds a record that is not ours")
        with archive.open(info) as record:  # compares the checksum at the end
            if name == "byteorder":
                require(record.read() == b"little", "was written on a big-endian machine")
            while record.read(2**20):
                pass
    require("data.pkl" in records, "holds no pickle")
    return records


def outline(pickled: bytes, sizes: dict[str, int]) -> Any:
    """Walk a pickle of plain values and tensors; lists, dictionaries and scalars come back, tensors as placeholders.

    Args:
        pickled: a whole pickle of protocol 2.
        sizes: bytes of every record of tensors; each must be named by a tensor.

    Raises:
        ValueError, KeyError, IndexError, TypeError: anything that ``torch.save`` would not write for such values.
    """
    stack, memo, used = [], {}, set()

    def since_mark() -> list:
        at = len(stack) - 1
        while stack[at] is not _MARK:  # a stack without a mark ends in an IndexError
            at -= 1
        items = stack[at + 1 :]
        del stack[at:]
        return items

    def make_tuple(items: list) -> None:
        # the arguments of a tensor hold tuples of sizes: nothing of ours is nested deeper
        flat = [item for value in items for item in (value if isinstance(value, tuple) else ())]
        require(not any(isinstance(item, tuple) for item in flat), "its tuples are nested too deeply")
        stack.append(tuple(items))

    def fill(items: list) -> None:
        target = stack[-1]
        require(isinstance(target, dict) and len(items) % 2 == 0, "its pickle is damaged")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # hashing anything else may take forever
            require(type(key) in (str, int) and key not in target, "its dictionaries have unusable keys")
            target[key] = value

    def call(function: Any, arguments: Any) -> Any:
        require(isinstance(function, _Name) and isinstance(arguments, tuple), "its pickle calls something")
        if function == _TENSOR_MAKER:
            return _tensor(*arguments)
        require(function == _DICT_MAKER and arguments == (), f"its pickle calls {str(function)[:60]}")
        return {}

    def storage(kind: Any, item: Any, key: Any, location: Any, count: Any) -> _Storage:
        require(kind == "storage" and isinstance(item, _Name), "holds a tensor of an unknown kind")
        require(_is_size(count) and count * _ITEM_SIZES[item] == sizes[key], "holds a tensor larger than its record")
        used.add(key)
        return _Storage(count)

    for position, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(pickled))):
        name = opcode.name
        require(len(stack) < _DEEPEST_STACK, "its pickle is nested too deeply")
        if name in _SCALARS:
            require(type(argument) is not int or -(2**63) <= argument < 2**63, "holds too large a number")
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            require(argument <= position, "its pickle is damaged")
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            # text, and tuples of scalars, come again; containers that do could grow without end
            again = memo[argument]
            if isinstance(again, _Outline):
                raise EditedError("holds one tensor under two names; .clone() it for one of them")
            flat = isinstance(again, tuple) and not any(isinstance(item, (tuple, list, dict)) for item in again)
            require(isinstance(again, (str, _Storage)) or flat, "holds the same container twice")
            stack.append(again)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name == "TUPLE":
            make_tuple(since_mark())
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            items = stack[-count:]
            del stack[-count:]
            make_tuple(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = since_mark() if name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
            fill(items)
        elif name in ("APPEND", "APPENDS"):
            items = since_mark() if name == "APPENDS" else [stack.pop()]
            require(isinstance(stack[-1], list), "its pickle is damaged")
            stack[-1].extend(items)
        elif name == "GLOBAL":
            if argument.startswith("numpy"):
                raise EditedError("holds a NumPy array or number; turn it into a tensor with torch.from_numpy or int")
            if argument == "torch._utils _rebuild_parameter":
                raise EditedError("holds a Parameter; .detach().clone() it")
            if argument == "torch._utils _rebuild_tensor_v3":
                raise EditedError("holds a tensor of a rare kind, such as torch.uint16; .to(torch.int64) it")
            if argument == "maskbench.data.masked_set MaskedSet":
                raise EditedError(
                    "holds a masked set as an object; give maskbench.save the set, or make it a dictionary with format "
                    "and version"
                )
            if argument == "collections defaultdict":
                raise EditedError("holds a dictionary of another kind; dict() it")
            require(argument in _GLOBALS, f"its pickle names {argument[:60]}, which ours never do")
            stack.append(_Name(argument))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(call(stack.pop(), arguments))
        elif name == "BINPERSID":
            stack.append(storage(*stack.pop()))
        elif name == "STOP":
            require(len(stack) == 1 and position > 1, "its pickle is damaged")
        elif name == "PROTO":
            if argument != 2:
                raise EditedError(f"is a pickle of protocol {argument}; leave pickle_protocol out")
        else:
            raise ValueError(f"its pickle uses {name}, which ours never do")
    require(used == sizes.keys(), "holds data that nothing in it names")
    return stack[0]


def _tensor(count: Any, offset: Any, shape: Any, strides: Any, gradient: Any, hooks: Any) -> _Outline:
    """A contiguous tensor that covers its record: nothing is expanded, and nothing is hidden beside it."""
    require(isinstance(count, _Storage) and isinstance(shape, tuple), "holds a tensor of an unknown kind")
    require(all(_is_size(side) for side in shape) and len(shape) <= 8, "holds a tensor of an impossible shape")
    wanted = tuple(math.prod(max(side, 1) for side in shape[axis + 1 :]) for axis in range(len(shape)))
    if math.prod(shape) > count:
        raise EditedError("holds an expanded tensor, fewer numbers than it shows; .contiguous() it")
    if math.prod(shape) < count:
        raise EditedError("holds a slice of a tensor, and behind it the rows that were cut off; .clone() the slice")
    require(type(offset) is int and offset == 0 and hooks == {}, "holds a tensor that is not plain")
    if strides != wanted or gradient is not False:
        raise EditedError("holds a tensor that is turned or wants gradients; .detach().contiguous() it")
    return _Outline()


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0
