"""The image's health check: exit status 0 while the service answers /livez, 1 otherwise. Standard library only."""

import os
import sys
from urllib.request import ProxyHandler, build_opener

TIMEOUT_SECONDS = 4
NO_PROXY = build_opener(ProxyHandler({}))
"""Whatever http_proxy says: no proxy leads to this container."""


def main() -> int:
    port = os.environ.get("RESTORE_PORT") or "8000"
    try:
        with NO_PROXY.open(f"http://127.0.0.1:{port}/livez", timeout=TIMEOUT_SECONDS):
            return 0
    except OSError as error:  # no answer, or 503: the device has failed
        print(f"/livez: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
