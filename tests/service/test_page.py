"""The page in a real Chromium, against a real service."""

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, Request, Route, expect, sync_playwright

from service.app import create_app
from service.errors import INTERNAL_ERROR, PROBLEM_KINDS
from service.page import STATIC
from service.settings import Settings

from .live import listening
from .serving import decode, encode, grey_photo, scratched_photo

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")

NEVER_SEEN_HERE = {"client-gone", "no-release", "release-pinned", "release-refused"}
SIDEWAYS = 6  # the orientation tag of a photo that is to be turned clockwise


@pytest.fixture(scope="module")
def address(store: Path) -> Iterator[str]:
    with listening(create_app(Settings(model_store=store))) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, open; at the end nothing was asked of another host, and nothing broke its policy or threw."""
    with browser.new_context(viewport={"width": 1280, "height": 800}, has_touch=True) as context:
        page = context.new_page()
        asked: list[Request] = []
        faults: list[str] = []
        page.on("request", lambda request: asked.append(request))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
        page.goto(address)
        yield page
        assert [request.url for request in asked if not request.url.startswith((address, "blob:"))] == []
        assert faults == []


def photo_file(name: str = "old.png", samples: np.ndarray | None = None, format: str = "PNG", **options: Any) -> Any:
    encoded = encode(scratched_photo() if samples is None else samples, format, **options)
    return {"name": name, "mimeType": f"image/{format.lower()}", "buffer": encoded}


def choose(page: Page, *files: Any) -> None:
    page.set_input_files("#chooser", list(files))


def wait_for(page: Page, state: str) -> None:
    page.wait_for_selector(f'#viewer[data-state="{state}"]')


def restore(page: Page, *files: Any) -> None:
    choose(page, *files)
    wait_for(page, "done")
    page.wait_for_function("document.getElementById('after').naturalWidth > 0")


def shown_states(page: Page) -> list[str]:
    return page.locator("#photos li").evaluate_all("items => items.map((item) => item.dataset.state)")


def answer_instead(page: Page, *answers: dict[str, Any]) -> list[Request]:
    """The first requests get these answers, the others the service's; returns the requests as they come."""
    seen: list[Request] = []
    waiting = list(answers)

    def fulfil(route: Route) -> None:
        seen.append(route.request)
        if waiting:
            route.fulfill(**waiting.pop(0))
        else:
            route.continue_()

    page.route("**/restore?*", fulfil)
    return seen


def problem(status: int, name: str, **headers: str) -> dict[str, Any]:
    body = {
        "type": f"urn:photo-restoration:problem:{name}",
        "title": "A title",
        "detail": "a detail",
        "request_id": "7",
    }
    return {"status": status, "content_type": "application/problem+json", "headers": headers, "body": json.dumps(body)}


@needs_chromium
def test_a_chosen_photo_is_shown_before_and_after_and_can_be_saved_in_its_own_format(page: Page) -> None:
    restore(page, photo_file("grandmother.PNG"))
    assert page.locator("#before").get_attribute("src") != page.locator("#after").get_attribute("src")
    expect(page.locator("#facts")).to_contain_text(re.compile(r"\d\.\d % of the picture .* 128 . 96 pixels, PNG"))
    with page.expect_download() as saving:
        page.click("#download")
    assert saving.value.suggested_filename == "grandmother_restored.png"
    restored = decode(Path(saving.value.path()).read_bytes())
    assert restored.shape == (96, 128, 3)
    assert np.array_equal(restored[:, :60], scratched_photo()[:, :60])


@needs_chromium
def test_an_undamaged_photo_is_said_to_be_unchanged(page: Page) -> None:
    restore(page, photo_file(samples=grey_photo()))
    expect(page.locator("#facts")).to_contain_text("No damage was found")
    expect(page.locator("#photos .state")).to_have_text("No damage found")


@needs_chromium
@pytest.mark.parametrize("way", ["drop", "paste"])
def test_photos_can_be_dropped_and_pasted(page: Page, way: str) -> None:
    page.evaluate(
        """async ([way, samples]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(samples)], "old.png", { type: "image/png" }));
            const event = way === "drop"
                ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
                : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true });
            document.body.dispatchEvent(event);
        }""",
        [way, list(encode(scratched_photo()))],
    )
    wait_for(page, "done")


@needs_chromium
def test_the_sample_is_restored_at_the_first_click(page: Page) -> None:
    page.click("#sample")
    wait_for(page, "done")
    expect(page.locator("#viewer-title")).to_have_text("sample.jpg")


@needs_chromium
def test_the_divider_moves_by_keyboard_mouse_and_touch_and_tells_where_it_is(page: Page) -> None:
    restore(page, photo_file(samples=scratched_photo(300, 400)))
    slider = page.locator("#slider")
    expect(slider).to_have_attribute("aria-valuetext", "50 % before, 50 % after")
    slider.focus()
    for key, position in [("ArrowRight", "52"), ("ArrowLeft", "50"), ("PageUp", "60"), ("Home", "0"), ("End", "100")]:
        page.keyboard.press(key)
        expect(slider).to_have_attribute("aria-valuenow", position)
    box = slider.bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + 20)
    expect(slider).to_have_attribute("aria-valuenow", "25")
    page.touchscreen.tap(box["x"] + box["width"] * 0.75, box["y"] + 20)
    expect(slider).to_have_attribute("aria-valuenow", "75")


@needs_chromium
def test_at_full_size_a_pixel_is_a_pixel_and_the_mouse_moves_the_photo_not_the_divider(page: Page) -> None:
    restore(page, photo_file(samples=scratched_photo(1500, 2000)))
    page.get_by_role("button", name="100 %").click()
    assert page.locator("#after").evaluate("after => [after.offsetWidth, after.offsetHeight]") == [2000, 1500]
    stage = page.locator("#stage")
    box = stage.bounding_box()
    assert box
    left = stage.evaluate("stage => stage.scrollLeft")
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 40, box["y"] + 70, steps=3)
    page.mouse.up()
    assert stage.evaluate("stage => stage.scrollLeft") == left + 60
    expect(page.locator("#slider")).to_have_attribute("aria-valuenow", "50")
    grip = page.locator(".grip").bounding_box()
    assert grip
    assert box["y"] < grip["y"] < box["y"] + box["height"]
    page.get_by_role("button", name="Fit").click()
    assert page.locator("#after").evaluate("after => after.offsetWidth") < box["width"] + 1


@needs_chromium
def test_the_damage_lies_over_the_photo_where_it_was_found(page: Page) -> None:
    restore(page, photo_file(samples=scratched_photo(300, 400)))
    assert redness(page)[:, 200:204].max() < 30
    page.get_by_label("Damage found").check()
    red = redness(page)
    assert red[:, 201:203].mean() > 100
    assert red[:, :190].max() < 30


@needs_chromium
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_the_damage_lies_right_on_a_photo_that_its_tag_turns(page: Page, format: str) -> None:
    exif = Image.Exif()
    exif[274] = SIDEWAYS
    restore(
        page, photo_file(f"old.{format}", scratched_photo(400, 300), format, exif=exif)
    )  # a scratch from top to bottom
    assert natural_size(page) == [400, 300]
    page.get_by_label("Damage found").check()
    red = redness(page)  # turned, it goes from left to right
    assert red[151:153, 20:380].mean() > 100
    assert red[:140].max() < 30


def redness(page: Page) -> np.ndarray:
    """(H, W) of the photo as shown, at its own size: how much more red there is than in a grey, in levels."""
    page.wait_for_timeout(150)  # the compositor has no event for having drawn a mask
    image = Image.open(io.BytesIO(page.locator("#frame").screenshot())).convert("RGB")
    samples = np.asarray(image.resize(natural_size(page))).astype(int)
    return np.asarray(samples[:, :, 0] - samples[:, :, 2])


def natural_size(page: Page) -> Any:
    """[width, height] in pixels of the photo that is shown, turned as it is seen."""
    return page.locator("#after").evaluate("after => [after.naturalWidth, after.naturalHeight]")


@needs_chromium
def test_a_tiff_is_shown_although_the_browser_cannot_and_saved_as_tiff_after_one_restoration(page: Page) -> None:
    requests = answer_instead(page)
    restore(page, photo_file("scan.tif", format="TIFF"))
    page.wait_for_function("document.getElementById('before').naturalWidth === 128")
    assert len(requests) == 1
    with page.expect_download() as saving:
        page.click("#download")
    assert saving.value.suggested_filename == "scan_restored.tif"
    assert Path(saving.value.path()).read_bytes()[:2] == b"II"


@needs_chromium
def test_the_settings_go_with_the_photo_and_with_restoring_it_again(page: Page) -> None:
    requests = answer_instead(page)
    page.get_by_label("Mode").select_option("resize")
    restore(page, photo_file())
    page.get_by_label("Sensitivity").fill("0.8")
    with page.expect_response("**/restore?*"):
        page.get_by_role("button", name="Restore again").click()
    wait_for(page, "done")
    assert ["mode=resize" in request.url for request in requests] == [True, True]
    assert ["sensitivity=0.5" in requests[0].url, "sensitivity=0.8" in requests[1].url] == [True, True]
    assert ["denoise=0&" in request.url for request in requests] == [True, True]


@needs_chromium
def test_what_is_not_sure_enough_can_be_had_with_one_click(page: Page) -> None:
    page.get_by_label("Sensitivity").fill("0")
    restore(page, photo_file())
    expect(page.locator("#facts")).to_contain_text("From a sensitivity of 0.")
    page.get_by_role("button", name=re.compile(r"Restore with 0\.\d")).click()
    expect(page.locator("#facts")).to_contain_text("was taken for damage and repaired")
    assert float(page.get_by_label("Sensitivity").input_value()) > 0.0
    expect(page.get_by_role("button", name="Restore with")).to_have_count(0)
    choose(page, photo_file("clean.png", grey_photo()))
    page.get_by_role("button", name="clean.png").first.click()
    wait_for(page, "done")
    expect(page.locator("#facts")).to_contain_text("If you see some, raise the sensitivity.")
    expect(page.get_by_role("button", name="Restore with")).to_have_count(0)


@needs_chromium
def test_a_release_that_cannot_denoise_is_said_so_and_the_photo_can_be_sent_again(page: Page) -> None:
    requests = answer_instead(page)
    page.get_by_label("Denoise").fill("0.5")
    choose(page, photo_file())
    wait_for(page, "failed")
    assert "denoise=0.5" in requests[0].url
    expect(page.locator("#failure-title")).to_have_text("This service cannot denoise")
    page.get_by_label("Denoise").fill("0")
    page.get_by_role("button", name="Try again").click()
    wait_for(page, "done")


@needs_chromium
def test_several_photos_are_sent_two_at_a_time_and_one_bad_one_stops_none(page: Page) -> None:
    held: list[Route] = []

    def hold_two(route: Route) -> None:
        held.append(route)
        if len(held) > 2:
            route.continue_()

    page.route("**/restore?*", hold_two)
    choose(
        page, *(photo_file(f"{number}.png") for number in range(3)), {**photo_file("letter.jpg"), "buffer": b"Dear Sir"}
    )
    page.wait_for_function("document.querySelectorAll('#photos [data-state=waiting]').length === 2")
    assert len(held) == 2
    for route in held[:2]:
        route.continue_()
    expect(page.locator('#photos [data-state="done"]')).to_have_count(3)
    expect(page.locator('#photos [data-state="failed"] .state')).to_have_text(
        "This is not a photograph that can be read"
    )
    expect(page.locator("#alarm")).to_contain_text("letter.jpg: This is not a photograph that can be read")


@needs_chromium
def test_an_error_says_what_to_do_and_the_photo_can_be_removed(page: Page) -> None:
    choose(page, {**photo_file("letter.jpg"), "buffer": b"Dear Sir or Madam"})
    wait_for(page, "failed")
    advice = "Save it as JPEG, PNG, TIFF, WebP or JPEG 2000, and send that."
    expect(page.locator("#failure-advice")).to_have_text(advice)
    page.get_by_text("What the service said").click()
    expect(page.locator("#failure-detail")).to_contain_text("found text")
    expect(page.locator("#failure-request")).to_contain_text(re.compile("Request id: [0-9a-f]{32}"))
    page.get_by_role("button", name="Remove this photograph").click()
    expect(page.locator("#headline")).to_be_visible()
    assert shown_states(page) == []


HOLD_READING = """([kind, name]) => {
    const read = globalThis[kind].prototype[name];
    const open = URL.createObjectURL, close = URL.revokeObjectURL;
    const addresses = new Set();
    URL.createObjectURL = (file) => { const address = open.call(URL, file); addresses.add(address); return address; };
    URL.revokeObjectURL = (address) => { addresses.delete(address); close.call(URL, address); };
    const held = Promise.withResolvers(), mayGoOn = Promise.withResolvers(), hasRead = Promise.withResolvers();
    globalThis[kind].prototype[name] = async function () {
        held.resolve();
        await mayGoOn.promise;
        setTimeout(hasRead.resolve, 200);
        return read.call(this);
    };
    window.untilHeld = () => held.promise;
    window.addressesAtTheEnd = async () => { mayGoOn.resolve(); await hasRead.promise; return [...addresses]; };
}"""
"""What is read of an answer is held; addresses of files in memory are noted."""


@needs_chromium
@pytest.mark.parametrize(
    ("answers", "reading"),
    [([], ["Response", "formData"]), ([problem(401, "key-missing")], ["Blob", "text"])],
    ids=["restored", "refused"],
)
def test_a_photo_that_is_removed_while_its_answer_is_being_read_leaves_nothing_behind(
    page: Page, answers: list[dict[str, Any]], reading: list[str]
) -> None:
    answer_instead(page, *answers)
    page.evaluate(HOLD_READING, reading)
    choose(page, photo_file())
    page.evaluate("untilHeld()")
    page.get_by_role("button", name="Remove old.png").click()
    assert page.evaluate("addressesAtTheEnd()") == []
    expect(page.get_by_role("dialog")).to_be_hidden()


@needs_chromium
@pytest.mark.parametrize(("status", "name"), [(503, "queue-full"), (429, "quota-exceeded"), (507, "no-room-for-files")])
def test_a_busy_service_is_asked_again_when_it_said(page: Page, status: int, name: str) -> None:
    requests = answer_instead(page, problem(status, name, **{"Retry-After": "1"}))
    choose(page, photo_file())
    expect(page.locator("#progress-title")).to_contain_text("Trying again in 1 s")
    wait_for(page, "done")
    assert len(requests) == 2


@needs_chromium
def test_a_service_that_cannot_be_reached_is_said_to_be(page: Page) -> None:
    page.route("**/restore?*", lambda route: route.abort())
    choose(page, photo_file())
    expect(page.locator("#failure-title")).to_have_text("The service cannot be reached")
    page.unroute("**/restore?*")
    page.get_by_role("button", name="Try again").click()
    wait_for(page, "done")


@needs_chromium
def test_a_key_is_asked_for_used_and_kept_in_the_tab_only(page: Page, browser: Browser, address: str) -> None:
    requests = answer_instead(page, problem(401, "key-missing"), problem(401, "key-unknown"))
    choose(page, photo_file())
    expect(page.get_by_role("dialog")).to_contain_text("This service asks for a key")
    page.get_by_label("Key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("did not accept this one")
    page.get_by_label("Key", exact=True).fill("right")
    page.get_by_role("button", name="Use this key").click()
    wait_for(page, "done")
    assert [request.headers.get("authorization") for request in requests] == [None, "Bearer wrong", "Bearer right"]
    assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
    page.get_by_role("button", name="Forget the key").click()
    assert page.evaluate("sessionStorage.length") == 0


@needs_chromium
def test_whoever_has_no_key_is_told_so_and_can_try_again(page: Page) -> None:
    answer_instead(page, problem(401, "key-missing"))
    choose(page, photo_file())
    page.get_by_role("button", name="Not now").click()
    expect(page.locator("#failure-title")).to_have_text("A key is needed")
    page.get_by_role("button", name="Try again").click()
    wait_for(page, "done")


@needs_chromium
def test_whoever_has_no_key_is_asked_once_for_all_photos_that_are_there(page: Page) -> None:
    sent: list[Route] = []
    page.route("**/restore?*", lambda route: sent.append(route))
    choose(page, *(photo_file(f"{number}.png") for number in range(4)))
    expect(page.locator('#photos [data-state="waiting"]')).to_have_count(2)
    sent[0].fulfill(**problem(401, "key-missing"))
    page.get_by_role("button", name="Not now").click()
    expect(page.locator('#photos [data-state="failed"]')).to_have_count(3)
    sent[1].fulfill(**problem(401, "key-missing"))
    expect(page.locator('#photos [data-state="failed"]')).to_have_count(4)
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert len(sent) == 2
    with page.expect_request("**/restore?*"):
        page.get_by_role("button", name="Try again").click()
    sent[2].fulfill(**problem(401, "key-missing"))
    expect(page.get_by_role("dialog")).to_be_visible()


@needs_chromium
def test_a_key_that_is_not_for_restoring_can_be_replaced_for_all_that_it_failed(page: Page) -> None:
    requests = answer_instead(page, problem(401, "key-missing"), *[problem(403, "scope-missing")] * 2)
    choose(page, photo_file("1.png"))
    page.get_by_label("Key", exact=True).fill("operator")
    page.keyboard.press("Enter")
    wait_for(page, "failed")
    choose(page, photo_file("2.png"))
    expect(page.locator('#photos [data-state="failed"]')).to_have_count(2)
    expect(page.locator("#failure-title")).to_have_text("This key may not restore photographs")
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    page.get_by_role("button", name="Use another key").click()
    expect(page.get_by_role("dialog")).to_contain_text("not for restoring photographs")
    page.get_by_label("Key", exact=True).fill("archive")
    page.keyboard.press("Enter")
    expect(page.locator('#photos [data-state="done"]')).to_have_count(2)
    sent = [request.headers.get("authorization") for request in requests]
    assert sent == [None, *["Bearer operator"] * 2, *["Bearer archive"] * 2]
    expect(page.get_by_role("button", name="Use another key")).to_be_hidden()


@needs_chromium
@pytest.mark.parametrize(("scheme", "width_px"), [("light", 360), ("dark", 2560)])
def test_the_page_breaks_no_rule_of_accessibility_and_needs_no_sideways_scrolling(
    page: Page, scheme: Any, width_px: int
) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width_px, "height": 800})
    axe = Axe()
    states = []

    def check(state: str) -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= width_px, state
        assert axe.run(page).response["violations"] == [], state
        states.append(state)

    check("start")
    restore(page, photo_file("a photograph with a very long name that has to go somewhere.png"))
    page.get_by_label("Damage found").check()
    page.get_by_role("button", name="100 %").click()
    check("done")
    page.get_by_role("button", name="Remove all").click()
    choose(page, {**photo_file("letter.jpg"), "buffer": b"Dear Sir"})
    wait_for(page, "failed")
    check("failed")
    assert len(states) == 3


@needs_chromium
def test_everything_can_be_reached_by_keyboard_in_the_order_it_is_seen(page: Page) -> None:
    restore(page, photo_file())
    page.locator("body").press("Tab")
    order = []
    for _ in range(14):
        order.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        page.keyboard.press("Tab")
    assert order[1:] == [
        "chooser",
        "sensitivity",
        "denoise",
        "mode",
        "clear",
        "entry",
        "remove",
        "show-damage",
        "zoom-fit",
        "zoom-full",
        "again",
        "download",
        "slider",
    ]


def test_every_problem_is_put_into_words_a_person_understands() -> None:
    source = (STATIC / "problems.js").read_text(encoding="utf-8")
    worded = set(re.findall(r'^  "?([a-z-]+)"?: \["', source, re.MULTILINE))
    kinds = {kind.name for kind in [INTERNAL_ERROR, *PROBLEM_KINDS.values()]}
    assert kinds - NEVER_SEEN_HERE <= worded
