"""What is printed for people."""

import sys


def printable(text: str) -> str:
    """What standard output's encoding lacks is escaped: a file's name may hold any bytes."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
