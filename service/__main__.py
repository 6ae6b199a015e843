"""`python -m service`: serve with the settings from the environment. Exit status 2 for a wrong one.

`python -m service keys add NAME`: make an API key.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
from pydantic import ValidationError

from restoration.device import choose_device, choose_precision
from restoration.errors import InvalidOption
from service.errors import KeysInvalid
from service.keys_command import KEYS_FILE_VARIABLE, keys_command
from service.logs import configure_logs
from service.releases import open_store_of
from service.server import serve
from service.settings import ENV_PREFIX, Settings, unknown_settings

log = structlog.get_logger(__name__)

EXIT_WRONG_USE = 2
USAGE = """\
usage: python -m service                  serve, with the settings from the environment; see docs/configuration.md
       python -m service keys add NAME    make an API key; see docs/security.md"""


def main(arguments: Sequence[str] = ()) -> int:
    match arguments:
        case []:
            return serve_with_settings()
        case ["keys", *rest]:
            return keys_command(rest)
        case ["-h" | "--help"]:
            print(USAGE)
            return 0
    print(f"unknown argument {arguments[0]}\n{USAGE}", file=sys.stderr)
    return EXIT_WRONG_USE


def serve_with_settings() -> int:
    try:
        settings = Settings()
        with naming("DEVICE"):
            device = choose_device(settings.device)
        with naming("PRECISION"):
            choose_precision(device, settings.precision)
        with naming("MODEL_STORE"):
            open_store_of(settings)
    except ValidationError as error:
        return refuse_to_start(explain_validation(error))
    except InvalidOption as error:
        return refuse_to_start([str(error)])
    configure_logs(settings)
    for name in unknown_settings(os.environ):
        log.warning("unknown setting ignored; see docs/configuration.md", name=name)
    try:
        serve(settings)
    except KeysInvalid as error:
        return refuse_to_start([f"{KEYS_FILE_VARIABLE}: {error}; make a key: python -m service keys add NAME"])
    except InvalidOption as error:
        return refuse_to_start([str(error)])
    return 0


@contextmanager
def naming(setting: str) -> Iterator[None]:
    """Raises InvalidOption anew, with the variable that is to blame."""
    try:
        yield
    except InvalidOption as error:
        raise InvalidOption(f"{ENV_PREFIX}{setting}: {error}") from error


def refuse_to_start(reasons: list[str]) -> int:
    for reason in reasons:
        print(f"cannot start: {reason}", file=sys.stderr)
    print("docs/configuration.md lists every setting", file=sys.stderr)
    return EXIT_WRONG_USE


def explain_validation(error: ValidationError, prefix: str = ENV_PREFIX) -> list[str]:
    """A line for each wrong setting: its variable, its value, what is wrong with it."""
    reasons = []
    for item in error.errors():
        if item["loc"]:
            reasons.append(f"{prefix}{str(item['loc'][0]).upper()}={item['input']}: {item['msg']}")
        else:
            reasons.append(item["msg"].removeprefix("Value error, "))
    return reasons


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
