"""The files that come of a photo, in the destination and among the damage maps: which are ours, written, and removed.

What is ours only the journal knows: it has the sha256 of each file that a run wrote. No other is ever replaced or
removed, nor is one of ours that somebody has changed since.
"""

import hashlib
from contextlib import suppress

from archive.errors import PhotoFailed
from archive.trees import Tree

UNKNOWN_SHA256 = ""
"""In place of what a run of journal version 1 may have written: whatever is there is taken for it."""


def damage_map_path(path: str) -> str:
    return f"{path}.png"


def expect_ours(tree: Tree, path: str, ours_sha256: str | None) -> str | None:
    """ours_sha256: as `Record` has it. Returns the sha256 of our file that is there, None if there is no file.

    Raises PhotoFailed if there is a file, and none of ours, or not as it was written.
    """
    try:
        if tree.num_bytes(path) is None:
            return None
        if ours_sha256 is None:
            raise PhotoFailed(
                "name-taken", f"{tree.address} holds {path}, which no run with this journal wrote; move it away"
            )
        found = sha256_of(tree.read(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PhotoFailed(
            "unwritable", f"what {tree.address} holds as {path} cannot be read: {explain(error)}; move it away"
        ) from error
    if ours_sha256 != UNKNOWN_SHA256 and found not in ours_sha256.split():
        raise PhotoFailed(
            "changed-since",
            f"{tree.address} holds {path} of an earlier run, but not as that run wrote it; to have it anew, move it "
            "away, or delete it if it is broken, and run again",
        )
    return found


def either_sha256(*sha256s: str | None) -> str | None:
    """Of a file that may be one or the other, as `Record` has it of a photo that is begun."""
    there_may_be = dict.fromkeys(one for one in sha256s if one is not None)
    return " ".join(there_may_be) if there_may_be else None


def put(tree: Tree, path: str, content: bytes | None, found_sha256: str | None) -> None:
    """Writes it; where there is none, removes the file of ours that was found there. Raises OSError."""
    if content is not None:
        tree.write(path, content)
    elif found_sha256 is not None:
        with suppress(FileNotFoundError):
            tree.remove(path)


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def explain(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
