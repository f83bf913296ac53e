"""How presets, durations and scores are written, on the pages and on the screen."""

from maskbench.classification.scores import standard_error
from maskbench.models import PRESETS
from maskbench.reproduce.plan import NUMBERS
from maskbench.storage.tables import Row

WORSE = " ▼"  # than the paper's, or than the target


def title(name: str) -> str:
    """A preset or baseline as a column's name; the preset paper is not the paper."""
    return f"preset {name}" if name in PRESETS else f"PCA, {NUMBERS} numbers" if name == "pca" else name


def duration(seconds: float) -> str:
    """Hours and minutes, or seconds where it is less than a minute."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def mean_and_error(row: Row) -> str:
    """Mean and standard error over the draws; one draw has none."""
    mean, draws = float(row["mean"]), int(row["draws"])
    return f"{mean:.3f} ± {standard_error(float(row['std']), draws):.3f}" if draws > 1 else f"{mean:.3f}"


def worse(is_worse: bool) -> str:
    """The mark of a number that falls short."""
    return WORSE if is_worse else ""
