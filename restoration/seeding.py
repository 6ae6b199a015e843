"""`python -m restoration.seeding STORE`: bring the releases that this version ships into a store that is kept.

Containers run it before the service: their store is a volume, which a newer image leaves as it is. A release is copied
only if its number is higher than any that the store ever held: what was trained there, or removed there, stays so.
"""

import argparse
import sys
from pathlib import Path

from restoration.errors import RestorationError
from restoration.publishing import copy_release
from restoration.release import list_releases, read_release

SHIPPED = Path(__file__).resolve().parent.parent / "model_store"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m restoration.seeding", description=__doc__)
    parser.add_argument("store", type=Path, help="the folder of releases to copy into; it is made if it is missing")
    parser.add_argument("--shipped", type=Path, default=SHIPPED, help="the folder of releases to copy from")
    arguments = parser.parse_args()
    try:
        copied = seed_store(arguments.store, arguments.shipped)
    except (RestorationError, OSError) as error:
        print(f"cannot seed {arguments.store}: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.store}: {'copied ' + ', '.join(copied) if copied else 'nothing to copy'}")
    return 0


def seed_store(store: Path, shipped: Path) -> list[str]:
    """Returns the versions that were copied, oldest first. Raises RestorationError for a shipped release that is not
    whole, OSError where the store cannot be written."""
    return [version for version in list_releases(shipped) if copy_release(read_release(shipped, version), store)]


if __name__ == "__main__":
    sys.exit(main())
