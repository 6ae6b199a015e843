"""The gallery: what a release makes of photographs that may be shown, with damage drawn by us, failures included.

Photographs, families of damage and seeds stand here, so that nothing can be chosen by its result.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from restoration.restorer import Restoration, RestoreOptions, restore_photo
from restoration.tile_generator import TileGenerator
from training.cases import HEAVY, Case, make_case
from training.metrics import detection_scores, psnr
from training.overlays import OverlayBank
from training.samples import load_sample

SENSITIVITIES = (0.4, 0.5, 0.7)
DEFAULT = RestoreOptions().sensitivity
SHOWN = (
    ("astronaut", "strokes"),
    ("chelsea", "hairlines"),
    ("coffee", "stains"),
    ("camera", "creases"),
    ("rocket", "scratches"),
    ("motorcycle", "dust"),
    ("coins", "holes"),
    ("moon", "fibres"),
    ("astronaut", "mixtures"),
    ("brick", "mixtures"),
    ("chelsea", HEAVY),
    ("hubble_deep_field", "clean"),
)
"""Sample and family of damage."""
SHORT_SIDE_PX = 400
"""Photographs are restored, and shown, at this size."""
MOST_MISSED = 0.5
LEAST_PRECISION = 0.7
LEAST_FALSE_ALARM = 0.001
"""Of the picture; smaller ones are no failure to speak of."""
LEAST_LOSS_DB = 0.05

QUALITY = 80


@dataclass(frozen=True, eq=False)
class Exhibit:
    """One photograph; restorations in the order of SENSITIVITIES."""

    name: str
    case: Case
    restorations: tuple[Restoration, ...]

    @property
    def title(self) -> str:
        damage = {"clean": "without damage", HEAVY: "heavy damage"}.get(self.case.family, self.case.family)
        return f"{self.name.capitalize()}, {damage}"

    @property
    def by_default(self) -> Restoration:
        return self.restorations[SENSITIVITIES.index(DEFAULT)]

    @property
    def before_db(self) -> float:
        return psnr(self.case.damaged, self.case.clean)

    @property
    def after_db(self) -> tuple[float, ...]:
        return tuple(psnr(each.samples, self.case.clean) for each in self.restorations)

    def failures(self) -> list[str]:
        """Sentences, by fixed rules, so that no failure depends on who looks."""
        return [*self._failures_of_map(), *self._failures_of_fill()]

    def _failures_of_map(self) -> Iterator[str]:
        found, case = self.by_default.mask, self.case
        false_alarm = float((found & ~case.altered).mean())
        if case.family == "clean":
            if false_alarm > 0:
                yield f"False alarm: {false_alarm:.1%} of an undamaged photograph was painted over."
            return
        scores = detection_scores(found, case.visible, case.visible | ~case.altered)
        if scores["recall"] < 1 - MOST_MISSED:
            yield f"Missed: {1 - scores['recall']:.0%} of the damaged pixels."
        if false_alarm > LEAST_FALSE_ALARM and scores["precision"] < LEAST_PRECISION:
            yield f"False alarm: {false_alarm:.1%} of the picture was painted over without being damaged."

    def _failures_of_fill(self) -> Iterator[str]:
        for sensitivity, after_db in zip(SENSITIVITIES, self.after_db, strict=True):
            if after_db < self.before_db - LEAST_LOSS_DB:
                yield f"Worse than before at {sensitivity}: {after_db:.1f} after {self.before_db:.1f} dB."


def show_photos(bank: OverlayBank, generator: TileGenerator) -> list[Exhibit]:
    """Restore each of SHOWN at each of SENSITIVITIES."""
    return [
        _exhibit(name, make_case(_fitted(load_sample(name)), name, family, bank, seed=seed), generator)
        for seed, (name, family) in enumerate(SHOWN)
    ]


def _exhibit(name: str, case: Case, generator: TileGenerator) -> Exhibit:
    photo = case.photo()
    options = [RestoreOptions(sensitivity=sensitivity) for sensitivity in SENSITIVITIES]
    return Exhibit(name.replace("_", " "), case, tuple(restore_photo(photo, generator, each) for each in options))


def _fitted(photo: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8, made smaller if its short side is longer than is shown."""
    if (scale := SHORT_SIDE_PX / min(photo.shape[:2])) >= 1:
        return photo
    size = (round(photo.shape[1] * scale), round(photo.shape[0] * scale))
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS))


def write_gallery(exhibits: Sequence[Exhibit], page: Path, release: str) -> None:
    """Write the page (Markdown), and its pictures (WebP) into `images/gallery` beside it; older ones there go."""
    folder = page.parent / "images" / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    for picture in folder.glob("*.webp"):
        picture.unlink()
    sections = [_section(exhibit, folder) for exhibit in exhibits]
    page.write_text("\n".join([_introduction(exhibits, release), *sections]), encoding="utf-8")


INTRODUCTION = """# Gallery

What release {release} makes of {num} photographs, knowing nothing but the picture. Photographs, kinds of damage and
seeds stand in `training/gallery.py`; none was chosen by its result, and what is called a failure is a rule there, too.

At the default sensitivity, {default}, {num_nearer} of the {num_damaged} that are damaged come nearer to the undamaged
photograph. {num_failed} of the {num} have a failure, which is named. Under the pictures: PSNR against the undamaged
photograph (higher is nearer, 100 is equal), and how much of the picture was taken for damage at the default. A click
shows a picture at the size at which it was restored.

The photographs are those that scikit-image ships (public domain or CC0), made old prints: sepia, faded, hard, soft,
grainy, now and then a negative. The damage is drawn by this project. Neither was trained on.

```bash with --dry-run
.venv/bin/python -m training gallery
```

makes this page anew, with the newest release.
"""


def _introduction(exhibits: Sequence[Exhibit], release: str) -> str:
    damaged = [exhibit for exhibit in exhibits if exhibit.case.family != "clean"]
    nearer = [exhibit for exhibit in damaged if exhibit.after_db[SENSITIVITIES.index(DEFAULT)] > exhibit.before_db]
    return INTRODUCTION.format(
        release=release,
        default=DEFAULT,
        num=len(exhibits),
        num_damaged=len(damaged),
        num_nearer=len(nearer),
        num_failed=sum(bool(exhibit.failures()) for exhibit in exhibits),
    )


def _section(exhibit: Exhibit, folder: Path) -> str:
    stem = exhibit.title.replace(",", "").replace(" ", "_").lower()
    restored = [(f"sensitivity {s}", each.samples) for s, each in zip(SENSITIVITIES, exhibit.restorations, strict=True)]
    pictures = [("before", exhibit.case.damaged), ("taken for damage", _mark(exhibit)), *restored]
    cells = []
    for title, picture in pictures:
        name = f"{stem}_{title.replace(' ', '_').replace('.', '')}.webp"
        Image.fromarray(picture).save(folder / name, "WEBP", quality=QUALITY, method=6)
        cells.append(f"[![{exhibit.title}: {title}](images/gallery/{name})](images/gallery/{name})")
    share = f"{exhibit.by_default.damage_ratio:.1%} of the picture"
    figures = [f"{exhibit.before_db:.1f} dB", share, *(f"{after_db:.1f} dB" for after_db in exhibit.after_db)]
    lines = [
        f"## {exhibit.title}",
        "",
        _row([title for title, _ in pictures]),
        "|" + "---|" * len(pictures),
        _row(cells),
        _row(figures),
        "",
    ]
    return "\n".join([*lines, *(f"**{failure}**\n" for failure in exhibit.failures())])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _mark(exhibit: Exhibit) -> np.ndarray:
    """(H, W, 3) uint8: the photograph, paler, and what was written at the default sensitivity in red."""
    marked: np.ndarray = (exhibit.case.damaged // 2 + 110).astype(np.uint8)
    marked[exhibit.by_default.mask] = (200, 30, 10)
    return marked
