"""Examples for the API's documentation, as the service really answered.

`tests/service/test_examples.py` causes each problem and each answer's headers anew, and compares.
"""

from typing import Any

REQUEST_ID = "0f5e1c9a7b3d4e6f8091a2b3c4d5e6f7"
ETAG = '"7d01b2f3c4a5968778695a4b3c2d1e0f7d01b2f3c4a5968778695a4b3c2d1e0f"'

PROBLEM_DETAILS: dict[str, str] = {
    "bad-upload": "the form has a field 'photo', but only image, damage, protect are known; options are "
    "query parameters: POST /restore?mode=tile",
    "key-missing": "a key is needed; send it as `Authorization: Bearer KEY` or as `X-API-Key: KEY`",
    "key-unknown": "the key is none of those that are known here; it may have been replaced",
    "scope-missing": "the key 'reading-room' has not the scope 'admin', which this needs; use another",
    "no-release": "the store holds no release 0099; it holds 0001",
    "release-pinned": "release 0099 cannot be activated, because RESTORE_MODEL_VERSION=0001 pins that one; start the "
    "service with another setting, or with none",
    "release-refused": "release 0002 cannot be served: release 0002: manifest.json is that of release 0001; publish it "
    "again",
    "quota-exceeded": "the key's requests a minute are used up; try again in 60 seconds",
    "upload-too-slow": "the body did not arrive within 0.5 seconds, or came more slowly than 1024 bytes a second; "
    "send it again",
    "wrong-release": "release 0099 was asked for, but 0001 is active; ask for that, or for none",
    "already-held": f"the answer would be the one with the tag {ETAG}, which If-None-Match names; use that one",
    "upload-too-large": "the body has 6,000 bytes, but the limit is 5,000 bytes; send a smaller file",
    "unsupported-format": "found a GIF, but only JPEG, PNG, WebP, TIFF and JPEG 2000 are taken; convert it to one of "
    "these",
    "unsupported-photo": "the PNG has more than one frame: it is an animation; send a still photo",
    "photo-undecodable": "the PNG ends inside a chunk: it is truncated; send it again, whole",
    "photo-too-large": "the photo has 30000 x 20000 pixels (600,000,000), but the limit is 120,000,000 "
    "pixels; send a smaller scan or raise the limit",
    "metadata-too-large": "the photo carries 2,012 bytes of metadata (profile, EXIF, XMP, texts), but the limit is "
    "1,000; save it without what is not needed",
    "photo-unsafe": "the photo cannot be decoded safely: it took more than 1 seconds; send it again from the original, "
    "or save it anew",
    "denoiser-missing": "denoise is above 0, but the release has no denoiser; leave denoise out, or use a release that "
    "has one",
    "invalid-option": "damage has 10 x 10 pixels, expected the photo's 128 x 96",
    "invalid-parameter": "sensitivity: Input should be less than or equal to 1",
    "internal-error": "this is a fault of the service, not of the request; quote the request id when reporting it",
    "not-ready": "the model store /srv/store holds no release; publish one, it is picked up within 5 seconds",
    "queue-full": "2 requests are waiting already, which is the limit; try again later",
    "no-room-for-upload": "uploads in progress already fill the 5,000 bytes set aside for them; send the photo "
    "again later",
    "codec-unavailable": "there is no memory to share with a process: Cannot allocate memory; try again later",
    "draining": "the service is about to stop; send the photo again, another instance may take it",
    "device-broken": "the device failed, and the service must be restarted: CUDA error: device-side assert triggered",
    "no-room-for-files": "there is no room for temporary files: File too large; try again later",
    "deadline-exceeded": "the photo was not restored within 0.2 seconds",
}
"""`detail`, by the name of the problem."""

MODELS: dict[str, Any] = {
    "active": "0001",
    "reason": None,
    "store_problem": None,
    "releases": [{"version": "0001", "state": "active", "reason": None}],
}
ALIVE = {"status": "alive"}
READY = {"status": "ready", "release": "0001"}

RESTORED_HEADERS: dict[str, tuple[str, str]] = {
    "Content-Disposition": ("a name for the file", 'inline; filename="restored.png"'),
    "ETag": ("names this very answer; send it along as `If-None-Match` with a repeat", ETAG),
    "Server-Timing": (
        "milliseconds waiting, decoding, restoring, encoding",
        "queue;dur=1.2, decode;dur=0.9, infer;dur=43.5, encode;dur=1.1",
    ),
    "X-Damage-Ratio": ("share of the pixels that were restored", "0.054688"),
    "X-Model-Version": ("the release that restored the photo", "0001"),
    "X-Request-ID": ("the request's id in the log", REQUEST_ID),
    "X-Suspected-From": (
        "only if nothing was restored, and a higher sensitivity would restore something: the least of 0.1, 0.2 to 1",
        "0.8",
    ),
}
"""Header to what it says, and a value."""

REQUEST_HEADERS: dict[str, tuple[str, str]] = {
    "If-None-Match": (
        "`ETag` of an answer that the caller has: if it would be the same again, 412 saves making it",
        ETAG,
    ),
    "X-Request-ID": (
        "an id for the log: at most 64 letters, digits, `.`, `_`, `-`; any other is replaced",
        "scan-0042",
    ),
}

PROBLEM_HEADERS: dict[str, tuple[str, str]] = {
    "ETag": ("names the answer that the caller has", ETAG),
    "Retry-After": ("seconds after which trying again is worth while", "5"),
    "WWW-Authenticate": ("what kind of key is needed", 'Bearer realm="photo-restoration"'),
}
HEADERS_OF_STATUS: dict[int, tuple[str, ...]] = {
    401: ("WWW-Authenticate",),
    403: ("WWW-Authenticate",),
    412: ("ETag",),
    429: ("Retry-After",),
    503: ("Retry-After",),
    507: ("Retry-After",),
}
