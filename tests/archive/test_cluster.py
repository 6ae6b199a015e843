"""`python -m archive restore --ray`, on a cluster of several nodes."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from archive.answers import Restored
from archive.errors import CollectionError, PhotoFailed, RunStopped
from archive.ways import Options

from ..ray_cluster import RayCluster
from ..service.serving import encode, scratched_photo
from .conftest import Archive, files_of, start_archive

pytest.importorskip("ray", reason="the extra `ray` is not installed")

from archive import cluster as on_ray
from archive.cluster import Devices, Identity, OnCluster, OnNode, plan_devices

POISON = b"poison"


class Fragile:
    """In the place of `OnNode`, which takes seconds to start: gives each photo back as it came, and dies of one."""

    def __init__(self, *_: object) -> None:
        pass

    def is_up(self) -> bool:
        return True

    def restore(self, photo: bytes) -> Restored:
        if photo == POISON:
            os._exit(1)
        return Restored(photo, 0.0, "0001")


class Freezing(Fragile):
    """Stops for good at its first photo, as a node that is cut off does: nobody tells Ray. store: a file that is there
    from then on."""

    def __init__(self, store: str, *_: object) -> None:
        self._has_frozen = Path(store)

    def restore(self, photo: bytes) -> Restored:
        if not self._has_frozen.exists():
            self._has_frozen.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().restore(photo)


class Refusing(Fragile):
    """On a node whose store holds something else."""

    def __init__(self, *_: object) -> None:
        raise CollectionError("the store of this node has another release 0001")


class DeviceThatFailsOnce:
    """It works in every process after that. has_failed: a file that is there from then on."""

    def __init__(self, has_failed: Path) -> None:
        self._has_failed = has_failed

    def restore(self, photo: bytes) -> Restored:
        if not self._has_failed.exists():
            self._has_failed.touch()
            raise RunStopped("the device failed: CUDA error: device-side assert triggered; run it again")
        return Restored(photo, 0.0, "0001")


class OnNodeThatFailsOnce(OnNode):
    def __init__(self, store: str, *_: object) -> None:
        self._way = DeviceThatFailsOnce(Path(store))  # type: ignore[assignment]


def test_a_restorer_whose_device_fails_is_started_again_and_no_photo_is_lost(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(on_ray, "OnNode", OnNodeThatFailsOnce)
    monkeypatch.setattr(on_ray, "load_identity", lambda *_: Identity("0001", ""))
    monkeypatch.setattr(on_ray, "plan_devices", lambda _: Devices(1, 0, 1))  # no other one takes the photo
    way = OnCluster(cluster.address, str(tmp_path / "has failed"), Options())
    try:
        assert way.restore(b"photo").content == b"photo"
    finally:
        way.close()
    assert (tmp_path / "has failed").exists()


def test_restorers_that_all_refuse_to_start_stop_the_run_and_say_why(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "OnNode", Refusing)
    monkeypatch.setattr(on_ray, "load_identity", lambda *_: Identity("0001", ""))
    way = OnCluster(cluster.address, "", Options())
    try:
        with pytest.raises(RunStopped, match="the store of this node has another release 0001; mend it"):
            way.restore(b"photo")
    finally:
        way.close()


def test_a_photo_that_takes_restorers_down_fails_alone(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "OnNode", Fragile)
    monkeypatch.setattr(on_ray, "load_identity", lambda *_: Identity("0001", ""))
    monkeypatch.setattr(on_ray, "MOST_LOSSES", 2)  # each takes Ray some seconds
    way = OnCluster(cluster.address, "", Options())
    photos = [bytes([number]) for number in range(50)]

    def restore(photo: bytes) -> Restored | PhotoFailed:
        try:
            return way.restore(photo)
        except PhotoFailed as error:
            return error

    try:
        with ThreadPoolExecutor(way.num_at_once) as threads:
            first, *others = threads.map(restore, [POISON, *photos])
    finally:
        way.close()
    assert isinstance(first, PhotoFailed)
    assert first.reason == "restorer-lost"
    assert [one.content for one in others if isinstance(one, Restored)] == photos


def test_a_restorer_that_is_cut_off_without_a_word_keeps_no_photo(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(on_ray, "OnNode", Freezing)
    monkeypatch.setattr(on_ray, "load_identity", lambda *_: Identity("0001", ""))
    monkeypatch.setattr(on_ray, "SILENCE_SECONDS", 5.0)
    way = OnCluster(cluster.address, str(tmp_path / "has frozen"), Options())
    photos = [bytes([number]) for number in range(10)]
    try:
        with ThreadPoolExecutor(way.num_at_once) as threads:
            assert [restored.content for restored in threads.map(way.restore, photos)] == photos
    finally:
        way.close()
    assert (tmp_path / "has frozen").exists()


def test_what_the_cluster_lacks_is_said_before_anything_is_begun(
    cluster: RayCluster, archive: Archive, scans: Path, restored: Path, tmp_path: Path
) -> None:
    code, _, told = archive("restore", scans, restored, "--ray", cluster.address, "--model-store", tmp_path / "none")
    assert code == 2
    assert f"on the cluster: the model store {tmp_path / 'none'} holds no release that works" in told
    assert not files_of(restored)


def test_a_node_killed_in_mid_run_costs_no_photo_and_repeats_none(
    cluster: RayCluster, archive: Archive, tmp_path: Path, restored: Path, store: Path
) -> None:
    scans, here = tmp_path / "scans", tmp_path / "here"
    for number in range(120):
        box = scans / f"box {number // 50}"
        box.mkdir(parents=True, exist_ok=True)
        (box / f"{number}.png").write_bytes(encode(scratched_photo(96, 96 + number)))
    (scans / "broken.png").write_bytes(encode(scratched_photo())[:200])
    run = start_archive("restore", scans, restored, "--ray", cluster.address, "--model-store", store)
    while run.poll() is None and (not restored.is_dir() or len(files_of(restored)) < 20):
        time.sleep(0.01)
    cluster.kill_node()
    num_by_then = len(files_of(restored))
    _, told = run.communicate()
    cluster.replace_node()
    assert num_by_then < 120
    assert run.returncode == 1, told
    assert "120 restored, 120 of them with damage; 0 done before; 1 failed" in told
    assert "broken.png: photo-undecodable: " in told
    archive("restore", scans, here, "--local", "--model-store", store)
    assert files_of(restored) == files_of(here)
    assert archive("verify", restored)[0] == 0


def test_what_is_no_address_of_a_cluster_is_refused(archive: Archive, scans: Path, restored: Path) -> None:
    code, _, told = archive("restore", scans, restored, "--ray", "nowhere")
    assert code == 2
    assert "the Ray cluster does not answer as hoped" in told


def node(*, alive: bool = True, **resources: float) -> dict[str, object]:
    return {"Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("nodes", "devices"),
    [
        ([node(CPU=8), node(CPU=8)], Devices(2, 0, 8)),
        ([node(CPU=8), node(CPU=16)], Devices(3, 0, 8)),
        ([node(CPU=8), node(CPU=8, alive=False), node(memory=1)], Devices(1, 0, 8)),
        ([node(CPU=16, GPU=2), node(CPU=32)], Devices(2, 1, 8)),
    ],
)
def test_every_device_gets_a_restorer(nodes: list[dict[str, object]], devices: Devices) -> None:
    assert plan_devices(nodes) == devices


def test_a_cluster_without_processors_is_refused() -> None:
    with pytest.raises(CollectionError, match="no node with processors"):
        plan_devices([node(memory=1)])
