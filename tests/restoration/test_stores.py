"""Releases from the S3 API on loopback, over a line that breaks."""

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from restoration.errors import InvalidOption, NoRelease, ReleaseExists, ReleaseInvalid, StoreUnreachable
from restoration.remote_store import RemoteStore
from restoration.stores import FolderStore, MirroredStore, Store, address_of, open_store

from ..s3 import Cable, cable_to_s3, empty_bucket, needs_s3
from ..service.serving import publish

URL = "s3://archive/releases"


@pytest.fixture(scope="module")
def cable() -> Iterator[Cable]:
    with cable_to_s3() as cable:
        yield cable


@pytest.fixture
def remote(cable: Cable) -> RemoteStore:
    cable.mend()
    empty_bucket(cable, "archive")
    return RemoteStore(URL)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three releases."""
    store = tmp_path_factory.mktemp("published")
    for _ in range(3):
        publish(store)
    return store


@pytest.fixture
def mirror(remote: RemoteStore, tmp_path: Path) -> Store:
    return open_store(URL, copies=tmp_path / "copies", num_copies=2)


def upload(remote: RemoteStore, published: Path, *versions: str) -> None:
    for version in versions:
        remote.upload(FolderStore(published).read(version))


def copies_in(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.rglob("manifest.json"))


@needs_s3
def test_an_uploaded_release_is_read_from_a_copy_with_the_same_bytes(remote, mirror, published):
    assert mirror.versions() == []
    upload(remote, published, "0001")
    mirror.refresh()
    assert mirror.versions() == ["0001"]
    copy = mirror.read("0001")
    for name in copy.manifest.files:
        assert copy.read(name) == (published / "0001" / name).read_bytes()


@needs_s3
def test_a_number_is_given_once_even_when_its_release_is_gone(remote, published, cable):
    upload(remote, published, "0002")
    with pytest.raises(ReleaseExists, match="somebody else has just published release 0002"):
        upload(remote, published, "0002")
    remote._files.rm("archive/releases/0002", recursive=True)
    assert (remote.list_releases(), remote.highest_number()) == ({}, 2)


@needs_s3
def test_an_upload_that_breaks_off_leaves_no_release_to_be_seen(remote, published, cable, monkeypatch):
    put = remote._files.put_file

    def cut_before_the_last(local: str, path: str) -> None:
        if path.endswith("golden/restored.png"):
            cable.break_after(0)
        put(local, path)

    monkeypatch.setattr(remote._files, "put_file", cut_before_the_last)
    with pytest.raises(StoreUnreachable, match="take release 0001"):
        upload(remote, published, "0001")
    cable.mend()
    assert (remote.list_releases(), remote.highest_number()) == ({}, 1)


@needs_s3
def test_a_store_that_breaks_off_in_the_middle_leaves_no_copy_and_is_gone_on_with(remote, mirror, published, cable):
    upload(remote, published, "0001")
    mirror.refresh()
    cable.break_after(9_000)  # in the weights
    with pytest.raises(StoreUnreachable, match=r"could not give 0001/generator.safetensors"):
        mirror.read("0001")
    assert cable.num_cuts > 0
    assert not (mirror._folder / "0001").exists()
    cable.mend()
    assert mirror.read("0001").path == mirror._folder / "0001"


@needs_s3
def test_what_was_copied_is_served_while_the_store_does_not_answer(remote, mirror, published, cable, tmp_path):
    upload(remote, published, "0001")
    mirror.refresh()
    mirror.read("0001")
    cable.break_after(0)
    started_anew = open_store(URL, copies=tmp_path / "copies", num_copies=2)
    with pytest.raises(StoreUnreachable, match=r"s3://archive/releases could not be listed"):
        started_anew.refresh()
    assert started_anew.versions() == ["0001"]
    assert started_anew.read("0001").version == "0001"


@needs_s3
@pytest.mark.parametrize("name", ["generator.safetensors", "README.md"])
def test_files_that_the_manifest_does_not_mean_are_refused(remote, mirror, published, name):
    upload(remote, published, "0001")
    for content, message in ((b"short", "bytes in s3://"), (None, "sha256")):
        intact = (published / "0001" / name).read_bytes()
        remote._files.pipe_file(f"archive/releases/0001/{name}", content or intact[:-1] + b"\x55")
        mirror.refresh()
        with pytest.raises(ReleaseInvalid, match=f"{name}.*{message}"):
            mirror.read("0001")
    assert not (mirror._folder / "0001").exists()


@needs_s3
def test_a_file_that_the_manifest_lists_and_nobody_uploaded_is_named(remote, mirror, published):
    upload(remote, published, "0001")
    remote._files.rm("archive/releases/0001/README.md")
    mirror.refresh()
    with pytest.raises(ReleaseInvalid, match=r"has no README.md; publish it again"):
        mirror.read("0001")


@needs_s3
def test_a_damaged_copy_is_fetched_again(remote, mirror, published):
    upload(remote, published, "0001")
    weights = mirror.read("0001").path / "generator.safetensors"
    weights.write_bytes(b"gone bad")
    assert mirror.read("0001").read("generator.safetensors") == (published / "0001" / weights.name).read_bytes()


@needs_s3
def test_a_copy_of_another_release_of_that_number_is_replaced(remote, mirror, published):
    upload(remote, published, "0001")
    mirror.read("0001")
    manifest = json.loads((published / "0001" / "manifest.json").read_text())
    changed = json.dumps({**manifest, "code_revision": "another"}).encode()
    remote._files.pipe_file("archive/releases/0001/manifest.json", changed)
    mirror.refresh()
    assert mirror.read("0001").manifest.code_revision == "another"


@needs_s3
def test_no_more_copies_are_kept_than_asked_for(remote, mirror, published, tmp_path):
    upload(remote, published, "0001", "0002", "0003")
    for version in ("0001", "0002", "0003"):
        mirror.read(version)
    assert copies_in(tmp_path / "copies") == ["0002", "0003"]
    mirror.read("0001")
    assert copies_in(tmp_path / "copies") == ["0001", "0003"]


@needs_s3
def test_a_release_that_was_withdrawn_is_no_longer_offered(remote, mirror, published):
    upload(remote, published, "0001")
    mirror.refresh()
    mirror.read("0001")
    remote._files.rm("archive/releases/0001", recursive=True)
    mirror.refresh()
    assert mirror.versions() == []


def test_any_file_system_of_fsspec_will_do(published, tmp_path):
    shutil.copytree(published / "0002", tmp_path / "elsewhere" / "0002")
    store = open_store((tmp_path / "elsewhere").as_uri(), copies=tmp_path / "copies", num_copies=2)
    assert isinstance(store, MirroredStore)
    store.refresh()
    assert store.versions() == ["0002"]
    assert store.read("0002").read("README.md") == (published / "0002" / "README.md").read_bytes()
    remote = RemoteStore((tmp_path / "elsewhere").as_uri())
    remote.upload(FolderStore(published).read("0003"))
    assert list(remote.list_releases()) == ["0002", "0003"]


@pytest.fixture
def elsewhere(published: Path, tmp_path: Path) -> Path:
    """A folder that is looked at as a store elsewhere, with release 0002."""
    shutil.copytree(published / "0002", tmp_path / "elsewhere" / "0002")
    return tmp_path / "elsewhere"


@pytest.fixture
def mirror_of_folder(elsewhere: Path, tmp_path: Path) -> Store:
    return open_store(elsewhere.as_uri(), copies=tmp_path / "copies", num_copies=2)


@pytest.mark.parametrize("version", ["0042", "../elsewhere/0002", "", "2"])
def test_a_number_that_the_store_lacks_is_no_release(mirror_of_folder, version):
    with pytest.raises(NoRelease, match=f"holds no release '?{version}"):
        mirror_of_folder.read(version)


def test_a_manifest_that_lists_a_folder_as_a_file_is_refused_and_mended_by_another(mirror_of_folder, elsewhere):
    path = elsewhere / "0002" / "manifest.json"
    intact = path.read_bytes()
    manifest = json.loads(intact)
    manifest["files"]["golden"] = manifest["files"]["README.md"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ReleaseInvalid, match="'golden' is a file and the folder of 'golden/"):
        mirror_of_folder.read("0002")
    path.write_bytes(intact)
    assert mirror_of_folder.read("0002").version == "0002"


def test_what_another_manifest_left_half_fetched_is_in_nobody_s_way(mirror_of_folder, elsewhere):
    left = mirror_of_folder._folder / ".incoming" / "0002"
    left.mkdir(parents=True)
    (left / "manifest.json").write_text("another")
    (left / "golden").write_text("a file")
    assert mirror_of_folder.read("0002").version == "0002"


def test_a_folder_that_can_hold_no_copies_is_named(mirror_of_folder):
    mirror_of_folder._folder.parent.mkdir()
    mirror_of_folder._folder.symlink_to("/dev/full")
    with pytest.raises(StoreUnreachable, match=r"no copy of .* can be kept in .*copies"):
        mirror_of_folder.read("0002")


def test_a_url_that_nothing_installed_can_open_says_what_to_install():
    with pytest.raises(InvalidOption, match=r"a model store at nosuch://... cannot be opened .*pip install"):
        RemoteStore("nosuch://key:secret@host/releases")


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="s3fs is installed")
def test_without_s3fs_the_extra_is_named():
    with pytest.raises(InvalidOption, match=r"pip install 'photo-restoration\[s3\]'"):
        RemoteStore(URL)


def test_an_address_is_a_url_or_a_folder(tmp_path):
    assert address_of("s3://bucket/releases") == "s3://bucket/releases"
    assert address_of(str(tmp_path)) == tmp_path
    assert isinstance(open_store(tmp_path, copies=tmp_path, num_copies=2), FolderStore)
