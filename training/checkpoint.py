"""Checkpoints: everything that a run needs to go on exactly. They are resumed, never served; a release is."""

import os
from pathlib import Path
from typing import Any

import torch

from restoration.errors import CheckpointError

NAME = "checkpoint.pt"
CONTENTS = frozenset(
    {"recipe", "step", "trained_seconds", "generator", "average", "discriminator", "optimisers", "random_state"}
)


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write beside, sync, rename: a run that is killed while it writes keeps the checkpoint before.

    Raises CheckpointError where it cannot be written.
    """
    beside = folder / f".{NAME}.incoming"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(folder / NAME)
    except OSError as error:
        raise CheckpointError(
            f"{folder / NAME} cannot be written ({error.strerror or error}); make room or set the folder's rights, and "
            "go on with --resume from the one before"
        ) from error


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Only tensors and plain values are read, no code. Raises CheckpointError."""
    path = folder / NAME
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; name the folder of a run that has saved a checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files, with pages of advice
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {reason}); start the run anew"
        ) from error
    if not isinstance(state, dict) or not state.keys() >= CONTENTS:
        raise CheckpointError(f"{path} is not a checkpoint of this trainer; name the folder of a run")
    return state
