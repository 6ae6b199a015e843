import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from restoration.errors import NoRelease, ReleaseInvalid
from restoration.release import Release, list_releases, load_generator, read_release
from restoration.restorer import Restorer
from restoration.stores import FolderStore

from .small_generator import make_generator

WEIGHTS = "generator.safetensors"


def change_manifest(release: Release, change: Callable[[dict], None]) -> None:
    path = release.path / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def replace_file(release: Release, name: str, content: bytes) -> None:
    """Replace a file together with its record, as somebody would who can write to the store."""
    (release.path / name).write_bytes(content)
    record = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    change_manifest(release, lambda manifest: manifest["files"].update({name: record}))


def replace_weights(release: Release, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load((release.path / WEIGHTS).read_bytes())
    change(weights)
    replace_file(release, WEIGHTS, save(weights))


def read_and_load(release: Release) -> None:
    load_generator(read_release(release.path.parent, release.version))


def test_a_published_release_reads_back(release, store):
    found = read_release(store, "0001")
    assert found == release
    assert found.manifest.architecture == "detect-fill"
    assert found.manifest.scores == {"psnr_db": 21.5}
    assert {WEIGHTS, "README.md", "golden/damaged.png", "golden/restored.png"} <= found.manifest.files.keys()


def test_the_generator_comes_back_with_its_weights_rounded_to_fp16(release):
    original, loaded = make_generator().state_dict(), load_generator(release).state_dict()
    assert original.keys() == loaded.keys()
    for name, weight in original.items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], weight.half().float())


def test_the_loaded_generator_is_for_evaluation(release):
    generator = load_generator(release)
    assert not generator.training
    assert not any(parameter.requires_grad for parameter in generator.parameters())


def test_the_store_lists_numbers_and_nothing_else(release, store):
    shutil.copytree(store / "0001", store / "0002")
    (store / ".incoming-0003-abcd").mkdir()
    (store / "notes").mkdir()
    (store / "0009").write_text("a file")
    shutil.copytree(store / "0001", store / "10000")
    assert list_releases(store) == ["0001", "0002", "10000"]


def test_a_store_that_is_not_there_is_empty(tmp_path):
    assert list_releases(tmp_path / "nowhere") == []
    with pytest.raises(NoRelease, match="it is empty or missing"):
        Restorer.load_newest(FolderStore(tmp_path / "nowhere"), device="cpu")


@pytest.mark.parametrize("version", ["0002", "../0001", "", ".", "1"])
def test_a_release_that_is_not_there_is_named(release, store, version):
    with pytest.raises(NoRelease, match="it holds 0001"):
        read_release(store, version)


def test_a_changed_byte_is_noticed(release, store):
    path = release.path / WEIGHTS
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ReleaseInvalid, match=r"release 0001: generator\.safetensors: sha256 .* the manifest says"):
        read_release(store, "0001")


def test_a_byte_changed_after_the_check_is_noticed_at_load(release):
    path = release.path / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ReleaseInvalid, match="sha256"):
        load_generator(release)


def test_a_truncated_file_is_noticed_by_its_size(release, store):
    path = release.path / WEIGHTS
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ReleaseInvalid, match="has 1,000 bytes but the manifest says"):
        read_release(store, "0001")


@pytest.mark.parametrize("name", [WEIGHTS, "golden/damaged.png", "README.md"])
def test_a_missing_file_is_noticed(release, store, name):
    (release.path / name).unlink()
    with pytest.raises(ReleaseInvalid, match=f"{name} is missing"):
        read_release(store, "0001")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"null", b" " * 5_000_000], ids=lambda c: repr(c[:4])
)
def test_a_manifest_that_is_none_is_refused(release, store, content):
    (release.path / "manifest.json").write_bytes(content)
    with pytest.raises(ReleaseInvalid, match=r"release 0001: manifest\.json"):
        read_release(store, "0001")


def test_a_missing_manifest_is_refused(release, store):
    (release.path / "manifest.json").unlink()
    with pytest.raises(ReleaseInvalid, match=r"it has no manifest\.json; publish it again"):
        read_release(store, "0001")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=2), "format version 2"),
        (lambda m: m.update(version="0002"), "is that of release 0002"),
        (lambda m: m.pop("architecture"), "architecture"),
        (lambda m: m.update(created="yesterday"), "created"),
        (lambda m: m["files"][WEIGHTS].update(sha256="abc"), "sha256"),
        (lambda m: m["files"][WEIGHTS].update(size_bytes=-1), "size_bytes"),
    ],
    ids=["format", "number", "architecture", "created", "sha256", "size"],
)
def test_a_manifest_that_contradicts_itself_is_refused(release, store, change, message):
    change_manifest(release, change)
    with pytest.raises(ReleaseInvalid, match=message):
        read_release(store, "0001")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "golden/../../secret", "a\\b", "./README.md", ""])
def test_a_file_name_that_leads_out_of_the_release_is_refused(release, store, name):
    (store / "secret").write_bytes(b"secret")
    record = {"sha256": hashlib.sha256(b"secret").hexdigest(), "size_bytes": 6}
    change_manifest(release, lambda manifest: manifest["files"].update({name: record}))
    with pytest.raises(ReleaseInvalid, match="not a plain path"):
        read_release(store, "0001")


def test_a_link_that_leads_out_of_the_release_is_refused(release, store):
    shutil.move(release.path / "README.md", store / "elsewhere.md")
    (release.path / "README.md").symlink_to(store / "elsewhere.md")
    with pytest.raises(ReleaseInvalid, match="leads out of the release"):
        read_release(store, "0001")


def test_files_that_the_manifest_does_not_list_are_ignored(release, store):
    (release.path / "notes.txt").write_text("looked at on a Tuesday")
    assert read_release(store, "0001") == release


def test_a_field_from_the_future_is_ignored(release, store):
    change_manifest(release, lambda manifest: manifest.update(mood="good"))
    assert read_release(store, "0001") == release


def test_an_unknown_architecture_is_refused(release):
    change_manifest(release, lambda manifest: manifest.update(architecture="transformer"))
    with pytest.raises(ReleaseInvalid, match="transformer"):
        read_and_load(release)


@pytest.mark.parametrize(
    "config", [{"detector_channels": [8, 12, 16, 20]}, {"colour": "blue"}, {"detector_channels": "many"}], ids=str
)
def test_a_config_that_does_not_fit_the_weights_is_refused(release, config):
    change_manifest(release, lambda manifest: manifest["config"].update(config))
    with pytest.raises(ReleaseInvalid):
        read_and_load(release)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.update({"detector.head.bias": torch.zeros(5)}), r"shape \(5,\), the config says \(4,\)"),
        (lambda w: w.pop("detector.head.bias"), r"lack detector\.head\.bias"),
        (lambda w: w.update(extra=torch.zeros(1)), "unknown weights extra"),
        (lambda w: w["filler.head.bias"].fill_(float("nan")), "not finite"),
        (lambda w: w["filler.head.bias"].fill_(float("inf")), "not finite"),
    ],
    ids=["shape", "missing", "superfluous", "nan", "infinite"],
)
def test_weights_that_do_not_fit_are_refused(release, change, message):
    replace_weights(release, change)
    with pytest.raises(ReleaseInvalid, match=message):
        read_and_load(release)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"PK\x03\x04" + b"\0" * 100], ids=["empty", "noise", "zip"])
def test_weights_that_are_not_safetensors_are_refused(release, content):
    replace_file(release, WEIGHTS, content)
    with pytest.raises(ReleaseInvalid, match="no safetensors file"):
        read_and_load(release)


class WritesAFile:
    """What a pickle can do to whoever opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", [WEIGHTS, "generator.pt", "manifest.json"])
def test_a_pickle_is_never_opened(release, tmp_path, name):
    trap = tmp_path / "sprung"
    if name == "manifest.json":
        (release.path / name).write_bytes(pickle.dumps(WritesAFile(trap)))
    else:
        replace_file(release, name, pickle.dumps(WritesAFile(trap)))
    try:
        read_and_load(release)
    except ReleaseInvalid:
        assert name != "generator.pt"
    assert not trap.exists()


def test_weights_without_a_file_are_refused(release):
    change_manifest(release, lambda manifest: manifest["files"].pop(WEIGHTS))
    with pytest.raises(ReleaseInvalid, match="incomplete"):
        read_and_load(release)


def test_the_newest_release_that_verifies_is_taken_and_why_is_told(release, publish, store):
    publish()
    (store / "0002" / WEIGHTS).unlink()
    (store / "0003").mkdir()
    (store / ".incoming-0004-half").mkdir()
    restorer, refused = Restorer.load_newest(FolderStore(store), device="cpu")
    assert restorer.release.version == "0001"
    assert list(refused) == ["0003", "0002"]
    assert "missing" in refused["0002"]


def test_the_newest_release_that_passes_its_self_test_is_loaded(release, publish, store):
    """The weights of the second release were exchanged for others that verify in every other respect."""
    second = publish()
    other = {name: weight.half() for name, weight in make_generator(seed=5).state_dict().items()}
    replace_file(second, WEIGHTS, save(other))
    assert read_release(store, "0002").manifest.version == "0002"
    restorer, refused = Restorer.load_newest(FolderStore(store), device="cpu")
    assert restorer.release.version == "0001"
    assert "self-test" in refused["0002"]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["files"].update({"a\0b": {"sha256": "0" * 64, "size_bytes": 1}}),
        lambda m: m["files"].update({"a\ud800": {"sha256": "0" * 64, "size_bytes": 1}}),
        lambda m: m["config"].update(required_evidence=10**400),
        lambda m: m["config"].update(detector_dilations=[1, 1, 1, 0]),
        lambda m: m["config"].update(detector_dilations=[1, 1, 1, 10**9]),
        lambda m: m["config"].update(detector_dilations=[1, 1, 1, 10**30]),
        lambda m: m["config"].update(detector_dilations=[1, 1, 1, 1.5]),
    ],
    ids=["a name with a NUL", "a surrogate", "an endless number", "no dilation", "1e9", "1e30", "half a dilation"],
)
def test_an_older_release_is_taken_whatever_is_wrong_with_the_newest(release, store, change):
    shutil.copytree(store / "0001", store / "0002")
    newest = Release("0002", store / "0002", release.manifest)
    change_manifest(newest, lambda manifest: manifest.update(version="0002"))
    change_manifest(newest, change)
    restorer, refused = Restorer.load_newest(FolderStore(store), device="cpu", precision="bfloat16")
    assert restorer.release.version == "0001"
    assert list(refused) == ["0002"]


def test_where_no_release_loads_every_reason_is_told(release, publish, store):
    publish()
    for version in ("0001", "0002"):
        (store / version / WEIGHTS).unlink()
    with pytest.raises(NoRelease, match=f"{store} holds no release that works: .*0002.*; .*0001.*missing"):
        Restorer.load_newest(FolderStore(store), device="cpu")


def test_a_release_that_is_named_is_loaded_or_nothing(release, publish, store):
    publish()
    restorer, refused = Restorer.load_newest(FolderStore(store), "0001", device="cpu")
    assert (restorer.release.version, refused) == ("0001", {})
    (store / "0001" / WEIGHTS).unlink()
    with pytest.raises(ReleaseInvalid, match="missing"):
        Restorer.load_newest(FolderStore(store), "0001", device="cpu")
