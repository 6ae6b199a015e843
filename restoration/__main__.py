"""`python -m restoration old.jpg new.jpg`: restore a photo without a server."""

import argparse
import os
import secrets
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from restoration.device import PrecisionChoice
from restoration.errors import InvalidOption, RestorationError
from restoration.photo import Depth, Photo, PhotoFormat, check_writable, decode_photo
from restoration.printing import printable
from restoration.restorer import MODES, RestoreOptions, Restorer
from restoration.stores import FolderStore

FORMATS: tuple[PhotoFormat, ...] = get_args(PhotoFormat)
FORMAT_OF_SUFFIX: dict[str, PhotoFormat] = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".png": "png",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".jp2": "jp2",
    ".jpx": "jp2",
    ".j2k": "j2k",
    ".j2c": "j2k",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 with one line on stderr that says what is wrong."""
    chosen = _parser().parse_args(arguments)
    try:
        print(printable(_restore_file(chosen)))
    except RestorationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m restoration", description="Restore a scanned photograph.")
    parser.add_argument("old", type=Path, help="the damaged photo: JPEG, PNG, WebP, TIFF or JPEG 2000")
    parser.add_argument("new", type=Path, help="where the restored photo goes")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist already")
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="auto",
        help="auto: coarse to fine; tile: full resolution alone; resize: fast preview",
    )
    parser.add_argument(
        "--sensitivity", type=float, default=0.5, help="0 to 1: how readily something counts as damage (default 0.5)"
    )
    parser.add_argument(
        "--denoise",
        type=float,
        default=0.0,
        help="0 to 1: how much of noise, grain and compression artifacts goes, all over the photo (default 0: none)",
    )
    parser.add_argument("--damage-map", type=Path, metavar="PNG", help="also write where damage was found, in grey")
    parser.add_argument("--format", choices=FORMATS, help="default: by the new file's name, else the old photo's")
    parser.add_argument("--quality", type=int, help="1 to 100, of a JPEG or WebP; default: as the old photo's")
    parser.add_argument(
        "--depth", choices=get_args(Depth), default="same", help="8: write 16-bit samples as 8-bit ones"
    )
    parser.add_argument(
        "--no-history", dest="history", action="store_false", help="write no entry into the XMP's history"
    )
    parser.add_argument("--model-store", type=Path, default=Path("model_store"), help="default: ./model_store")
    parser.add_argument("--release", metavar="NUMBER", help="such as 0001; default: the newest that works")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    parser.add_argument("--precision", choices=get_args(PrecisionChoice), default="auto", help="default: auto")
    return parser


def _restore_file(chosen: argparse.Namespace) -> str:
    """Returns the line that says what was done."""
    options = RestoreOptions(mode=chosen.mode, sensitivity=chosen.sensitivity, denoise=chosen.denoise)
    targets = [target for target in (chosen.new, chosen.damage_map) if target is not None]
    for target in targets:
        _expect_free(target, overwrite=chosen.overwrite)
    if chosen.damage_map is not None:
        _expect_apart(chosen.damage_map, chosen.old, chosen.new)
    photo = decode_photo(chosen.old.read_bytes())
    format = _format(chosen, photo)
    check_writable(photo, format=format, quality=chosen.quality, depth=chosen.depth)
    if chosen.damage_map is not None and photo.further_pages:
        raise InvalidOption(f"{chosen.old} has {len(photo.pages)} pages, and a damage map shows one; leave it out")
    restorer = _load_restorer(chosen)
    started_seconds = time.perf_counter()
    restoration = restorer.restore(photo, options)
    encoded = restoration.encode(
        photo,
        format=format,
        quality=chosen.quality,
        depth=chosen.depth,
        history=restoration.history(restorer.release.version) if chosen.history else None,
    )
    seconds = time.perf_counter() - started_seconds
    _write(chosen.new, encoded)
    if chosen.damage_map is not None:
        _write(chosen.damage_map, restoration.encode_damage_map())
    found = f"{restoration.damage_ratio:.2%} of the photo restored" if restoration.damage_ratio else "no damage found"
    if restoration.suspected_from is not None:
        found += f" (from --sensitivity {restoration.suspected_from:g} on something would be restored)"
    denoised = f", denoised by {restoration.denoise:g}" if restoration.denoise else ""
    return f"{chosen.new}: {found}{denoised} with release {restorer.release.version} in {seconds:.1f} seconds"


def _load_restorer(chosen: argparse.Namespace) -> Restorer:
    restorer, refused = Restorer.load_newest(
        FolderStore(chosen.model_store), chosen.release, device=chosen.device, precision=chosen.precision
    )
    for reason in refused.values():
        print(f"warning: {reason}", file=sys.stderr)
    return restorer


def _expect_free(target: Path, *, overwrite: bool) -> None:
    if target.exists() and not target.is_file():
        raise InvalidOption(f"{target} is no regular file, and only such a one is written; choose another name")
    if target.exists() and not overwrite:
        raise InvalidOption(f"{target} exists already; choose another name or add --overwrite")
    folder = (_behind_links(target) if target.is_symlink() else target).parent
    if not folder.is_dir():
        raise InvalidOption(f"the folder {folder} does not exist; create it first")


def _expect_apart(damage_map: Path, *photos: Path) -> None:
    for photo in photos:
        if _is_same_file(damage_map, photo):
            raise InvalidOption(f"the damage map would be written over {photo}; choose another name for --damage-map")


def _is_same_file(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)
    return _behind_links(one) == _behind_links(other)


def _behind_links(path: Path) -> Path:
    """Where a file of this name is, or would be. Unlike `Path.resolve`, no error for links that go round in circles."""
    return Path(os.path.realpath(path))


def _format(chosen: argparse.Namespace, photo: Photo) -> PhotoFormat | None:
    """None for the photo's own, because a photo that needs nothing then comes back byte for byte."""
    wanted: PhotoFormat | None = chosen.format or FORMAT_OF_SUFFIX.get(chosen.new.suffix.lower())
    return None if wanted == photo.format else wanted


def _write(target: Path, content: bytes) -> None:
    """Whole or not at all: written beside, then renamed. A link stays one, and a file keeps its mode."""
    file = _behind_links(target)
    beside = file.with_name(f".{secrets.token_hex(8)}")  # short: the name itself may be as long as one can be
    try:
        with beside.open("xb") as incoming:
            if file.exists():
                beside.chmod(stat.S_IMODE(file.stat().st_mode))
            incoming.write(content)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
