"""`python -m tests.fuzz FOLDER -max_total_time=600`: fuzz the decoders, guided by coverage, and keep what is new.

Needs the extra `fuzzing` (atheris). Further arguments are libFuzzer's. FOLDER fills with what reaches new code; a file
`crash-...`, `timeout-...` or `oom-...` is a fault. `python -m tests.fuzz FOLDER --pack` writes the corpus of the tests.
"""

import sys
import zipfile
from pathlib import Path
from types import FrameType
from typing import Any

CORPUS = Path(__file__).with_name("corpus.zip")
FUZZED = str(Path(__file__).parents[2] / "restoration")
MOST_BYTES = 8_000
"""Of one file of the corpus; what is larger reaches little that a smaller one does not."""


def fuzz(folder: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=["restoration"]):
        from tests.fuzz.decoders import exercise, small_photos, with_true_checksums

    def mutate(encoded: bytes, max_size: int, seed: int) -> bytes:
        """libFuzzer's own mutations; without true checksums none would get into a PNG."""
        return with_true_checksums(atheris.Mutate(encoded, max_size))

    folder.mkdir(parents=True, exist_ok=True)
    for index, photo in enumerate(small_photos()):
        (folder / f"seed-{index:02}").write_bytes(photo)
    arguments = [sys.argv[0], str(folder), "-timeout=20", "-rss_limit_mb=3000", "-max_len=20000", *sys.argv[2:]]
    atheris.Setup(arguments, exercise, custom_mutator=mutate)
    atheris.Fuzz()


def pack(folder: Path) -> None:
    """Those files that reach a line which neither the seeds nor a smaller file reach."""
    from tests.fuzz.decoders import small_photos

    seen = set().union(*(lines_of(photo) for photo in small_photos()))
    found = [path for path in folder.iterdir() if not path.name.startswith("seed-")]
    with zipfile.ZipFile(CORPUS, "w", zipfile.ZIP_DEFLATED) as corpus:
        for path in sorted(found, key=lambda path: (path.stat().st_size, path.name)):
            if path.stat().st_size > MOST_BYTES:
                break
            new = lines_of(path.read_bytes()) - seen
            if new:
                seen |= new
                corpus.writestr(zipfile.ZipInfo(path.name), path.read_bytes(), zipfile.ZIP_DEFLATED)


def lines_of(encoded: bytes) -> set[tuple[str, int]]:
    """Which lines of `restoration/` the file runs through."""
    from tests.fuzz.decoders import exercise

    lines: set[tuple[str, int]] = set()

    def note(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(FUZZED):
            return None
        lines.add((frame.f_code.co_filename, frame.f_lineno))
        return note

    sys.settrace(note)
    try:
        exercise(encoded)
    finally:
        sys.settrace(None)
    return lines


if __name__ == "__main__":
    pack(Path(sys.argv[1])) if sys.argv[2:] == ["--pack"] else fuzz(Path(sys.argv[1]))
