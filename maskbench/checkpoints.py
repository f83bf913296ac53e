"""An autoencoder on disk: the encoder to mask with, the decoder to keep, the checkpoint to resume from."""

from pathlib import Path

from torch import Tensor, nn

from maskbench import files
from maskbench.errors import InputError
from maskbench.models import Decoder, Encoder

ENCODER_FORMAT = "maskbench.encoder"
DECODER_FORMAT = "maskbench.decoder"
CHECKPOINT_FORMAT = "maskbench.checkpoint"


def save_encoder(encoder: Encoder, path: Path) -> str:
    """Write ``encoder.pt``, all that masking needs; returns its fingerprint."""
    state = _on_cpu(encoder)
    content = {"format": ENCODER_FORMAT, "version": files.VERSION, "config": encoder.config}
    files.save(content | {"state_dict": state}, path)
    return files.fingerprint(state)


def save_decoder(decoder: Decoder, encoder_fingerprint: str, path: Path) -> None:
    """Write ``decoder.pt``, the private key (mode 0600), with the fingerprint of the encoder it belongs to."""
    content = {"format": DECODER_FORMAT, "version": files.VERSION, "config": decoder.config}
    files.save(content | {"encoder": encoder_fingerprint, "state_dict": _on_cpu(decoder)}, path, private=True)


def load_encoder(path: Path) -> tuple[Encoder, str]:
    """Read ``encoder.pt``: the encoder, ready to mask (eval mode), and its fingerprint."""
    content = files.load(path, ENCODER_FORMAT)
    encoder = _build(Encoder, content, path)
    return encoder, files.fingerprint(encoder.state_dict())


def load_decoder(path: Path) -> tuple[Decoder, str]:
    """Read ``decoder.pt``: the decoder (eval mode) and the fingerprint of its encoder."""
    content = files.load(path, DECODER_FORMAT)
    return _build(Decoder, content, path), str(content.get("encoder"))


def _on_cpu(module: nn.Module) -> dict[str, Tensor]:
    """The weights, readable on a machine without the GPU they were trained on."""
    return {name: tensor.cpu() for name, tensor in module.state_dict().items()}


def _build(network: type[nn.Module], content: dict, path: Path) -> nn.Module:
    try:
        module = network(**content["config"])
        module.load_state_dict(content["state_dict"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path}: its sizes and weights do not fit together ({error})") from None
    return module.eval()
