"""Take pictures of the page, to be looked at: wide and narrow, light and dark, in every state, with and without a key.

    .venv/bin/python scripts/picture_page.py pictures

A real Chromium, and two real services with the newest release: one for everybody, one that asks for a key. What can be
told without eyes is tested in tests/service/test_page.py. Needs what the tests need, and Debian's chromium.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from playwright.sync_api import Browser, FilePayload, Page, sync_playwright

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE = REPOSITORY / "service" / "static" / "sample.jpg"
LETTER: FilePayload = {"name": "letter.jpg", "mimeType": "image/jpeg", "buffer": b"Dear Sir or Madam"}
WIDE_PX, DESK_PX, NARROW_PX = (2560, 1300), (1280, 900), (360, 740)
MOST_MILLISECONDS = 600_000
SETTLED_MILLISECONDS = 400
"""Until transitions have ended, and the compositor has drawn."""
Scheme = Literal["light", "dark"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the folder for the pictures")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        keys_file = Path(folder) / "api_keys"
        key = make_key(keys_file)
        with service() as address:
            picture_open_service(browser, address, output)
        with service(RESTORE_API_KEYS_FILE=str(keys_file)) as address:
            picture_keys(browser, address, key, output)
        browser.close()


def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return found or sys.exit("no Chromium is installed: apt-get install chromium")


def make_key(keys_file: Path) -> str:
    command = [sys.executable, "-m", "service", "keys", "add", "--file", str(keys_file), "picture"]
    added = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return added.stdout.strip()


@contextmanager
def service(**settings: str) -> Iterator[str]:
    """The address of a service that is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environment = os.environ | settings | {"RESTORE_PORT": str(port)}
    with subprocess.Popen([sys.executable, "-m", "service"], cwd=REPOSITORY, env=environment, stderr=2) as process:
        try:
            wait_until_ready(address, process)
            yield address
        finally:
            process.terminate()


def wait_until_ready(address: str, process: "subprocess.Popen[bytes]") -> None:
    give_up_at = time.monotonic() + MOST_MILLISECONDS / 1000
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/readyz").close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    sys.exit(f"{address} does not become ready")


def picture_open_service(browser: Browser, address: str, output: Path) -> None:
    for name, size_px, scheme in views():
        with opened(browser, address, size_px, scheme) as page:
            take(page, output / f"start_{name}.png")
            page.click("#sample")
            wait_for(page, "done")
            take(page, output / f"done_{name}.png")
            page.get_by_label("Damage found").check()
            take(page, output / f"damage_{name}.png")
            page.get_by_role("button", name="100 %").click()
            take(page, output / f"full_size_{name}.png")
            page.set_input_files("#chooser", LETTER)
            page.click("#photos li:last-child .entry")
            wait_for(page, "failed")
            page.get_by_text("What the service said").click()
            take(page, output / f"error_{name}.png")
            page.set_input_files("#chooser", [SAMPLE])
            page.click("#photos li:last-child .entry")
            take(page, output / f"progress_{name}.png")


def views() -> Iterator[tuple[str, tuple[int, int], Scheme]]:
    for width, size_px in ("wide", WIDE_PX), ("desk", DESK_PX), ("narrow", NARROW_PX):
        yield f"{width}_light", size_px, "light"
        yield f"{width}_dark", size_px, "dark"


def picture_keys(browser: Browser, address: str, key: str, output: Path) -> None:
    for name, size_px in ("desk", DESK_PX), ("narrow", NARROW_PX):
        with opened(browser, address, size_px, "light") as page:
            page.click("#sample")
            page.wait_for_selector("#key-dialog[open]")
            take(page, output / f"key_asked_{name}.png")
            page.get_by_label("Key", exact=True).fill("wrong")
            page.keyboard.press("Enter")
            page.get_by_text("did not accept this one").wait_for()
            take(page, output / f"key_refused_{name}.png")
            page.get_by_label("Key", exact=True).fill(key)
            page.keyboard.press("Enter")
            wait_for(page, "done")
            take(page, output / f"key_used_{name}.png")


@contextmanager
def opened(browser: Browser, address: str, size_px: tuple[int, int], scheme: Scheme) -> Iterator[Page]:
    width_px, height_px = size_px
    with browser.new_context(viewport={"width": width_px, "height": height_px}, color_scheme=scheme) as context:
        page = context.new_page()
        page.set_default_timeout(MOST_MILLISECONDS)
        page.goto(address)
        yield page


def wait_for(page: Page, state: str) -> None:
    page.wait_for_selector(f'#viewer[data-state="{state}"]')


def take(page: Page, path: Path) -> None:
    """All of the page; under a dialog, whose backdrop covers no more, what the window shows."""
    page.wait_for_timeout(SETTLED_MILLISECONDS)
    page.screenshot(path=path, full_page=page.locator("dialog[open]").count() == 0)


if __name__ == "__main__":
    main()
