"""Everything that can go wrong in the domain, as one tree.

RestorationError
├── PhotoError                 the photo is at fault
│   ├── UnsupportedFormat      not a format on the list
│   ├── UnsupportedPhoto       the format is taken, but not this kind of photo (floating point, animation)
│   ├── PhotoUndecodable       the bytes are damaged or are not what they claim to be
│   ├── PhotoTooLarge          more pixels, or a longer side, than the limit
│   ├── MetadataTooLarge       more profile, EXIF, XMP and texts than the limit
│   └── PhotoUnsafe            decoding it takes more time or memory than it may, or brings the decoder down
├── InvalidOption              an option is out of range, or cannot be had for this photo
│   └── DenoiserMissing        denoising was asked of a release that cannot
├── ReleaseError               the model store or a release in it is at fault
│   ├── NoRelease              the store holds no release that can be served
│   ├── ReleaseInvalid         a release fails its checks: manifest, checksum, shapes, self-test
│   ├── StoreUnreachable       the store does not answer, or broke off; it may the next time
│   ├── ReleaseExists          a release is immutable; its number is taken
│   └── ReleaseWorse           a run is worse than the newest release, and is not published
└── TrainingError              the training job cannot go on
    ├── DataError              a data folder is empty, unpaired or unreadable
    ├── CheckpointError        a checkpoint is missing, of another run, or cannot be written
    └── LossNotFinite          a loss turned NaN or infinite

Every message says what was found, what was expected and what to do.
"""


class RestorationError(Exception):
    """The base of all domain errors."""


class PhotoError(RestorationError):
    """The photo is at fault."""


class UnsupportedFormat(PhotoError):
    """The bytes are not in a format on the list."""


class UnsupportedPhoto(PhotoError):
    """The format is on the list, but this kind of photo is not."""


class PhotoUndecodable(PhotoError):
    """The bytes are damaged, truncated, or not what their header claims."""


class PhotoTooLarge(PhotoError):
    """The photo has more pixels, or a longer side, than the limit.

    pages_px: of the pages up to one of this size, all together, if there are several.
    """

    def __init__(self, height_px: int, width_px: int, limit: str, *, pages_px: int | None = None) -> None:
        size = f"{width_px} x {height_px} pixels"
        if pages_px is None:
            found, mend = f"the photo has {size} ({height_px * width_px:,})", "send a smaller scan"
        else:
            found = f"the photo's pages up to one of {size} have {pages_px:,} together"
            mend = "send fewer at a time"
        super().__init__(f"{found}, but the limit is {limit}; {mend} or raise the limit")
        self.height_px = height_px
        self.width_px = width_px


class MetadataTooLarge(PhotoError):
    """The photo carries more profile, EXIF, XMP and texts than the limit."""

    def __init__(self, found_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"the photo carries {found_bytes:,} bytes of metadata (profile, EXIF, XMP, texts), but the limit is "
            f"{limit_bytes:,}; save it without what is not needed"
        )


class PhotoUnsafe(PhotoError):
    """Decoding it takes more time or memory than it may, or brings the decoder down."""


class InvalidOption(RestorationError):
    """An option is out of range, or cannot be had for this photo."""


class DenoiserMissing(InvalidOption):
    """Denoising was asked of a release whose generator has no denoiser."""

    def __init__(self) -> None:
        super().__init__(
            "denoise is above 0, but the release has no denoiser; leave denoise out, or use a release that has one"
        )


class ReleaseError(RestorationError):
    """The model store or a release in it is at fault."""


class NoRelease(ReleaseError):
    """The store holds no release that can be served."""


class ReleaseInvalid(ReleaseError):
    """A release fails its checks: manifest, checksums, shapes or golden self-test."""


class StoreUnreachable(ReleaseError):
    """The store does not answer, or broke off in the middle. It may be otherwise the next time."""


class ReleaseExists(ReleaseError):
    """A release is immutable and its number is taken."""


class ReleaseWorse(ReleaseError):
    """A run scores worse than the newest release beyond the tolerance, and is not published."""


class TrainingError(RestorationError):
    """The training job cannot go on."""


class DataError(TrainingError):
    """A data folder is empty, unpaired or unreadable."""


class CheckpointError(TrainingError):
    """A checkpoint is missing, damaged, belongs to another run, or cannot be written."""


class LossNotFinite(TrainingError):
    """A loss turned NaN or infinite; the message names the step and the batch's seed."""
