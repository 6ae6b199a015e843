"""The joint between a collection and what restores it: an encoded photo in, a restored one and its facts out."""

from dataclasses import dataclass
from typing import Literal, Protocol

from archive.answers import Restored
from archive.client import Client, RestoreParameters
from archive.errors import (
    CollectionError,
    NotAllowed,
    PhotoFailed,
    RunStopped,
    ServiceError,
    ServiceProblem,
    Unavailable,
    Unreachable,
    WrongRelease,
)


@dataclass(frozen=True)
class Options:
    """How every photo of a run is restored; damage_maps: whether the maps are wanted, too."""

    mode: Literal["auto", "tile", "resize"] = "auto"
    sensitivity: float = 0.5
    denoise: float = 0.0
    damage_maps: bool = False

    def key(self) -> str:
        """Names what changes a restored photo: the same for options that give the same bytes."""
        denoise = f" denoise={self.denoise:g}" if self.denoise else ""  # journals from before it was there stay good
        return f"mode={self.mode} sensitivity={self.sensitivity:g}{denoise}"


class Way(Protocol):
    """A way of restoring photos: over HTTP, on this machine's device, or whatever else there is.

    release: the one that restores every photo of the run; num_at_once: how many threads should call `restore`.
    """

    release: str
    num_at_once: int

    def restore(self, photo: bytes) -> Restored:
        """Called by several threads. `Restored.model_version` is `release`.

        Raises PhotoFailed if this photo cannot be restored, RunStopped if no further one can.
        """

    def close(self) -> None:
        """When the last photo is done."""


class OverHttp:
    """Over HTTP, by one or several instances of the service, all of which serve the same release."""

    def __init__(self, client: Client, options: Options, *, release: str | None, num_at_once: int) -> None:
        """release: the one to insist on; None for the one that is active. Raises CollectionError or a ServiceError."""
        self._client = client
        self._options = options
        self.release = _common_release(client.active_releases())
        if release not in (None, self.release):
            raise CollectionError(
                f"the run is of release {release}, but {self.release} is served; serve {release} "
                f"(RESTORE_MODEL_VERSION={release}), or restore everything anew by {self.release} with --redo"
            )
        self.num_at_once = num_at_once

    def restore(self, photo: bytes) -> Restored:
        options = self._options
        parameters: RestoreParameters = {
            "release": self.release,
            "mode": options.mode,
            "sensitivity": options.sensitivity,
            "damage_map": options.damage_maps,
        }
        if options.denoise:  # an older service does not know it
            parameters["denoise"] = options.denoise
        try:
            return self._client.restore(photo, **parameters)
        except WrongRelease as error:
            raise RunStopped(
                f"the service changed its release in mid-run: {error.detail}; serve {self.release} again "
                f"(RESTORE_MODEL_VERSION={self.release}) and start again, or restore everything anew with --redo"
            ) from error
        except NotAllowed as error:
            raise RunStopped(f"{error}; set RESTORE_API_KEY to a key that is good for it") from error
        except (Unreachable, Unavailable) as error:
            # A photo that takes the service down each time must not stop the others; a service that is gone must not
            # be taken for the fault of every photo that is left.
            if not self._client.is_any_ready():
                raise RunStopped(f"no service is ready any more: {error}; start it, then run this again") from error
            reason = error.kind if isinstance(error, Unavailable) else "no-answer"
            raise PhotoFailed(reason, str(error)) from error
        except ServiceProblem as error:
            if error.kind == "denoiser-missing":  # no photo could be restored
                raise RunStopped(error.detail) from error
            request = f" (request {error.request_id})" if error.request_id else ""
            raise PhotoFailed(error.kind, f"{error.detail}{request}") from error
        except ServiceError as error:
            raise RunStopped(str(error)) from error

    def close(self) -> None:
        self._client.close()


def _common_release(releases: dict[str, str]) -> str:
    if len(set(releases.values())) > 1:
        found = ", ".join(f"{address} serves {release}" for address, release in releases.items())
        raise CollectionError(f"a run is restored by one release, but {found}; make them alike, or leave some out")
    return next(iter(releases.values()))
