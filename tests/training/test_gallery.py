"""The gallery's rules on pictures whose faults are known, and its page."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from restoration.restorer import Restoration
from training.cases import Case
from training.gallery import SENSITIVITIES, Exhibit, write_gallery

CLEAN = np.full((40, 60, 3), 90, np.uint8)


@pytest.fixture
def scratched() -> Case:
    damaged = CLEAN.copy()
    damaged[10:14] = 250
    return Case("scratches", "wall", damaged, CLEAN)


def exhibit(case: Case, samples: np.ndarray) -> Exhibit:
    """What a release made of the case, the same at every sensitivity: what differs was taken for damage."""
    mask = (samples != case.damaged).any(axis=2)
    restoration = Restoration(samples, mask.astype(np.uint8) * 255, mask)
    return Exhibit("wall", case, (restoration,) * len(SENSITIVITIES))


def test_a_restored_photograph_has_no_failure(scratched):
    assert exhibit(scratched, CLEAN).failures() == []


def test_what_was_missed_is_named(scratched):
    samples = CLEAN.copy()
    samples[10:13] = 250
    assert exhibit(scratched, samples).failures() == ["Missed: 75% of the damaged pixels."]


def test_what_was_painted_without_being_damaged_is_named(scratched):
    samples = CLEAN.copy()
    samples[20:40] = 93
    failures = exhibit(scratched, samples).failures()
    assert failures == ["False alarm: 50.0% of the picture was painted over without being damaged."]


def test_what_came_out_worse_is_named_at_every_sensitivity(scratched):
    samples = scratched.damaged.copy()
    samples[20:30] = 0
    worse = [failure for failure in exhibit(scratched, samples).failures() if failure.startswith("Worse")]
    assert [failure.split(":")[0] for failure in worse] == [f"Worse than before at {each}" for each in SENSITIVITIES]


def test_an_undamaged_photograph_must_stay_as_it_is():
    clean = Case("clean", "wall", CLEAN, CLEAN)
    assert exhibit(clean, CLEAN).failures() == []
    painted = CLEAN.copy()
    painted[0] = 0
    alarm, *worse = exhibit(clean, painted).failures()
    assert alarm == "False alarm: 2.5% of an undamaged photograph was painted over."
    assert [failure.startswith("Worse than before") for failure in worse] == [True] * len(SENSITIVITIES)


def test_the_page_shows_each_photograph_before_found_and_restored_and_counts_its_failures(scratched, tmp_path):
    page = tmp_path / "docs" / "gallery.md"
    stale = page.parent / "images" / "gallery" / "of_an_older_release.webp"
    stale.parent.mkdir(parents=True)
    stale.touch()
    missed = exhibit(replace(scratched, family="heavy"), scratched.damaged)
    write_gallery([exhibit(scratched, CLEAN), missed], page, "0007")
    text = page.read_text()
    assert "What release 0007 makes of 2 photographs" in text
    assert "1 of the 2 that are damaged come nearer" in text
    assert "**Missed: 100% of the damaged pixels.**" in text
    pictures = sorted(stale.parent.iterdir())
    assert len(pictures) == 2 * (2 + len(SENSITIVITIES))
    assert all(text.count(f"(images/gallery/{picture.name})") == 2 for picture in pictures)
    with Image.open(stale.parent / "wall_scratches_taken_for_damage.webp") as marked:
        red = np.asarray(marked.convert("RGB")).astype(int)
        assert red[11:13, :, 0].mean() > red[11:13, :, 2].mean() + 100
        assert abs(red[30:, :, 0] - red[30:, :, 2]).max() < 20
