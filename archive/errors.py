"""What can go wrong with a collection, as one tree.

ArchiveError
├── ServiceError               what came back from the service, or did not
│   ├── Unreachable            no answer: connection refused or broken, too slow
│   └── ServiceProblem         an answer that is a problem (RFC 9457); has its kind, detail and request id
│       ├── PhotoRefused       413, 415, 422: this photo, or an option for it
│       ├── NotAllowed         401, 403: the key
│       ├── WrongRelease       409: another release is active
│       ├── Unavailable        429, 502, 503, 507: later
│       └── DeadlineExceeded   504: it took too long
├── PhotoFailed                one photo cannot be restored; the others can
├── RunStopped                 no further photo can be restored
└── CollectionError            a folder, an address or a journal is not what the command needs

Every message says what was found, what was expected and what to do. What else a service answers, a 500 for one, is a
plain ServiceProblem.
"""


class ArchiveError(Exception):
    """The base of all errors of this package."""


class ServiceError(ArchiveError):
    """The service did not answer as hoped."""


class Unreachable(ServiceError):
    """No answer came."""


class ServiceProblem(ServiceError):
    """The service answered with a problem.

    kind: the end of its `type`, such as `photo-undecodable`; request_id: for whoever reads the service's log.
    """

    def __init__(self, status: int, kind: str, detail: str, request_id: str = "") -> None:
        super().__init__(f"{status} {kind}: {detail}")
        self.status = status
        self.kind = kind
        self.detail = detail
        self.request_id = request_id


class PhotoRefused(ServiceProblem):
    """The photo cannot be restored, or not with these options."""


class NotAllowed(ServiceProblem):
    """The key is missing, wrong, or not good for this call."""


class WrongRelease(ServiceProblem):
    """Another release than the one that was asked for is active."""


class Unavailable(ServiceProblem):
    """The same request may succeed later; the service may have said when."""

    retry_after_seconds: float | None = None


class DeadlineExceeded(ServiceProblem):
    """The photo took longer than the service allows."""


class PhotoFailed(ArchiveError):
    """One photo cannot be restored. reason: a few words with hyphens, to count by; detail: a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RunStopped(ArchiveError):
    """No further photo can be restored; what was done so far stands."""


class CollectionError(ArchiveError):
    """A folder, an address or a journal is not what the command needs."""
