import email
import email.policy
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tifffile
from fastapi.testclient import TestClient
from PIL import Image, ImageOps

from service.routes import ratio_text

from .serving import assert_problem, decode, encode, grey_photo, scratched_photo


def test_a_form_upload_comes_back_restored(client: TestClient) -> None:
    damaged = scratched_photo()
    answer = client.post("/restore", files={"image": ("old.png", encode(damaged))})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    restored = decode(answer.content)
    assert restored.shape == damaged.shape
    assert (restored[:, 64:68] != 255).any()
    assert np.array_equal(restored[:, :60], damaged[:, :60])
    assert np.array_equal(restored[:, 72:], damaged[:, 72:])


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", "application/x-www-form-urlencoded"])
def test_a_raw_body_gives_the_same_bytes_as_a_form_whatever_type_it_claims(
    client: TestClient, content_type: str
) -> None:
    photo = encode(scratched_photo())
    from_form = client.post("/restore", files={"image": photo})
    from_body = client.post("/restore", content=photo, headers={"Content-Type": content_type})
    assert from_body.status_code == 200
    assert from_body.content == from_form.content


def test_a_raw_body_without_a_type_is_taken(client: TestClient) -> None:
    assert client.post("/restore", content=encode(grey_photo())).status_code == 200


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_undamaged_photo_comes_back_byte_for_byte(client: TestClient, format: str) -> None:
    photo = encode(grey_photo(), format)
    answer = client.post("/restore", content=photo)
    assert answer.content == photo
    assert answer.headers["x-damage-ratio"] == "0.000000"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_answer_has_the_format_and_size_of_the_photo(client: TestClient, format: str) -> None:
    answer = client.post("/restore", files={"image": encode(scratched_photo(), format)})
    assert answer.headers["content-type"] == f"image/{format.lower()}"
    assert decode(answer.content).shape == (96, 128, 3)
    assert float(answer.headers["x-damage-ratio"]) > 0.0


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "tiff"])
def test_another_format_can_be_asked_for(client: TestClient, format: str) -> None:
    answer = client.post(f"/restore?format={format}", content=encode(scratched_photo()))
    assert answer.headers["content-type"] == f"image/{format}"
    assert decode(answer.content).shape == (96, 128, 3)


def test_quality_makes_a_jpeg_smaller(client: TestClient) -> None:
    photo = encode(np.random.default_rng(0).integers(0, 200, (96, 128, 3), np.uint8))
    fine, coarse = (client.post(f"/restore?format=jpeg&quality={quality}", content=photo) for quality in (95, 20))
    assert len(coarse.content) < len(fine.content)


@pytest.mark.parametrize("mode", ["auto", "tile", "resize"])
def test_every_mode_answers(client: TestClient, mode: str) -> None:
    assert client.post(f"/restore?mode={mode}", content=encode(scratched_photo())).status_code == 200


def test_damage_is_restored_where_the_mask_says_so_and_protected_pixels_stay(client: TestClient) -> None:
    photo = grey_photo()
    damage, protect = np.zeros((96, 128), np.uint8), np.zeros((96, 128), np.uint8)
    damage[20:60, 20:60] = 255
    protect[20:60, 40:60] = 255
    files = {"image": encode(photo), "damage": encode(damage), "protect": encode(protect)}
    answer = client.post("/restore", files=files)
    changed = (decode(answer.content) != photo).any(axis=2)
    assert changed[20:60, 20:40].mean() > 0.5
    assert not changed[20:60, 40:60].any()
    assert not changed[:20].any()
    assert float(answer.headers["x-damage-ratio"]) == pytest.approx(40 * 20 / (96 * 128), abs=1e-6)


def test_a_protected_scratch_comes_back_byte_for_byte(client: TestClient) -> None:
    photo = encode(scratched_photo())
    answer = client.post("/restore", files={"image": photo, "protect": encode(np.full((96, 128), 255, np.uint8))})
    assert answer.content == photo


def test_the_damage_map_is_a_grey_png_of_the_photos_size(client: TestClient) -> None:
    answer = client.post("/restore?output=damage_map", content=encode(scratched_photo(), "JPEG", quality=95))
    damage_map = decode(answer.content)
    assert answer.headers["content-type"] == "image/png"
    assert damage_map.shape == (96, 128)
    assert damage_map[:, 65:67].min() > 200
    assert damage_map[:, :50].max() < 50


def test_a_comparison_shows_before_and_after_side_by_side(client: TestClient) -> None:
    damaged = scratched_photo()
    restored = decode(client.post("/restore", content=encode(damaged)).content)
    comparison = decode(client.post("/restore?output=comparison", content=encode(damaged)).content)
    assert np.array_equal(comparison, np.concatenate((damaged, restored), axis=1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_its_tag_says_a_comparison_has_before_on_the_left(client: TestClient, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    photo = encode(scratched_photo(), exif=exif)
    answers = [client.post(f"/restore{query}", content=photo).content for query in ("", "?output=comparison")]
    before, restored, comparison = (as_seen(encoded) for encoded in (photo, *answers))
    assert np.array_equal(comparison, np.concatenate((before, restored), axis=1))


def as_seen(encoded: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))


def test_all_is_a_form_with_the_photo_the_map_and_what_is_known_of_them(client: TestClient) -> None:
    photo = encode(scratched_photo(), "JPEG")
    answer = client.post("/restore?output=all", content=photo)
    contents = read_form(answer)
    assert list(contents) == ["restored", "damage_map", "info"]
    assert contents["restored"] == client.post("/restore", content=photo).content
    assert decode(contents["damage_map"]).shape == (96, 128)
    info = json.loads(contents["info"])
    assert info["release"] == "0001"
    assert info["format"] == "jpeg"
    assert info["damage_ratio"] == pytest.approx(float(answer.headers["x-damage-ratio"]), abs=1e-6)


def test_where_nothing_is_sure_enough_the_answer_says_which_sensitivity_would_do(client: TestClient) -> None:
    photo = encode(scratched_photo())
    answer = client.post("/restore?sensitivity=0&output=all", content=photo)
    assert answer.headers["x-damage-ratio"] == "0.000000"
    found_from = float(answer.headers["x-suspected-from"])
    assert json.loads(read_form(answer)["info"])["suspected_from"] == found_from
    repaired = client.post(f"/restore?sensitivity={found_from}&output=all", content=photo)
    assert float(repaired.headers["x-damage-ratio"]) > 0.0
    assert "x-suspected-from" not in repaired.headers
    assert json.loads(read_form(repaired)["info"])["suspected_from"] is None
    assert "x-suspected-from" not in client.post("/restore", content=encode(grey_photo())).headers


def test_the_ratio_of_a_single_pixel_in_a_large_scan_is_not_0() -> None:
    assert ratio_text(1 / 100_000_000) == "0.000001"
    assert ratio_text(0.0546875) == "0.054688"
    assert ratio_text(0.0) == "0.000000"


def deep_tiff(samples: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    tifffile.imwrite(encoded, samples.astype(np.uint16) * 257, photometric="rgb")
    return encoded.getvalue()


def pages(*samples: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    first, *further = map(Image.fromarray, samples)
    first.save(encoded, "TIFF", save_all=True, append_images=further)
    return encoded.getvalue()


def test_a_16_bit_scan_comes_back_with_16_bits(client: TestClient) -> None:
    answer = client.post("/restore", content=deep_tiff(scratched_photo()))
    restored = tifffile.imread(io.BytesIO(answer.content))
    assert restored.dtype == np.uint16
    assert (restored[:, 64:68] != 65535).any()
    assert np.array_equal(restored[:, :60], scratched_photo()[:, :60].astype(np.uint16) * 257)


def test_16_bits_go_into_a_jpeg_only_as_8(client: TestClient) -> None:
    photo = deep_tiff(scratched_photo())
    problem = assert_problem(client.post("/restore?format=jpeg", content=photo), 422, "invalid-option")
    assert "add depth=8" in problem["detail"]
    assert decode(client.post("/restore?format=jpeg&depth=8", content=photo).content).shape == (96, 128, 3)
    assert tifffile.imread(io.BytesIO(client.post("/restore?depth=8", content=photo).content)).dtype == np.uint8


def test_every_page_of_a_tiff_is_restored(client: TestClient) -> None:
    photo = pages(grey_photo(), scratched_photo(), scratched_photo(64, 80))
    restored = tifffile.TiffFile(io.BytesIO(client.post("/restore", content=photo).content)).pages
    assert np.array_equal(restored[0].asarray(), grey_photo())
    assert (restored[1].asarray()[:, 64:68] != 255).any()
    assert (restored[2].asarray()[:, 40:44] != 255).any()


def test_all_of_several_pages_is_every_page_and_the_map_of_the_first(client: TestClient) -> None:
    photo = pages(scratched_photo(), scratched_photo(64, 80))
    parts = read_form(client.post("/restore?output=all&preview=true", content=photo))
    assert parts["restored"] == client.post("/restore", content=photo).content
    assert json.loads(parts["info"])["num_pages"] == 2
    first = scratched_photo()
    for name in ("damage_map", "before", "after"):
        assert Image.open(io.BytesIO(parts[name])).size == (first.shape[1], first.shape[0])


@pytest.mark.parametrize("query", ["format=jpeg", "output=damage_map", "output=comparison", "output=all&format=png"])
def test_several_pages_go_into_nothing_that_shows_one(
    client: TestClient, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.restoring.restore_photo", None)  # it is said before anything is restored
    answer = client.post(f"/restore?{query}", content=pages(scratched_photo(), grey_photo()))
    assert "2 pages" in assert_problem(answer, 422, "invalid-option")["detail"]


def wide(num_columns: int) -> np.ndarray:
    return np.full((8, num_columns, 3), 90, np.uint8)


def on_its_side(samples: np.ndarray, format: str) -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return encode(samples, format, exif=exif)


def inks() -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(scratched_photo()).convert("CMYK").save(encoded, "TIFF")
    return encoded.getvalue()


@pytest.mark.parametrize(
    ("photo", "query", "reason"),
    [
        (lambda: deep_tiff(scratched_photo()), "format=jpeg", "16 bits"),
        (lambda: deep_tiff(scratched_photo()), "output=all&format=webp", "16 bits"),
        (inks, "format=png", "CMYK"),
        (inks, "format=tiff&quality=90", "losslessly"),
        (lambda: encode(np.dstack((scratched_photo(), scratched_photo()[:, :, :1]))), "format=jpeg", "alpha"),
        (lambda: encode(wide(16_384)), "format=webp", "16,383"),
        (lambda: encode(wide(8_192), "WEBP"), "output=comparison", "16,383"),
        (lambda: on_its_side(wide(8_192).transpose(1, 0, 2), "WEBP"), "output=comparison", "16,383"),
        (lambda: encode(scratched_photo()), "quality=90", "losslessly"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_restored(
    client: TestClient, photo: Callable[[], bytes], query: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.restoring.restore_photo", None)
    assert reason in assert_problem(client.post(f"/restore?{query}", content=photo()), 422, "invalid-option")["detail"]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_history_names_the_release_unless_it_is_switched_off(client: TestClient, format: str) -> None:
    photo = encode(scratched_photo(), format)
    assert b"release 0001" in client.post("/restore", content=photo).content
    assert b"release 0001" not in client.post("/restore?history=false", content=photo).content
    assert (
        b"release 0001" not in client.post(f"/restore?format=png&history={True}", content=encode(grey_photo())).content
    )


def test_the_same_photo_gives_the_same_bytes(client: TestClient) -> None:
    answers = [client.post("/restore?output=all", content=encode(scratched_photo())) for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert answers[0].headers["content-type"] == answers[1].headers["content-type"]


def test_the_headers_say_who_restored_and_how_long_it_took(client: TestClient) -> None:
    headers = client.post("/restore?release=0001", content=encode(scratched_photo(), "JPEG")).headers
    assert headers["x-model-version"] == "0001"
    assert headers["content-disposition"] == 'inline; filename="restored.jpg"'
    assert [part.split(";")[0] for part in headers["server-timing"].split(", ")] == [
        "queue",
        "decode",
        "infer",
        "encode",
    ]


@pytest.mark.parametrize(("format", "mode"), [("TIFF", "RGB"), ("TIFF", "RGBA"), ("PNG", "L")])
def test_previews_show_before_and_after_in_a_format_for_browsers(client: TestClient, format: str, mode: str) -> None:
    photo = io.BytesIO()
    Image.fromarray(scratched_photo()).convert(mode).save(photo, format)
    contents = read_form(client.post("/restore?output=all&preview=true", content=photo.getvalue()))
    assert list(contents) == ["restored", "damage_map", "info", "before", "after"]
    before, after = (Image.open(io.BytesIO(contents[name])) for name in ("before", "after"))
    assert {before.format, after.format} == {"PNG" if mode == "RGBA" else "JPEG"}
    assert before.size == after.size == (128, 96)
    assert np.asarray(before)[:, 65:67].mean() > np.asarray(after)[:, 65:67].mean()


def test_previews_of_anything_but_all_are_refused(client: TestClient) -> None:
    assert_problem(client.post("/restore?preview=true", content=encode(scratched_photo())), 422, "invalid-option")


@pytest.mark.parametrize(("tag", "told"), [(None, 1), (1, 1), (6, 6), (8, 8), (0, 1), (9, 1)])
def test_how_the_photo_is_to_be_turned_is_told(client: TestClient, tag: int | None, told: int) -> None:
    exif = Image.Exif()
    if tag is not None:
        exif[274] = tag
    answer = client.post("/restore?output=all", content=encode(scratched_photo(), "JPEG", exif=exif))
    assert json.loads(read_form(answer)["info"])["orientation"] == told


def read_form(answer: Any) -> dict[str, bytes]:
    """What a multipart/form-data answer holds, by name."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer.content, policy=email.policy.HTTP)
    return {
        str(part.get_param("name", header="content-disposition")): part.get_content() for part in message.iter_parts()
    }
