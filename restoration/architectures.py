"""The generators by name."""

import dataclasses
from collections.abc import Mapping

from restoration.errors import ReleaseInvalid
from restoration.generator import DetectFill, DetectFillConfig, Generator
from restoration.pix2pix import Pix2Pix, Pix2PixConfig

ARCHITECTURES: dict[str, tuple[type[Generator], type]] = {
    DetectFill.architecture: (DetectFill, DetectFillConfig),
    Pix2Pix.architecture: (Pix2Pix, Pix2PixConfig),
}


def build_generator(architecture: str, config: Mapping[str, object]) -> Generator:
    """Build an untrained generator from its name and config as a manifest holds them.

    Raises ReleaseInvalid for a name or a config field that this version does not know.
    """
    if architecture not in ARCHITECTURES:
        raise ReleaseInvalid(f"architecture {architecture!r} is not known here; known are {', '.join(ARCHITECTURES)}")
    generator_type, config_type = ARCHITECTURES[architecture]
    known = {field.name for field in dataclasses.fields(config_type)}
    if unknown := sorted(set(config) - known):
        raise ReleaseInvalid(
            f"{architecture} config has unknown fields {', '.join(unknown)}; known are {sorted(known)}"
        )
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    try:
        return generator_type(config_type(**values))
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        raise ReleaseInvalid(f"{architecture} cannot be built from config {dict(config)}: {error}") from error


def config_of(generator: Generator) -> dict[str, object]:
    """The config as a manifest holds it: plain JSON values."""
    values: dict[str, object] = dataclasses.asdict(generator.config)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
