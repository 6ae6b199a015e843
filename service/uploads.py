"""Request bodies in, bounded at every byte: multipart with the field `image`, or the image itself.

Uploads stay in memory. The parser would move large parts to temporary files, but the photo is needed in memory as a
whole anyway, so a file would add a disk that can fill up and bound nothing.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import BadUpload, NoRoomForUpload, UploadTooLarge

FORM_FIELDS = {
    "image": "the photo",
    "damage": "a mask, an image of the photo's size: bright where to restore in any case",
    "protect": "a mask, an image of the photo's size: bright where never to touch",
}
"""Name to what it is."""
MAX_TEXT_PART_BYTES = 4096


@dataclass(frozen=True)
class Upload:
    """What a request brought, still encoded. `damage` and `protect` are masks: images of the photo's size."""

    image: bytes
    damage: bytes | None = None
    protect: bytes | None = None


class UploadBudget:
    """Counts the bytes of all uploads held in memory, so that many clients together stay within one bound."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    @contextmanager
    def share(self) -> Iterator["UploadShare"]:
        share = UploadShare(self)
        try:
            yield share
        finally:
            self.held_bytes -= share.held_bytes


class UploadShare:
    """One request's part of the budget; it only grows, and is given back as a whole."""

    def __init__(self, budget: UploadBudget) -> None:
        self.budget = budget
        self.held_bytes = 0

    def grow(self, num_bytes: int) -> None:
        """Raises NoRoomForUpload when all uploads together would exceed the budget."""
        if self.budget.held_bytes + num_bytes > self.budget.limit_bytes:
            raise NoRoomForUpload(
                f"uploads in progress already fill the {self.budget.limit_bytes:,} bytes set aside for them; "
                "send the photo again later"
            )
        self.budget.held_bytes += num_bytes
        self.held_bytes += num_bytes


class FormParser(MultiPartParser):
    """Keeps files in memory, refuses text for a file, and knows whether the form's end was seen: one cut short would
    pass for a small one."""

    spool_max_size = 0  # SpooledTemporaryFile's word for never
    is_complete = False

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        name = self._current_part.field_name
        if self._current_part.file is None and name in FORM_FIELDS:
            raise BadUpload(
                f"the field {name!r} has no filename, so it counts as text, but it must be a file: "
                f"curl -F {name}=@old.jpg, with the @"
            )

    def on_end(self) -> None:
        self.is_complete = True


async def read_upload(
    request: Request, limit_bytes: int, max_form_parts: int, share: UploadShare, note_bytes: Callable[[int], None]
) -> Upload:
    """The upload in a request's body, whatever the client says its type is, unless it says multipart.

    note_bytes: called with how many have arrived in all, whenever some have.

    Raises UploadTooLarge as soon as the length is announced or reached, BadUpload, NoRoomForUpload, and
    starlette's ClientDisconnect.
    """
    refuse_announced_length(request, limit_bytes)
    body = bounded(request.stream(), limit_bytes, share, note_bytes)
    if is_multipart(request):
        return await read_form(request, body, max_form_parts)
    image = b"".join([chunk async for chunk in body])
    if not image:
        raise BadUpload("the body is empty; send the photo as the multipart field `image`, or as the body itself")
    return Upload(image)


def refuse_announced_length(request: Request, limit_bytes: int) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise UploadTooLarge(limit_bytes, int(announced))


def is_multipart(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/")


async def bounded(
    stream: AsyncIterator[bytes], limit_bytes: int, share: UploadShare, note_bytes: Callable[[int], None]
) -> AsyncGenerator[bytes, None]:
    received_bytes = 0
    async for chunk in stream:
        received_bytes += len(chunk)
        if received_bytes > limit_bytes:
            raise UploadTooLarge(limit_bytes)
        share.grow(len(chunk))
        note_bytes(received_bytes)
        yield chunk


async def read_form(request: Request, body: AsyncGenerator[bytes, None], max_parts: int) -> Upload:
    parser = FormParser(
        request.headers,
        body,
        max_files=max_parts,
        max_fields=max_parts,
        max_part_size=MAX_TEXT_PART_BYTES,
    )
    parser.stream = until_complete(body, parser)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise BadUpload(f"the multipart body cannot be read: {error.message}") from error
    except UnicodeError as error:
        # The client chooses the charset of its field names, and some of Python's codecs raise more than is expected.
        raise BadUpload("the multipart body cannot be read: its field names are not in the charset it names") from error
    try:
        return await pick_fields(form)
    finally:
        await form.close()


async def until_complete(body: AsyncGenerator[bytes, None], parser: FormParser) -> AsyncGenerator[bytes, None]:
    """Raised in here, while the parser still reads, its error makes the parser close the files it has open."""
    async for chunk in body:
        yield chunk
    if not parser.is_complete:
        raise MultiPartException("it ends before its last boundary")


async def pick_fields(form: FormData) -> Upload:
    """Every field known, at most once and not empty; `image` among them. Anything else: BadUpload."""
    files: dict[str, bytes] = {}
    for name, value in form.multi_items():
        if name not in FORM_FIELDS:
            raise BadUpload(
                f"the form has a field {name[:50]!r}, but only {', '.join(FORM_FIELDS)} are known; "
                "options are query parameters: POST /restore?mode=tile"
            )
        if name in files:
            raise BadUpload(f"the form has the field {name!r} twice; send one photo a request")
        assert isinstance(value, UploadFile), "the parser refuses text of these names"
        files[name] = await value.read()
        if not files[name]:
            raise BadUpload(f"the field {name!r} is an empty file")
    if "image" not in files:
        raise BadUpload("the form has no field 'image'; send the photo in it: curl -F image=@old.jpg")
    return Upload(**files)
