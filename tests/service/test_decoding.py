from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from .serving import assert_problem, encode, grey_photo


def test_a_mask_of_another_size_is_refused_before_anything_is_decoded(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photo of one pixel must not bring a mask of a hundred megapixels along."""

    def fail(*args: Any) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("service.codecs.Codec.decode", fail)
    files = {"image": encode(grey_photo(1, 1)), "damage": encode(np.zeros((5000, 5000), np.uint8))}
    problem = assert_problem(client.post("/restore", files=files), 422, "invalid-option")
    assert problem["detail"] == "damage has 5000 x 5000 pixels, expected the photo's 1 x 1"
