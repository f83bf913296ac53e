"""Say what a file is, whom it may be given to, and which encoder it belongs to.

    python -m maskbench.inspect masked/cifar100.pt
    python -m maskbench.inspect masked/cifar100.pt runs/aae/0/encoder.pt runs/aae/0/decoder.pt   # one family?

Every file is checked as the scripts check it. The fingerprint is the sha256 of the encoder's weights (of a baseline:
of what masked); a masked file, an encoder and a decoder with one fingerprint belong together.
"""

import contextlib
from pathlib import Path

from maskbench.data import masked_set
from maskbench.errors import InputError
from maskbench.leakage import bounds
from maskbench.masking import key
from maskbench.models import checkpoints
from maskbench.runtime import command_line
from maskbench.storage import ledger, pt

_FORMATS = {
    masked_set.FORMAT: "masked set",
    checkpoints.ENCODER_FORMAT: "encoder",
    checkpoints.DECODER_FORMAT: "decoder, the private key",
    checkpoints.CHECKPOINT_FORMAT: "checkpoint of a training, with the private key in it",
    ledger.FORMAT: "finished runs of classify.py or crosspair.py",
}
_NOBODY_OF_KEY = "nobody: with it masks are turned back, or their noise is taken away"
_NOBODY = "nobody: with it masks turn back into pictures"


def main() -> None:
    parser = command_line.ArgumentParser(__doc__)
    parser.add_argument(
        "files", nargs="+", type=command_line.path, metavar="FILE", help=".pt files and keys of maskbench"
    )
    found = [(path, *describe(path)) for path in parser.parse_args().files]
    prints = {path: fingerprint for path, _, fingerprint in found if fingerprint}
    if len(prints) > 1:
        together = len(set(prints.values())) == 1
        print("these belong together" if together else "NOT one family: the fingerprints differ")
    for path, lines, fingerprint in found:
        print(path)
        for name, text in [*lines, ("fingerprint", fingerprint or "none")]:
            print(f"  {name:12} {command_line.printable(text)}")


def describe(path: Path) -> tuple[list[tuple[str, str]], str | None]:
    """Lines ``(name, text)`` about a file, and its encoder's fingerprint where it has one.

    Raises:
        InputError: missing, damaged, not ours, or of another version.
    """
    with contextlib.suppress(InputError, OSError):
        if path.is_file() and key.load(path, private=False):
            return [("is a", "secret key, or the secret of noise"), ("give it to", _NOBODY_OF_KEY)], None
    found = pt.read(path, pt.is_large(path))["format"]
    if found not in _FORMATS:
        raise InputError(f"{path}: holds {pt.shown(found)}, which this maskbench does not know")
    give_to, details, fingerprint = "anyone", [], None
    if found == masked_set.FORMAT:
        data = masked_set.load_file(path)
        fingerprint = data.encoder
        details = [
            (
                "holds",
                f"{len(data.labels):,} vectors of {data.gaussian.shape[1]} + {data.categorical.shape[1]} numbers",
            ),
            ("images", f"{data.dataset}, {len(data.classes)} classes, masked by {data.method}"),
        ]
        give_to = "whom you trust with its labels and with what the mask leaks (see docs/leakage.md)"
        if data.method.endswith(masked_set.KEYED):
            details.append(("key", "turned by a secret key: the decoder alone does not fit"))
        if data.kept is not None:
            details += bounds.facts(data.kept, data.gaussian.shape[1], data.views)
        if data.base_method == "identity":
            give_to = "whom you would give the images: these are their pixels"
    elif found == checkpoints.ENCODER_FORMAT:
        encoder, fingerprint = checkpoints.load_encoder(path)
        details = [("sizes", _sizes(encoder.config))]
        give_to = "who masks images; not to whom you give masks, who could train a decoder with it"
    elif found == checkpoints.DECODER_FORMAT:
        decoder, fingerprint = checkpoints.load_decoder(path)
        details, give_to = [("sizes", _sizes(decoder.config))], _NOBODY
    elif found == checkpoints.CHECKPOINT_FORMAT:
        checkpoint = checkpoints.load_checkpoint(path)
        settings = {name: pt.shown(value) for name, value in checkpoint["settings"].items()}
        place = f"{len(checkpoint['history'])} epochs and {len(checkpoint['losses'])} steps"
        details, give_to = [("trained", place), ("flags", _sizes(settings))], _NOBODY
    else:
        details, give_to = [("holds", f"{len(ledger.Ledger(path))} runs")], "nobody: it serves these scripts alone"
    return [("is a", _FORMATS[found]), *details, ("give it to", give_to)], fingerprint


def _sizes(values: dict) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


if __name__ == "__main__":
    command_line.run(main)
