"""Finished runs of a script, kept so that a second start does not repeat them."""

import hashlib
import json
from pathlib import Path
from typing import Any

from maskbench.errors import InputError
from maskbench.storage import pt

FORMAT = "maskbench.runs"
_PACKAGE = Path(__file__).resolve().parent.parent


class Ledger:
    """A file of results, each under everything that determines it.

    A run with another flag or input is another run: it is computed, and the earlier one is kept. Runs of another
    version of the program are dropped.

    Args:
        path: the file; need not exist.
        code: the program, see :func:`code_fingerprint`; None keeps the runs of whichever wrote the file.

    Raises:
        InputError: the file is not a ledger.
    """

    def __init__(self, path: Path, code: str | None = None):
        self._path, self._code = path, code
        self._runs: dict[str, dict[str, Any]] = {}
        if path.exists():
            content = pt.load(path, FORMAT)
            runs, written_by = content.get("runs"), content.get("code")
            sound = isinstance(runs, dict) and isinstance(written_by, str)
            if not sound or not all(isinstance(result, dict) for result in runs.values()):
                raise InputError(f"{path}: damaged; delete it, then its runs are made again")
            if code in (None, written_by):
                self._runs, self._code = runs, written_by

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, run: dict[str, Any], template: dict[str, Any]) -> dict[str, Any] | None:
        """The result of a run, or None where it is still to be made.

        Args:
            run: everything that determines it.
            template: a result of the same shape, see :func:`maskbench.storage.pt.check_matches`.

        Raises:
            InputError: what is kept is no such result.
        """
        result = self._runs.get(_key(run))
        if result is not None:
            try:
                pt.check_matches(template, result, "a run")
            except ValueError as error:
                raise InputError(f"{self._path}: damaged ({error}); delete it, then its runs are made again") from None
        return result

    def add(self, run: dict[str, Any], result: dict[str, Any]) -> None:
        """Keep a result: finite numbers, text, tensors, lists and dictionaries of them; on disk when this returns."""
        try:
            pt.check_matches(result, result, "a run")
        except ValueError as error:
            raise InputError(f"{self._path}: a result cannot be kept ({error})") from None
        self._runs[_key(run)] = result
        head = {"format": FORMAT, "version": pt.VERSION, "code": self._code}
        pt.save(head | {"runs": self._runs}, self._path)


def _key(run: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()


def code_fingerprint(*scripts: str) -> str:
    """sha256 of scripts and of maskbench: what an edited program makes is another run.

    Args:
        scripts: ``__file__`` of each.
    """
    digest = hashlib.sha256()
    for path in [*map(Path, scripts), *sorted(_PACKAGE.rglob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
