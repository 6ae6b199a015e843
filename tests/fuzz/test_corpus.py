"""What fuzzing found, once more: files of which each reaches a line of the decoders that no other does."""

import zipfile
from pathlib import Path

import pytest

from .decoders import exercise

CORPUS = zipfile.ZipFile(Path(__file__).with_name("corpus.zip"))


@pytest.mark.filterwarnings("default")  # decoders warn of what they find in damaged files
@pytest.mark.parametrize("name", CORPUS.namelist())
def test_nothing_but_a_photo_error_comes_of_it(name: str) -> None:
    exercise(CORPUS.read(name))
