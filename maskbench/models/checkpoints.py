"""An autoencoder on disk: the encoder to mask with, the decoder to keep, the checkpoint to resume from."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskbench.errors import InputError, require
from maskbench.models.decoder import Decoder
from maskbench.models.encoder import Encoder
from maskbench.storage import pt

ENCODER_FORMAT = "maskbench.encoder"
DECODER_FORMAT = "maskbench.decoder"
CHECKPOINT_FORMAT = "maskbench.checkpoint"
AUTOENCODER_VERSION = 3  # of encoder and decoder; 1 had a category that was not one-hot, 2 no preset in its config
# 1 had no place within an epoch, 2 and 3 the networks of AUTOENCODER_VERSION 1 and 2, 4 other Adams, 5 no pair
CHECKPOINT_VERSION = 6

_LARGEST_SIZE = 2**16  # of anything in a config
_FREE = {"lr": 0, "capturable": False}  # settings of Adam that follow the place in the training, and the device
_ADAM_STATE = {"step", "exp_avg", "exp_avg_sq"}


def save_encoder(encoder: Encoder, path: Path) -> str:
    """Write ``encoder.pt``, all that masking needs; returns its fingerprint."""
    state = _on_cpu(encoder)
    content = {"format": ENCODER_FORMAT, "version": AUTOENCODER_VERSION, "config": encoder.config}
    pt.save(content | {"state_dict": state}, path)
    return pt.fingerprint(state)


def save_decoder(decoder: Decoder, encoder_fingerprint: str, path: Path) -> None:
    """Write ``decoder.pt``, the private key (mode 0600), with the fingerprint of the encoder it belongs to."""
    content = {"format": DECODER_FORMAT, "version": AUTOENCODER_VERSION, "config": decoder.config}
    pt.save(content | {"encoder": encoder_fingerprint, "state_dict": _on_cpu(decoder)}, path, private=True)


def load_encoder(path: Path) -> tuple[Encoder, str]:
    """Read ``encoder.pt``: the encoder, ready to mask (eval mode), and its fingerprint."""
    return parse_encoder(pt.load(path, ENCODER_FORMAT, AUTOENCODER_VERSION), path)


def load_decoder(path: Path) -> tuple[Decoder, str]:
    """Read ``decoder.pt``: the decoder (eval mode) and the fingerprint of its encoder."""
    return parse_decoder(pt.load(path, DECODER_FORMAT, AUTOENCODER_VERSION), path)


def load_pair(folder: Path) -> tuple[Encoder, Decoder, str]:
    """Encoder, decoder and fingerprint of one instance; InputError where the two were not trained together."""
    encoder, fingerprint = load_encoder(folder / "encoder.pt")
    decoder, belongs_to = load_decoder(folder / "decoder.pt")
    if belongs_to != fingerprint:
        raise InputError(f"{folder}: decoder.pt belongs to another encoder than encoder.pt; resume its training")
    if decoder.config != encoder.config:
        raise InputError(f"{folder}: decoder.pt has sizes {decoder.config}, encoder.pt {encoder.config}")
    return encoder, decoder, fingerprint


def parse_encoder(content: dict, path: Path) -> tuple[Encoder, str]:
    """As :func:`load_encoder`, from what :func:`maskbench.storage.pt.load` read; ``path`` is for complaints."""
    encoder = _build(Encoder, content, path)
    return encoder, pt.fingerprint(encoder.state_dict())


def parse_decoder(content: dict, path: Path) -> tuple[Decoder, str]:
    """As :func:`load_decoder`, from what :func:`maskbench.storage.pt.load` read; ``path`` is for complaints."""
    belongs_to = content.get("encoder")
    if not isinstance(belongs_to, str) or not re.fullmatch(r"[0-9a-f]{64}", belongs_to):
        raise InputError(f"{path}: does not say which encoder it belongs to; make it again")
    return _build(Decoder, content, path), belongs_to


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write ``checkpoint.pt`` (mode 0600): what :func:`load_checkpoint` gives back."""
    head = {"format": CHECKPOINT_FORMAT, "version": CHECKPOINT_VERSION}
    pt.save(head | content, path, private=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read ``checkpoint.pt``, everything but its states checked.

    Returns:
        ``settings`` (flags that change the weights), ``environment`` (text by name), ``threads``, ``images`` (sha256 of
        the images trained on), ``history`` (a list of numbers for each finished epoch), and of the epoch under way
        ``losses`` (float32 ``[steps, 4 or 5]``) and ``seconds``. ``states`` of the networks in training and ``pair``,
        of those in ``encoder.pt`` and ``decoder.pt``, are for :func:`restore`.

    Raises:
        InputError: missing, damaged, something else, or of another version.
    """
    content = pt.load(path, CHECKPOINT_FORMAT, CHECKPOINT_VERSION)
    try:
        for name in ("settings", "environment", "states", "pair"):
            require(isinstance(content[name], dict), f"{name} is not a dictionary")
        require(type(content["threads"]) is int and 0 < content["threads"] <= 4096, "an impossible number of threads")
        require(isinstance(content["images"], str), "images is not text")
        pt.check_matches(0.0, content["seconds"], "seconds")
        require(isinstance(content["history"], list), "history is not a list")
        for epoch, row in enumerate(content["history"], 1):
            require(isinstance(row, list), "history is not a list of rows")
            pt.check_matches([epoch, *[0.0] * (len(row) - 1)], row, "history")
            require(row[0] == epoch, "history is out of order")
        losses = content["losses"]
        require(isinstance(losses, Tensor) and losses.dim() == 2, "losses is not a table")
        require(losses.shape[1] in (4, 5), "losses is not a table of a preset")
        pt.check_tensor(losses, losses.shape, torch.float32, "losses")
    except (KeyError, IndexError, ValueError) as error:
        raise damaged(path, str(error)) from None
    return content


def restore(parts: dict[str, Any], states: Any, path: Path) -> None:
    """Load a checkpoint's states into modules and Adam optimisers, checked against these first.

    Args:
        parts: modules and optimisers by name, as they are at the start of a training.
        states: what their ``state_dict()`` gave, by the same names; not trusted.
        path: the checkpoint, for complaints.

    Raises:
        InputError: a state is missing or is not of its part.
    """
    try:
        require(isinstance(states, dict) and states.keys() == parts.keys(), "its parts are not those of this training")
        for name, part in parts.items():
            if isinstance(part, torch.optim.Optimizer):
                _check_optimizer(part, states[name], name)
            else:
                pt.check_matches(part.state_dict(), states[name], name)
            part.load_state_dict(states[name])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise damaged(path, str(error)) from None


def load_in_training(path: Path) -> tuple[Encoder, Decoder, str]:
    """Read networks in training from ``checkpoint.pt``, in eval mode, and the fingerprint of ``encoder.pt`` beside it.

    Those of preset invariant did not forget what the encoder in ``encoder.pt`` forgot.

    Raises:
        InputError: missing, damaged, or within an epoch.
    """
    checkpoint = load_checkpoint(path)
    if len(checkpoint["losses"]) or not checkpoint["history"]:
        raise InputError(f"{path}: is within an epoch; resume its training until the epoch is over")
    try:
        config = {name: checkpoint["settings"][name] for name in ("preset", "image_size", "gaussian_dim", "categories")}
        encoder, decoder = (
            _build(network, {"config": config, "state_dict": checkpoint["states"][name]}, path)
            for name, network in (("encoder", Encoder), ("decoder", Decoder))
        )
        return encoder, decoder, pt.fingerprint(checkpoint["pair"]["encoder"])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise damaged(path, str(error)) from None


def damaged(path: Path, reason: str) -> InputError:
    """What to raise for a checkpoint that cannot be gone on from."""
    return InputError(f"{path}: damaged ({reason}); restore it, or delete the folder to start over")


def _on_cpu(module: nn.Module) -> dict[str, Tensor]:
    """The weights, readable on a machine without the GPU they were trained on."""
    return {name: tensor.cpu() for name, tensor in module.state_dict().items()}


def _build(network: type[nn.Module], content: dict, path: Path) -> nn.Module:
    try:
        config, state = content["config"], content["state_dict"]
        require(isinstance(config, dict), "no sizes")
        for value in config.values():
            fits = isinstance(value, (str, bool)) or (type(value) is int and 0 <= value <= _LARGEST_SIZE)
            require(fits, "an impossible size")
        with torch.device("meta"):  # takes no memory, whatever the sizes claim
            module = network(**config)
        pt.check_matches(module.state_dict(), state, "weights")
        module.load_state_dict(state, assign=True)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).split("\n")[0]  # torch goes on with every signature that there is
        raise InputError(f"{path}: its sizes and weights do not fit together ({reason})") from None
    return module.eval()


def _check_optimizer(optimizer: torch.optim.Optimizer, found: Any, name: str) -> None:
    """Adam's state for every parameter; a fused step reads it without looking at sizes."""
    wanted = optimizer.state_dict()["param_groups"]
    pt.check_matches({"state": {}, "param_groups": wanted}, {**found, "state": {}}, name)
    for group, saved in zip(wanted, found["param_groups"], strict=True):
        require(group | _FREE == saved | _FREE, f"{name}: other settings than this training's")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    require(found["state"].keys() == set(range(len(parameters))), f"{name}: other parameters than this network has")
    for number, parameter in enumerate(parameters):
        state = found["state"][number]
        require(state.keys() == _ADAM_STATE, f"{name}: not Adam's state")
        for key, value in state.items():
            pt.check_tensor(value, () if key == "step" else parameter.shape, torch.float32, f"{name}.{number}.{key}")
            require(key == "exp_avg" or bool((value >= 0).all()), f"{name}.{number}.{key}: negative")
