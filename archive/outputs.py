"""The files that come of a photo, in the destination and among the damage maps: which are ours, written, and removed.

What is ours only the journal knows: it has the sha256 of each file that a run wrote. No other is ever replaced.
"""

import hashlib

from archive.errors import PhotoFailed
from archive.trees import Tree


def damage_map_path(path: str) -> str:
    return f"{path}.png"


def expect_ours(tree: Tree, path: str, ours_sha256: str | None) -> None:
    """Raises PhotoFailed if there is a file, and none of ours."""
    try:
        is_taken = ours_sha256 is None and tree.num_bytes(path) is not None
    except OSError as error:
        raise PhotoFailed("unwritable", explain(error)) from error
    if is_taken:
        raise PhotoFailed(
            "name-taken", f"{tree.address} holds {path}, which no run with this journal wrote; move it away"
        )


def put(tree: Tree, path: str, content: bytes | None, ours_sha256: str | None) -> None:
    """Writes it; where there is none, removes the file of ours that is there.

    Raises OSError, and PhotoFailed for what is to be removed and is not as it was written.
    """
    if content is not None:
        tree.write(path, content)
    elif ours_sha256 is not None:
        remove_ours(tree, path, ours_sha256)


def remove_ours(tree: Tree, path: str, ours_sha256: str) -> None:
    """See `put`."""
    try:
        found = sha256_of(tree.read(path))
    except FileNotFoundError:
        return
    if found != ours_sha256:
        raise PhotoFailed(
            "changed-since",
            f"{tree.address} holds {path} of an earlier run, which belongs there no more, but is not as that run wrote "
            "it; move it away",
        )
    tree.remove(path)


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def explain(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
