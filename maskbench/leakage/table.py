"""The table ``audit.csv``, and what its rows say."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from maskbench.data.masked_set import KEYED
from maskbench.leakage import plan, scores
from maskbench.leakage.controls import CONTROLS
from maskbench.storage.tables import Row

Made = TypeVar("Made")
COLUMNS = ("mask", "images", "threat", "attack", "pairs", "measure", "mean", "low", "high")
WITHOUT_ENCODER = ("masks-only", "known-pairs")
CHOOSERS = ("oracle", *WITHOUT_ENCODER)  # who may have images of their choice masked may choose photographs, or none


class Table:
    """The rows of ``audit.csv``; figures are of the first set of images unless a set is named."""

    def __init__(self, rows: Sequence[Row]):
        names = ("mask", "images", "threat", "attack", "measure")
        self.cells = {(*(row[name] for name in names), int(row["pairs"])): row for row in rows}
        self.masks, self.sets, self.threats = (list(dict.fromkeys(row[name] for row in rows)) for name in names[:3])
        self.pairs = sorted({int(row["pairs"]) for row in rows if row["threat"] in WITHOUT_ENCODER})
        self.all_pairs = sorted({int(row["pairs"]) for row in rows})  # also those that a stolen encoder makes
        self.fewest = min((k for k in self.pairs if k), default=0)  # but none
        self.few, self.many = (max(k for k in self.pairs if k <= most) for most in (100, 1000))

    def value(self, mask: str, threat: str, attack: str, measure: str, pairs: int, images: str = "") -> float | None:
        row = self.cells.get((mask, images or self.sets[0], threat, attack, measure, pairs))
        return None if row is None else float(row["mean"])

    def of_kind(self, kind: scores.Kind, mask: str, threat: str, images: str, pairs: int) -> list[Row]:
        """The row of each attack of a kind, by its main measure."""
        keys = [(mask, images, threat, attack, kind.main, pairs) for attack in plan.named(kind)]
        return [self.cells[key] for key in keys if key in self.cells]

    def chosen(
        self,
        kind: scores.Kind,
        mask: str,
        pairs: int,
        threats: Sequence[str] = WITHOUT_ENCODER,
        images: str = "",
        others: Sequence[str] = (),
    ) -> dict[str, Row]:
        """The attack of a kind that does best with so many pairs or fewer: its rows by measure; empty without any.

        It is chosen by its ``choice``, which is of other images than its other measures; of equals, the one with most
        pairs. ``others`` are rows that compete although they are no attacks.
        """
        attacks = [*plan.named(kind), *others]
        found = self._means("choice", attacks, mask, pairs, threats, images)
        if not found:
            return {}
        best = max(found, key=lambda key: (found[key], key[5]))
        return {measure: self.cells[*best[:4], measure, best[5]] for measure in kind.measures}

    def best_made(
        self, made: Mapping[tuple[str, str, str, int], Made], mask: str, pairs: int, images: str, **which: Sequence[str]
    ) -> tuple[Row, Made]:
        """The best reconstruction's row of SSIM, see :meth:`chosen`, and what that attack made.

        Args:
            made: by mask, threat, attack and pairs.
        """
        row = self.chosen(scores.RECONSTRUCTION, mask, pairs, images=images, **which)["ssim"]
        return row, made[mask, row["threat"], row["attack"], int(row["pairs"])]

    def control(self, kind: scores.Kind, images: str) -> dict[str, Row]:
        """What a kind's control finds, by measure, whatever the mask; empty where it was not measured."""
        key = self.masks[0], images, "masks-only", CONTROLS[kind].name
        rows = {measure: self.cells.get((*key, measure, 0)) for measure in kind.figures}
        return rows if all(rows.values()) else {}

    def best(self, mask: str, pairs: int, threats: Sequence[str] = WITHOUT_ENCODER) -> float:
        """SSIM of the best attack with so many pairs or fewer."""
        return self._main(scores.RECONSTRUCTION, mask, pairs, threats)

    def best_reid(self, mask: str, pairs: int, threats: Sequence[str] = WITHOUT_ENCODER) -> float:
        """Share of images that the best attack re-identifies at the first guess, with so many pairs or fewer."""
        return self._main(scores.REIDENTIFICATION, mask, pairs, threats)

    def _main(self, kind: scores.Kind, mask: str, pairs: int, threats: Sequence[str]) -> float:
        return float(self.chosen(kind, mask, pairs, threats)[kind.main]["mean"])

    def nearest(self, mask: str, pairs: int, threats: Sequence[str] = WITHOUT_ENCODER) -> float | None:
        """The least learned distance of all reconstructions with so many pairs or fewer."""
        attacks = plan.named(scores.RECONSTRUCTION)
        return min(self._means("perceptual", attacks, mask, pairs, threats).values(), default=None)

    def _means(
        self, measure: str, attacks: Sequence[str], mask: str, pairs: int, threats: Sequence[str], images: str = ""
    ) -> dict[tuple, float]:
        """A measure of each of the attacks with so many pairs or fewer, by cell."""
        return {
            key: float(row["mean"])
            for key, row in self.cells.items()
            if key[:2] == (mask, images or self.sets[0])
            and key[2] in threats
            and key[3] in attacks
            and key[4] == measure
            and key[5] <= pairs
        }

    def anchor(self, name: str, mask: str = "aae", measure: str = "ssim") -> float | None:
        return self.value(mask, "masks-only", name, measure, 0)

    def with_encoder(self, mask: str) -> float:
        """SSIM of the best attack of somebody who has the encoder, but of keyed masks neither key nor pairs."""
        return self.best(mask, self.most_with_encoder(mask), ("stolen-encoder",))

    def most_with_encoder(self, mask: str) -> int:
        """Pairs that who has the encoder makes; of keyed masks none."""
        return 0 if mask.endswith(KEYED) else self.all_pairs[-1]


def with_interval(row: Row) -> str:
    """A row's figure and its interval, for a page."""
    return f"{float(row['mean']):.3f} ({float(row['low']):.3f} to {float(row['high']):.3f})"
