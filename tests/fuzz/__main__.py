"""`python -m tests.fuzz FOLDER -max_total_time=600`: fuzz the decoders, guided by coverage, and keep what is new.

Needs the extra `fuzzing` (atheris). Further arguments are libFuzzer's. FOLDER fills with what reaches new code; a file
`crash-...`, `timeout-...` or `oom-...` is a fault. `python -m tests.fuzz FOLDER --pack` writes the corpus of the tests.
"""

import sys
import zipfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["restoration"]):
    from tests.fuzz.decoders import exercise, small_photos, with_true_checksums

CORPUS = Path(__file__).with_name("corpus.zip")
MOST_BYTES = 4_000
"""Of one file; what is larger reaches nothing that a smaller one does not."""
MOST_PACKED_BYTES = 180_000


def mutate(encoded: bytes, max_size: int, seed: int) -> bytes:
    """libFuzzer's own mutations; without true checksums none would get into a PNG."""
    return with_true_checksums(atheris.Mutate(encoded, max_size))


def fuzz(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, photo in enumerate(small_photos()):
        (folder / f"seed-{index:02}").write_bytes(photo)
    arguments = [sys.argv[0], str(folder), "-timeout=20", "-rss_limit_mb=3000", "-max_len=20000", *sys.argv[2:]]
    atheris.Setup(arguments, exercise, custom_mutator=mutate)
    atheris.Fuzz()


def pack(folder: Path) -> None:
    """The smallest first, as many as there is room for, but the seeds, which the tests make anew."""
    found = [path for path in folder.iterdir() if not path.name.startswith("seed-")]
    found = sorted((path for path in found if path.stat().st_size <= MOST_BYTES), key=lambda path: path.stat().st_size)
    with zipfile.ZipFile(CORPUS, "w", zipfile.ZIP_DEFLATED) as corpus:
        packed_bytes = 0
        for path in found:
            packed_bytes += min(path.stat().st_size, 2_000) + 200
            if packed_bytes > MOST_PACKED_BYTES:
                break
            corpus.writestr(zipfile.ZipInfo(path.name), path.read_bytes())


if __name__ == "__main__":
    pack(Path(sys.argv[1])) if sys.argv[2:] == ["--pack"] else fuzz(Path(sys.argv[1]))
