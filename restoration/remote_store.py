"""A model store that lies elsewhere: any fsspec URL, such as `s3://bucket/releases`.

It is laid out as a folder of releases is. What an object store lacks is the rename that makes a release appear whole,
and the folder that two cannot both make. So here a release is there once its manifest is, which is written last, and
its number belongs to whoever creates `numbers/0007` first; that file stays when the release goes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec

from restoration.errors import InvalidOption, NoRelease, ReleaseError, ReleaseExists, ReleaseInvalid, StoreUnreachable
from restoration.release import MANIFEST, MAX_MANIFEST_BYTES, Release, is_version

NUMBERS = "numbers"
URL_PATTERN = r"^[a-z][a-z0-9+.-]*://"

Fingerprint = tuple[str, ...]
"""What the store says of each of a release's files: name, size, time or hash. Another one when any was changed."""


class RemoteStore:
    """Credentials and addresses come from where fsspec and its file systems look for them, never from us."""

    def __init__(self, url: str) -> None:
        """Contacts nobody. Raises InvalidOption where the URL's file system is unknown or not installed."""
        try:
            self._files, self._root = fsspec.url_to_fs(url, skip_instance_cache=True)
        except (ImportError, ValueError) as error:
            scheme = url.partition("://")[0]
            raise InvalidOption(
                f"a model store at {scheme}://... cannot be opened ({error}); install what fsspec needs for it, "
                "`pip install 'photo-restoration[s3]'` for s3"
            ) from error

    def __str__(self) -> str:
        """Without user name and password, if the URL held any."""
        return str(self._files.unstrip_protocol(self._root))

    def list_releases(self) -> dict[str, Fingerprint]:
        """Every release that has its manifest. Raises StoreUnreachable."""
        with self._asking("be listed"):
            self._files.invalidate_cache()
            try:
                found = self._files.find(self._root, detail=True)
            except FileNotFoundError:
                return {}
        files: dict[str, list[str]] = {}
        for path, facts in sorted(found.items()):
            version, _, name = path.removeprefix(self._root).lstrip("/").partition("/")
            if is_version(version):
                files.setdefault(version, []).append(f"{name} {facts}")
        return {
            version: tuple(each) for version, each in files.items() if any(f.startswith(f"{MANIFEST} ") for f in each)
        }

    def read_manifest(self, version: str) -> bytes:
        """Not parsed. Raises NoRelease if it is missing, ReleaseInvalid if it is too large, StoreUnreachable."""
        self._expect_size(version, MANIFEST, MAX_MANIFEST_BYTES, is_limit=True)
        with self._asking(f"give {version}/{MANIFEST}"):
            content: bytes = self._files.cat_file(self._path(version, MANIFEST))
        return content

    def download(self, version: str, name: str, size_bytes: int, destination: Path) -> None:
        """Only the size is checked. Raises ReleaseInvalid for another one than expected, StoreUnreachable."""
        self._expect_size(version, name, size_bytes)
        with self._asking(f"give {version}/{name}"):
            self._files.get_file(self._path(version, name), str(destination))

    def highest_number(self) -> int:
        """Of all that are taken, or ever were; 0 if none was. Raises StoreUnreachable."""
        taken = [0, *(int(version) for version in self.list_releases())]
        with self._asking("be listed"):
            try:
                names = self._files.ls(self._path(NUMBERS), detail=False)
            except FileNotFoundError:
                names = []
        return max(taken + [int(number) for path in names if is_version(number := path.rsplit("/", 1)[-1])])

    def upload(self, release: Release) -> None:
        """Put a release that was published in a folder under the same number here, the manifest last.

        Raises ReleaseExists if somebody else has taken the number, StoreUnreachable if it breaks off: the number is
        then used up, and no release is seen.
        """
        self._take_number(release.version)
        with self._asking(f"take release {release.version}"):
            for name in (*release.manifest.files, MANIFEST):
                path = self._path(release.version, name)
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)  # where folders are real
                self._files.put_file(str(release.path / name), path)

    def _take_number(self, version: str) -> None:
        try:
            with self._asking(f"take the number {version}"):
                self._files.makedirs(self._path(NUMBERS), exist_ok=True)
                self._files.pipe_file(self._path(NUMBERS, version), b"", mode="create")
        except StoreUnreachable as error:
            if isinstance(error.__cause__, FileExistsError):
                raise ReleaseExists(
                    f"{self}: somebody else has just published release {version}; compare with it, and publish again"
                ) from error
            raise

    def _expect_size(self, version: str, name: str, size_bytes: int, *, is_limit: bool = False) -> None:
        with self._asking(f"say how large {version}/{name} is"):
            try:
                found = self._files.size(self._path(version, name))
            except FileNotFoundError as error:
                if name == MANIFEST:
                    raise NoRelease(f"{self} holds no release {version}: it has no {MANIFEST}") from error
                raise ReleaseInvalid(f"release {version}: {self} has no {name}; publish it again") from error
        if found > size_bytes or (found < size_bytes and not is_limit):
            raise ReleaseInvalid(
                f"release {version}: {name} has {found:,} bytes in {self}, expected "
                f"{'at most ' if is_limit else ''}{size_bytes:,}; publish it again"
            )

    def _path(self, *parts: str) -> str:
        return "/".join((self._root.rstrip("/"), *parts))

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """File systems raise errors of the libraries that they stand on: OSError, botocore's, aiohttp's."""
        try:
            yield
        except ReleaseError:
            raise
        except Exception as error:
            raise StoreUnreachable(
                f"the model store {self} could not {what} ({type(error).__name__}: {str(error)[:300]}); check the "
                "network and the credentials"
            ) from error
