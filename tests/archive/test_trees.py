"""Listing, choosing, reading and writing, on a disk and in a bucket."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from archive.errors import CollectionError
from archive.trees import BucketTree, LocalTree, Selection, Tree, expect_apart, open_tree

from ..service.serving import encode, grey_photo, scratched_photo
from .conftest import Archive


def expect_readable(path: str, error: OSError) -> None:
    raise AssertionError(f"{path}: {error}")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of an empty bucket, by the S3 API on loopback."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patched:
        for name, value in environment.items():
            patched.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="archive")
        yield "s3://archive"
    server.stop()


@pytest.fixture(params=["folder", "bucket", "memory"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    match request.param:
        case "folder":
            return open_tree(str(tmp_path / "tree"))
        case "bucket":
            return open_tree(f"{request.getfixturevalue('bucket')}/{request.node.name}")
        case _:
            return open_tree(f"memory://{request.node.name}")


def test_what_was_written_is_listed_and_read(tree: Tree) -> None:
    contents = {"a.jpg": b"1", "box/b c.tif": b"22", "box/ä/[%#?*].png": b"333"}
    for path, content in contents.items():
        tree.write(path, content)
    tree.write("a.jpg", b"4444")
    contents["a.jpg"] = b"4444"
    entries = {entry.path: entry for entry in tree.entries(expect_readable)}
    assert {path: tree.read(path) for path in entries} == contents
    assert all(entry.num_bytes == len(contents[path]) for path, entry in entries.items())
    assert tree.num_bytes("a.jpg") == 4
    assert tree.num_bytes("none.jpg") is None
    tree.remove("a.jpg")
    assert tree.num_bytes("a.jpg") is None


def test_the_stamp_changes_when_the_file_does(tree: Tree) -> None:
    tree.write("a.jpg", b"1")
    before = next(tree.entries(expect_readable)).stamp
    assert next(tree.entries(expect_readable)).stamp == before
    tree.write("a.jpg", b"22")
    assert next(tree.entries(expect_readable)).stamp != before


def test_an_address_opens_the_same_tree_again(tree: Tree) -> None:
    tree.write("a.jpg", b"1")
    assert open_tree(tree.address).read("a.jpg") == b"1"


def test_a_folder_is_listed_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(500):
        (tmp_path / f"{number}.jpg").touch()
    num_looked_at = 0
    scandir = os.scandir

    class CountingScan:
        def __init__(self, path: str) -> None:
            self.scan = scandir(path)

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            return self._entries()

        def __exit__(self, *error: object) -> None:
            self.scan.close()

        def _entries(self) -> Iterator[os.DirEntry[str]]:
            nonlocal num_looked_at
            for entry in self.scan:
                num_looked_at += 1
                yield entry

    monkeypatch.setattr("archive.trees.os.scandir", CountingScan)
    tree = open_tree(str(tmp_path))
    assert isinstance(tree, LocalTree)
    assert len(list(islice(tree.entries(expect_readable), 10))) == 10
    assert num_looked_at == 10


def test_a_bucket_is_listed_by_the_page(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client("s3")
    for number in range(1001):
        client.put_object(Bucket="archive", Key=f"many/{number}.jpg", Body=b"1")
    tree = open_tree(f"{bucket}/many")
    assert isinstance(tree, BucketTree)
    calls = []
    call_s3 = tree._files.call_s3
    monkeypatch.setattr(tree._files, "call_s3", lambda *given, **named: calls.append(given) or call_s3(*given, **named))
    entries = tree.entries(expect_readable)
    next(entries)
    assert len(calls) == 1
    assert len({entry.path for entry in entries}) == 1000
    assert len(calls) == 2


def test_a_collection_goes_from_bucket_to_bucket(
    bucket: str, archive: Archive, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scans, restored = open_tree(f"{bucket}/scans"), open_tree(f"{bucket}/restored")
    scans.write("box/a.png", encode(scratched_photo()))
    scans.write("b.png", encode(grey_photo()))
    command = ("restore", scans.address, restored.address, "--server", address)
    code, _, told = archive(*command)
    assert code == 0, told
    assert restored.read("b.png") == scans.read("b.png")
    assert restored.read("box/a.png") != scans.read("box/a.png")
    assert "2 done before" in archive(*command)[2]
    assert "2 checked, 0 not" in archive("verify", restored.address)[1]
    assert archive("report", restored.address)[0] == 0
    assert (tmp_path / "restored-report" / "index.html").exists()


def test_a_folder_that_cannot_be_read_is_told_of_and_the_others_are_listed(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    tree = open_tree(str(tmp_path))
    entries = tree.entries(lambda path, error: untold.append((path, type(error))))
    untold: list[tuple[str, type[OSError]]] = []
    (tmp_path / "gone").mkdir()
    assert next(entries).path == "a.jpg"
    list(entries)
    os.rmdir(tmp_path / "gone")
    missing = open_tree(str(tmp_path / "gone"))
    assert list(missing.entries(lambda path, error: untold.append((path, type(error))))) == []
    assert untold == [("/", FileNotFoundError)]


def test_a_root_that_is_not_there_is_told_of_alike_wherever_it_is(tmp_path: Path) -> None:
    untold: list[tuple[str, type[OSError]]] = []
    for address in (str(tmp_path / "none"), "memory://none"):
        assert list(open_tree(address).entries(lambda path, error: untold.append((path, type(error))))) == []
    assert untold == [("/", FileNotFoundError)] * 2


def test_links_to_folders_are_not_followed_round_in_circles(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "again").symlink_to(tmp_path)
    assert [entry.path for entry in open_tree(str(tmp_path)).entries(expect_readable)] == ["a.jpg"]


def test_links_that_lead_nowhere_are_told_of_one_by_one_and_the_others_are_listed(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.jpg").touch()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "through.jpg").symlink_to("loop.jpg/a.jpg")
    untold: list[str] = []
    entries = open_tree(str(tmp_path)).entries(lambda path, _: untold.append(path))
    assert {entry.path for entry in entries} == {f"{number}.jpg" for number in range(20)}
    assert sorted(untold) == ["loop.jpg", "through.jpg"]


def test_what_vanishes_while_a_folder_is_listed_is_not_there(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.jpg").touch()
    entries = open_tree(str(tmp_path)).entries(expect_readable)
    first = next(entries).path
    left = {first, *sorted(set(os.listdir(tmp_path)) - {first})[:9]}
    for name in set(os.listdir(tmp_path)) - left:
        (tmp_path / name).unlink()
    assert {first, *(entry.path for entry in entries)} == left


def test_the_longest_name_that_a_disk_takes_can_be_written(tmp_path: Path) -> None:
    path = f"box/{'ä' * 125}a.tif"
    tree = open_tree(str(tmp_path))
    tree.write(path, b"1")
    tree.write(path, b"22")
    assert [(entry.path, entry.num_bytes) for entry in tree.entries(expect_readable)] == [(path, 2)]


@pytest.mark.parametrize(
    ("path", "is_taken"),
    [("a.JPG", True), ("box/a.tiff", True), ("a.txt", False), (".hidden.jpg", False), (".trash/a.jpg", False)],
)
def test_photographs_are_taken_by_default(path: str, is_taken: bool) -> None:
    assert Selection().takes(path) == is_taken


def test_patterns_are_of_names_or_of_paths() -> None:
    selection = Selection(include=("*.tif", "box 1/*"), exclude=("*_verso.*", "*/duplicates/*"))
    assert selection.takes("any/where.TIF")
    assert selection.takes("box 1/deep/down.jpg")
    assert not selection.takes("box 2/a.jpg")
    assert not selection.takes("a_verso.tif")
    assert not selection.takes("box 1/duplicates/a.tif")


def test_trees_in_one_another_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for one, other in (("scans", "scans/new"), ("scans/old", "scans"), ("scans", "scans"), ("scans", "link/scans")):
        with pytest.raises(CollectionError, match="lie in one another; they may not"):
            expect_apart(open_tree(str(tmp_path / one)), open_tree(str(tmp_path / other)), "they may not")
    expect_apart(open_tree(str(tmp_path / "scans")), open_tree(str(tmp_path / "scans-restored")), "they may not")


def test_an_address_of_no_known_kind_is_refused() -> None:
    with pytest.raises(CollectionError, match="nonsense://a"):
        open_tree("nonsense://a")
