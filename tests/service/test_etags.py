"""Who holds an answer need not have it made again."""

import pytest
import torch
from fastapi.testclient import TestClient
from torch import Tensor

from service import etags
from service.answers import RestoreQuery
from service.uploads import Upload

from .serving import MakeClient, assert_problem, context_of, encode, grey_photo, publish, scratched_photo

PHOTO = encode(scratched_photo())


def tag(client: TestClient, query: str = "", **files: bytes) -> str:
    answer = client.post(f"/restore{query}", files={"image": PHOTO, **files})
    assert answer.status_code == 200, answer.text
    return answer.headers["etag"]


def test_the_same_request_has_the_same_tag_and_another_one_another(client: TestClient) -> None:
    mask = encode(grey_photo()[:, :, 0])
    tags = [
        tag(client),
        tag(client, "?sensitivity=0.6"),
        tag(client, "?output=damage_map"),
        tag(client, damage=mask),
        tag(client, protect=mask),
        tag(client, image=encode(grey_photo())),
    ]
    assert len(set(tags)) == len(tags)
    assert tag(client) == tags[0]
    assert tag(client, "?release=0001&mode=auto&sensitivity=0.50") == tags[0]
    assert tags[0].startswith('"')
    assert tags[0].endswith('"')


def test_a_raw_body_has_the_tag_of_the_form(client: TestClient) -> None:
    assert client.post("/restore", content=PHOTO).headers["etag"] == tag(client)


@pytest.mark.parametrize("header", ["{}", "W/{}", '"other", {}', '"with, comma" , W/{}'])
def test_a_repeat_that_names_the_tag_is_answered_412_and_nothing_is_restored(client: TestClient, header: str) -> None:
    etag = tag(client)
    pixels = context_of(client).metrics.pixels
    before = pixels._value.get()
    answer = client.post("/restore", files={"image": PHOTO}, headers={"If-None-Match": header.format(etag)})
    assert_problem(answer, 412, "already-held")
    assert answer.headers["etag"] == etag
    assert pixels._value.get() == before


@pytest.mark.parametrize("header", ['"other"', "*", "", "not a tag", '"'])
def test_any_other_tag_is_none(client: TestClient, header: str) -> None:
    answer = client.post("/restore", files={"image": PHOTO}, headers={"If-None-Match": header})
    assert answer.status_code == 200


def test_a_tag_of_other_options_does_not_count(client: TestClient) -> None:
    held = {"If-None-Match": tag(client)}
    assert client.post("/restore?sensitivity=0.7", files={"image": PHOTO}, headers=held).status_code == 200


def test_another_release_another_code_or_another_precision_is_another_tag(
    client: TestClient, make_client: MakeClient, tmp_path, monkeypatch
) -> None:
    for _ in range(2):
        publish(tmp_path)
    newer, exact = make_client(model_store=tmp_path), make_client(precision="float32")
    tags = {tag(client), tag(newer), tag(exact)}
    monkeypatch.setattr(etags, "code_fingerprint", lambda: "of tomorrow")
    tags.add(tag(client))
    assert len(tags) == 3 + (context_of(client).releases.restorer().precision != "float32")


def test_an_answer_in_whose_midst_batches_were_cut_has_no_tag_and_the_next_one_has(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client()
    network = context_of(client).releases.restorer().generator._generator
    detect = network.detect

    def hold_two(tiles: Tensor) -> Tensor:
        if len(tiles) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return detect(tiles)

    monkeypatch.setattr(network, "detect", hold_two)
    photo = encode(scratched_photo(600, 500))  # twelve tiles
    cut, whole = (client.post("/restore", content=photo) for _ in range(2))
    assert (cut.status_code, "etag" in cut.headers, "etag" in whole.headers) == (200, False, True)


def test_where_one_part_ends_and_the_next_begins_counts(client: TestClient) -> None:
    restorer, query = context_of(client).releases.restorer(), RestoreQuery()
    masks = [
        Upload(b"photo", damage=b"ab"),
        Upload(b"photo", damage=b"a", protect=b"b"),
        Upload(b"photoa", damage=b"b"),
    ]
    assert len({etags.etag_of(upload, query, restorer) for upload in masks}) == 3
