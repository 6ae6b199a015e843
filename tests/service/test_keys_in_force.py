"""Keys over a real connection, and what a real log says: `python -m service` in a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from .key_files import add, bearer
from .serving import encode, scratched_photo
from .test_server import ServiceProcess, announced_upload

SECRET = "grandmother"


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.toml"


@pytest.fixture(scope="module")
def key(keys_file: Path) -> str:
    return add(keys_file, "reading-room")


@pytest.fixture(scope="module")
def service(store: Path, keys_file: Path, key: str) -> Iterator[ServiceProcess]:
    """A ready service with one key, which logs all that it ever does."""
    environment = {"RESTORE_API_KEYS_FILE": str(keys_file), "RESTORE_LOG_LEVEL": "debug"}
    with ServiceProcess({"RESTORE_MODEL_STORE": str(store)} | environment) as service:
        service.wait_until_ready()
        yield service


def wait_for_status(service: ServiceProcess, key: str, status: int) -> None:
    give_up_at = time.monotonic() + 30
    while service.client.get("/models", headers=bearer(key)).status_code != status:
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_who_shows_no_key_is_refused_before_a_byte_of_the_body_is_sent(service: ServiceProcess) -> None:
    with announced_upload(service, num_bytes=1_000_000) as answer:
        assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="photo-restoration"')
        assert json.loads(answer.read())["type"].endswith(":key-missing")


def test_keys_are_replaced_while_the_service_runs(service: ServiceProcess, keys_file: Path, key: str) -> None:
    before = keys_file.read_text()
    added = subprocess.run(
        [sys.executable, "-m", "service", "keys", "add", "scanner", "--scope", "restore"],
        env=os.environ | {"RESTORE_API_KEYS_FILE": str(keys_file)},
        capture_output=True,
        text=True,
        check=True,
    )
    new_key = added.stdout.strip()
    wait_for_status(service, new_key, 200)
    assert service.client.get("/models", headers=bearer(key)).status_code == 200
    keys_file.write_text(keys_file.read_text().removeprefix(before))
    wait_for_status(service, key, 401)
    assert service.client.get("/models", headers=bearer(new_key)).status_code == 200
    keys_file.write_text(before)
    wait_for_status(service, key, 200)


def test_a_broken_file_of_keys_locks_nobody_out(service: ServiceProcess, keys_file: Path, key: str) -> None:
    intact = keys_file.read_text()
    keys_file.write_text(intact + "[[keys]\n")
    told = json.loads(service.wait_for_log('.*"keys stay as they were".*')[0])
    assert told["level"] == "error"
    assert "is no TOML file" in told["reason"]
    assert service.client.get("/models", headers=bearer(key)).status_code == 200
    keys_file.write_text(intact)


def photos_with_secrets() -> dict[str, tuple[str, bytes]]:
    photo = scratched_photo()
    tags = Image.Exif()
    tags[ExifTags.Base.ImageDescription] = SECRET
    jpeg = encode(photo, "JPEG", comment=SECRET.encode())
    return {
        "JPEG": (f"{SECRET}.jpg", jpeg),
        "TIFF": (f"{SECRET}.tif", encode(photo, "TIFF", description=SECRET, artist=SECRET)),
        "PNG": (f"{SECRET}.png", encode(photo, "PNG", exif=tags)),
        "truncated": (f"{SECRET}.jpg", jpeg[:-300]),
        "no photo": (f"{SECRET}.txt", SECRET.encode() * 100),
    }


def test_the_log_holds_neither_key_nor_name_nor_content_however_much_is_logged(
    service: ServiceProcess, key: str
) -> None:
    for name, content in photos_with_secrets().values():
        service.client.post("/restore", files={"image": (name, content)}, headers=bearer(key))
    service.client.post("/restore", files={SECRET: b"x"}, headers=bearer(key))
    service.client.post(f"/restore?mode={SECRET}", content=b"x", headers=bearer(key))
    service.client.get(f"/{SECRET}", headers={"X-API-Key": SECRET, "User-Agent": SECRET, "Referer": SECRET})
    service.client.get("/livez", headers={"X-Request-ID": "the-last-one"})
    service.wait_for_log('"the-last-one"')
    written = "".join(service.log)
    assert "reading-room" in written
    assert key.removeprefix("rk_") not in written
    assert SECRET not in written
    assert all(json.loads(line)["event"] for line in service.log)
