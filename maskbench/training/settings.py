"""The settings that the weights of a training follow from."""

from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Settings:
    """The flags of ``train_aae.py`` that change the weights: a checkpoint resumes with the same ones only."""

    dataset: str
    limit: int | None
    image_size: int
    gaussian_dim: int
    categories: int
    preset: str
    prior_weight: float
    batch_size: int
    lr: float
    seed: int
    levels: list[float] | None = None
    page: int | None = None
    ground: str = "white"

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of the flags, with underscores."""
        return tuple(field.name for field in fields(cls))

    def as_dict(self) -> dict[str, object]:
        """By name, as a checkpoint holds them."""
        return asdict(self)
