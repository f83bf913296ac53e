"""What benchmarks of an owner's encoder measure: what masks show of pictures, and what classifiers make of them.

The attacker is that of the audit, whatever the owner does; the images and how they are judged are the audit's, too.
"""

from pathlib import Path

import common
import torch

from classify import mean_accuracies
from maskbench.data import datasets
from maskbench.data.image_quality import similarity
from maskbench.leakage import scores
from maskbench.leakage.attacks.alignment import similar_from_guessed_pairs
from maskbench.leakage.audit import load_images, load_instances
from maskbench.leakage.settings import Settings
from maskbench.leakage.threats import THREATS
from maskbench.leakage.world import AsReleased, Victim, World, reading
from maskbench.masking import Autoencoder
from maskbench.masking.shards import Shard, Work
from maskbench.storage import tables

KNOWN = (("masks-only", 0), ("known-pairs", 1000), ("known-pairs", 10_000))
CLASSES, DRAWS, SEED = (2, 3, 4), 10, 11  # draws that are not Table 1's
COLUMNS = ("masks only", "1000 pairs", "10000 pairs", *(f"mlp_{count}" for count in CLASSES))


class Trial:
    """What owners are tried on: instances 0, the owner's, and 1, the attacker's; images of CIFAR-10 and CIFAR-100.

    Attributes:
        trained: instance 0.
        images: of the audit.
    """

    def __init__(self, models: Path, data_dir: Path):
        self.trained, self._another, self._attacker = load_instances(models / "0", models / "1")
        settings = Settings("cifar10", "cifar100", None, 0, models, (), data_dir, 0, False)
        sizes = self.trained.image_size, sum(self.trained.widths)
        self.images, self._private = load_images(settings, *sizes)

    def victim(self, owner: Autoencoder, as_released: bool = False) -> Victim:
        """An owner under attack; ``as_released`` where there is no contrast that the attacker could undo."""
        victim = World(self.images, owner, self._another, self._attacker, bytes(32), 0).victim("aae")
        if as_released:
            victim.encode = reading(owner, AsReleased())
        return victim

    def measure(self, victim: Victim) -> list[float]:
        """``COLUMNS``: SSIM of ``ssim-guessed-pairs`` on CIFAR-10, and accuracies of the MLP on CIFAR-100."""
        world, ssim = victim.world, []
        judged = world.judged[world.first]
        asked = ~scores.chooses(len(judged))
        for threat, count in KNOWN:
            rebuilt = similar_from_guessed_pairs(THREATS[threat].knowledge(world, victim, count))[world.first]
            ssim.append(similarity(rebuilt, judged)[asked].mean().item())
        work = Work(world.owner, self._private, *datasets.labelled_split(self._private, None))
        masked = Shard(work, 0).mask()
        return ssim + [mean_accuracies(masked, ["mlp"], count, DRAWS, SEED)["mlp"][0] for count in CLASSES]


class Table:
    """Rows that are printed as they are made, and kept in a file of ``results/``.

    Args:
        columns: the first ones are counts, and name the row.
        names: how many of them do.
    """

    def __init__(self, columns: tuple[str, ...], names: int):
        self.columns, self.names, self.rows = columns, names, []
        common.begin_table(columns, torch.device("cpu"))

    def add(self, names: list[int], figures: list[float]) -> None:
        self.rows.append([*names, *figures])
        print(tables.markdown_line([*map(str, names), *(f"{number:.3f}" for number in figures)]), flush=True)

    def save(self, path: Path) -> None:
        """Write the rows, in order; others that the file has in the same columns stay."""
        found = tables.read(path) if path.exists() else []
        before = [list(row.values()) for row in found if tuple(row) == self.columns]
        mine = {tuple(map(str, row[: self.names])) for row in self.rows}
        every = self.rows + [row for row in before if tuple(row[: self.names]) not in mine]
        tables.write_csv(path, self.columns, sorted(every, key=lambda row: [int(name) for name in row[: self.names]]))
