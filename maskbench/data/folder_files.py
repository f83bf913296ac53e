"""Which files of a folder are pictures of which class.

What is not a picture of a class is in ``_LEFT_BY_SYSTEMS`` or hidden, and is counted in one line. Whatever else there
is, is refused by name: it is an error, not a gap in the set.
"""

import contextlib
import os
import re
import unicodedata
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maskbench.data import class_names, dicom
from maskbench.data.decoding import advice, ending, endings
from maskbench.errors import InputError
from maskbench.runtime import command_line

# files and folders, in small letters, that systems strew about; whatever begins with a dot is left out, too
_LEFT_BY_SYSTEMS = {
    "thumbs.db",
    "thumbs.db:encryptable",
    "thumbnail",
    "thumbnails",
    "_thumbs",
    "_vti_cnf",
    "zbthumbnail.info",
    "wpsettings.dat",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "icon\r",
    "picasa.ini",
    "dicomdir",
    "__macosx",
    "@eadir",
    "#recycle",
    "@recycle",
    "@tmp",
    "@__thumb",
    "@recently-snapshot",
    "~snapshot",
    "#snapshot",
    "@snapshot",
    "$recycle.bin",
    "recycler",
    "recycled",
    "recycle bin",
    "lost.dir",
    "thevolumesettingsfolder",
    "system volume information",
    "lost+found",
    "network trash folder",
    "temporary items",
    "__pycache__",
    "ipynb_checkpoints",
}
# to the name of a picture; edits that a telephone keeps beside it
_ADDED_BY_SYSTEMS = (":zone.identifier", "@synoeastream", "@synoresource", ".aae")
_FOUND_BY_SYSTEMS = re.compile(r"found\.\d{3}")  # by a check of the disk
_PART = re.compile(r"(?P<part>train|test|val)(ing|id|idation)?(set|split|part|data|images?|pictures)?\d*")
# where every folder has one of these words in its name, of both lines, they are hardly classes
_WORDS_OF_TRAINING = {"train", "training", "trn", "tr", "xtr", "entrenamiento", "treino", "treinamento", "训练"}
_WORDS_OF_PARTS = _WORDS_OF_TRAINING | {"test", "testing", "tst", "ts", "te", "xte", "prueba", "teste", "测试"}
_WORDS_OF_PARTS |= {"val", "valid", "validation", "dev", "eval", "验证"}
_WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+|训练|测试|验证")
# the same for folders that hold the same folders, anywhere in their names
_PARTS_IN_NAMES = re.compile(
    r"train|test|val|dev|fold|split|holdout|subset|(set|part|batch)[ _-]?[\da-e]$|^(originals?|augmented|images|masks)$"
)
# beside other pictures, a folder of this name holds them once more, or what was drawn of them
_COPIES = re.compile(
    r"(segmentation|ground[ _-]?truth|binary)?[ _-]?(masks?|labels?|annotations?)|segment(ed|ations?)"
    r"|ground[ _-]?truth|gt|thumbs?|gr[ae]y[ _-]?scale|augmented|originals?"
)
# what systems add to the name of a folder that is copied to where it is
_COPIED = re.compile(
    r"^(copy of|kopie von|copie de|copia de) "
    r"|( [-\u2013\u2014])? (copy|kopie|copie|copia|cópia|копия)( \d+| \(\d+\))?$| \((\d+|(another )?copy)\)$",
    re.IGNORECASE,
)


class Names:
    """Many names in one block of memory: a list would take several times as much, and once more in every worker."""

    def __init__(self):
        self._bytes, self._ends = bytearray(), array("q", [0])

    def append(self, name: str) -> None:
        self._bytes += os.fsencode(name)
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> str:
        return os.fsdecode(bytes(self._bytes[self._ends[number] : self._ends[number + 1]]))


@dataclass
class Files:
    """The pictures of a folder.

    Attributes:
        paths: of every picture, below the folder, part by part and class by class.
        labels: int64, of each an index into ``classes``.
        sizes: how many are of the training and of the test part; one number where the folder is not divided.
        classes: names of the class folders.
    """

    paths: Names
    labels: array
    sizes: list[int]
    classes: list[str]


def find(root: Path) -> Files:
    """The pictures of ``root/<class>/``, or of ``root/train/<class>/`` and ``root/test/<class>/``.

    The parts may be spelled otherwise (``Train``, ``TESTING``, ``test_images``). Images of a part for validation join
    the training part, of which maskbench takes validation images itself.

    Raises:
        InputError: something in the folder cannot be listed, or it is not clear what it is.
    """
    search = _Search(root)
    names, strays = search.entries(root)
    _refuse(root, strays)
    divided = _parts(root, names)
    if divided:
        classes, sizes = [], []
        for parts in (("train", "val"), ("test",)):
            before = len(search.paths)
            for part in parts:
                if part in divided:
                    classes.append((root / divided[part], search.add_part(root / divided[part])))
            sizes.append(len(search.paths) - before)
        _check_same(classes)
        found = Files(search.paths, search.labels, sizes, classes[0][1])
    else:
        classes = search.add_classes(root, names)
        search.check_top()
        found = Files(search.paths, search.labels, [len(search.paths)], classes)
    for line in search.notes(divided):
        print(command_line.printable(f"folder:{root}: {line}"))
    return found


class _Search:
    """Goes through a folder, and keeps what it finds."""

    def __init__(self, root: Path):
        self.paths, self.labels = Names(), array("q")
        self._root, self._real_root = root, os.path.realpath(root)
        self._left: list[str] = []  # what systems left, below the root
        self._deeper = 0  # pictures in folders of class folders
        self._places: dict[str, Path] = {}  # folders, and files behind links, by where they really are
        self._linked: dict[str, Path] = {}  # links to files, by the folders that these really are in
        self._below: dict[str, list[str]] = {}  # folders in each class folder that holds folders alone

    def entries(self, folder: Path) -> tuple[list[str], list[str]]:
        """Names of the folders and of the files in a folder, in order, without what systems left."""
        self._enter(folder)
        folders, names, place = [], [], folder
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            for entry in entries:
                place = folder / entry.name
                if entry.name.endswith(".icloud"):
                    raise InputError(
                        f"{place}: stands for a file that is in iCloud alone; download it, or move it away"
                    )
                if _is_left(entry.name):
                    self._left.append(os.path.relpath(place, self._root))
                elif entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file():
                    if entry.is_symlink():
                        self._check_link(place)
                    names.append(entry.name)
                else:
                    what = "a link to nothing" if entry.is_symlink() else "neither a file nor a folder"
                    raise InputError(f"{place}: is {what}; move it away")
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{place}: cannot be listed ({reason}); make it readable or move it away") from None
        return folders, names

    def add_part(self, part: Path) -> list[str]:
        """Append the pictures of a part; gives its classes."""
        names, strays = self.entries(part)
        _refuse(part, strays)
        return self.add_classes(part, names)

    def add_classes(self, part: Path, names: list[str]) -> list[str]:
        """Append the pictures of the class folders ``names`` in a part, or in the folder itself; gives the names."""
        if not names:
            raise InputError(f"{part}: expected a folder of images for each class; there is none")
        for name in names:
            if not class_names.is_text(name):
                raise InputError(
                    f"{part}/{class_names.shown(name)}: a class whose name has control characters or is not UTF-8; "
                    "rename the folder"
                )
        if pair := class_names.alike(names):
            raise InputError(
                f"{part}: {pair[0]} and {pair[1]} are one name but for case, blanks or accents; merge or rename them"
            )
        for name in names:
            if (copied := _COPIED.sub("", name)) != name and copied in names:
                raise InputError(
                    f"{part}: {name} is called like a copy of {copied}; move it away, or rename it if it is a class"
                )
        for label, name in enumerate(names):
            self._add_class(part / name, label, alone=len(names) == 1)
        return names

    def check_top(self) -> None:
        """InputError where the class folders hold the same folders, and are called like parts or copies of a set."""
        names = list(self._below)
        same = len(names) > 1 and all(below == self._below[names[0]] for below in self._below.values())
        if same and all(_PARTS_IN_NAMES.search(name.casefold()) for name in names):
            _refuse_parts(self._root, names)
        copies = [name for name in names if _is_copy(name)]
        if same and copies and len(self._below[names[0]]) > 1:
            one = next((name for name in names if name not in copies), names[0])
            raise InputError(
                f"folder:{self._root}: {' and '.join(names[:4])} hold the same folders, and {copies[0]} is called like "
                f"a copy; choose one, such as folder:{self._root / one}"
            )

    def _add_class(self, top: Path, label: int, alone: bool) -> None:
        """Append the pictures of a class folder, and of the folders in it."""
        before, todo = len(self.paths), [top]
        while todo:
            folder = todo.pop()
            folders, names = self.entries(folder)
            if folder == top:
                _check_class(top, folders, names, alone)
                if not names:
                    self._below[top.name] = folders
            elif _part(folder.name):
                raise InputError(
                    f"{folder}: is called like a part of a set, and is in a class; the classes belong into the parts"
                )
            _refuse(folder, [name for name in names if ending(name) not in endings()])
            if medical := next((name for name in names if ending(name) in dicom.ENDINGS), None):
                dicom.check_installed(folder / medical)
            _check_copies(folder, folders, names)
            below = os.path.relpath(folder, self._root)
            for name in names:
                self.paths.append(f"{below}/{name}")
                self.labels.append(label)
            self._deeper += len(names) if folder != top else 0
            todo += [folder / name for name in reversed(folders)]
        if len(self.paths) == before:
            raise InputError(f"{top}: a class folder without images; fill it or remove it")

    def notes(self, divided: dict[str, str]) -> Iterator[str]:
        """What was left out, and what was taken for what."""
        if self._left:
            names = ", ".join(self._left[:3]) + (", ..." if len(self._left) > 3 else "")
            yield f"skipped {len(self._left):,} files or folders, hidden or left by a system: {names}"
        if divided and (divided["train"], divided["test"]) != ("train", "test"):
            yield f"{divided['train']} is the training part, {divided['test']} the test part"
        if "val" in divided:
            yield f"the images of {divided['val']} join the training part"
        if self._deeper:
            yield f"{self._deeper:,} images in deeper folders belong to the class folder above them"

    def _enter(self, folder: Path) -> None:
        """InputError where a link makes one folder two, or leads back up."""
        real = os.path.realpath(folder)
        if self._real_root.startswith(os.path.join(real, "")):
            raise InputError(f"{folder}: is a link that leads back up; remove it")
        if real in self._places:
            raise InputError(f"{folder}: is the same folder as {self._places[real]}, by a link; remove one of them")
        _refuse_double(folder, self._linked.get(real))
        self._places[real] = folder

    def _check_link(self, link: Path) -> None:
        """InputError where a link makes one picture of the folder two."""
        real = os.path.realpath(link)
        if real in self._places:
            raise InputError(f"{link}: is the same file as {self._places[real]}, by a link; remove one of them")
        self._places[real] = link
        try:
            below = os.path.relpath(real, self._real_root)
        except ValueError:  # on another drive
            below = os.pardir
        if not any(piece == os.pardir or _is_left(piece) for piece in below.split(os.sep)):
            raise InputError(f"{link}: is a link to {below}, which would count twice; remove one of them")
        _refuse_double(link, self._places.get(os.path.dirname(real)))
        self._linked[os.path.dirname(real)] = link


def _refuse_double(found: Path, before: Path | None) -> None:
    """InputError where one of two links leads to a picture, and the other to the folder that it is in."""
    if before is not None:
        raise InputError(f"{found}: leads by a link to what {before} leads to, and would count twice; remove one")


def _is_left(name: str) -> bool:
    small = name.casefold()
    listed = small in _LEFT_BY_SYSTEMS or small.endswith(_ADDED_BY_SYSTEMS) or _FOUND_BY_SYSTEMS.fullmatch(small)
    return name.startswith(".") or bool(listed)


def _part(name: str) -> str | None:
    """Which part of a set a folder's name says that it is: ``train``, ``test``, ``val`` or none."""
    match = _PART.fullmatch(re.sub(r"[\s_.-]", "", _narrow(name).casefold()))
    return match["part"] if match else None


def _is_copy(name: str) -> bool:
    return _COPIES.fullmatch(_narrow(name).casefold()) is not None


def _narrow(name: str) -> str:
    """A name whose letters may be as wide as Chinese ones, in plain letters."""
    return unicodedata.normalize("NFKC", name)


def _parts(root: Path, names: list[str]) -> dict[str, str]:
    """The folders that are ``train``, ``test`` and ``val``, by these names; none where the folders are classes."""
    found: dict[str, str] = {}
    for name in names:
        part = _part(name)
        if part in found:
            raise InputError(f"{root}: {found[part]} and {name} are both a {part} part; keep one of them")
        if part:
            found[part] = name
    others = [name for name in names if not _part(name)]
    if {"train", "test"} <= found.keys():
        if others:
            both = f"{found['train']} and {found['test']}"
            raise InputError(f"{root / others[0]}: is no part of the set, and stands beside {both}; move it away")
        return found
    if found and not others:
        has = " and ".join(sorted(found.values()))
        raise InputError(f"folder:{root}: has {has}; the parts must be called train and test")
    words = {name: {word.lower() for word in _WORD.findall(_narrow(name))} & _WORDS_OF_PARTS for name in names}
    like_parts = [name for name in names if words[name]]
    training = [bool(words[name] & _WORDS_OF_TRAINING) for name in like_parts]
    # beside other folders, a test tube and a bullet train are things; but they do not hold folders alone
    alone = len(like_parts) == len(names) or all(_holds_folders_alone(root / name) for name in like_parts)
    if any(training) and not all(training) and alone:
        _refuse_parts(root, like_parts)
    return {}


def _holds_folders_alone(folder: Path) -> bool:
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        entries = [entry for entry in found if not _is_left(entry.name)]
        return bool(entries) and all(entry.is_dir() for entry in entries)
    return False


def _refuse_parts(root: Path, names: list[str]) -> None:
    raise InputError(f"folder:{root}: {' and '.join(names[:4])} look like parts; call them train and test")


def _check_class(folder: Path, folders: list[str], names: list[str], alone: bool) -> None:
    """InputError where what stands for a class looks like a part, or like what classes are in."""
    if _part(folder.name) and not alone and (folders or folder.name != "train"):  # a train is a thing, too
        raise InputError(
            f"{folder}: is called like a part of a set, and stands among classes; parts are called train and test, "
            "and nothing stands beside them"
        )
    if alone and folders and not names:
        raise InputError(
            f"{folder}: is the only class folder, and it holds folders alone; if these are the classes, say "
            f"folder:{folder}"
        )


def _check_copies(folder: Path, folders: list[str], names: list[str]) -> None:
    """InputError where a folder in a class, beside other folders or pictures, holds copies or outlines of them."""
    for name in folders:
        if _is_copy(name) and (names or len(folders) > 1):
            raise InputError(
                f"{folder / name}: is called like copies or outlines of the pictures beside it, and would be "
                "pictures of the class; move it away, or rename it"
            )


def _check_same(parts: list[tuple[Path, list[str]]]) -> None:
    """InputError where a part has other classes than the first one."""
    (first, classes), *others = parts
    for part, found in others:
        for name in sorted(set(classes) ^ set(found)):
            has, lacks = (first, part) if name in classes else (part, first)
            raise InputError(f"{has / name}: {lacks} has no class folder of this name; all parts must have the same")


def _refuse(folder: Path, names: list[str]) -> None:
    """InputError for the first of the files, which are no pictures in a class folder."""
    for name in names[:1]:
        what_to_do = "move it into one, or away" if ending(name) in endings() else advice(ending(name))
        if ending(name) not in dicom.ENDINGS and dicom.is_dicom(folder / name):
            what_to_do = "it is DICOM: rename it to end in .dcm, or move it away"
        raise InputError(f"{folder / name}: not an image in a class folder; {what_to_do}")
