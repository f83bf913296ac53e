"""A masked set for a DataLoader."""

from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from maskbench.data import masked_set
from maskbench.data.masked_set import MaskedSet


class MaskedDataset(Dataset):
    """Pairs of a masked vector and its label, float32 ``[G + K]`` and an int64 scalar.

    Args:
        data: a masked set, or the path of its file or of one of its shards.
        part: ``train``, ``validation`` or ``test``, see :meth:`MaskedSet.rows`.

    Raises:
        InputError: the file is not a masked one.
    """

    def __init__(self, data: MaskedSet | Path | str, part: str):
        self._data = data if isinstance(data, MaskedSet) else masked_set.load(Path(data))
        self._rows = self._data.rows(part)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= number < len(self):
            raise IndexError(f"{number} of {len(self)} rows")
        row = self._rows[number % len(self)][None]
        return self._data.features(row)[0], self._data.labels[row[0]]

    def __getitems__(self, numbers: list[int]) -> list[tuple[Tensor, Tensor]]:
        """A whole mini-batch: of shards, every file is opened once for it."""
        rows = self._rows[numbers]
        return list(zip(self._data.features(rows), self._data.labels[rows], strict=True))
