"""Stores that fsspec knows, to read from: Hugging Face, Google Cloud Storage and Azure.

Nothing is written there: commits need conditional puts, which fsspec has no word for. An object is held to the version
that was listed when it is opened; these stores cannot be asked for a range of a version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from unipic.pipeline.errors import AccessDenied, ObjectMissing, StorageError, StorageUnavailable, UniPicError
from unipic.pipeline.storage.errors import from_system, too_many_bytes
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.paths import split_scheme
from unipic.pipeline.storage.remote import Facts
from unipic.pipeline.storage.waiting import Waiting, attempts

T = TypeVar("T")
ATTEMPTS = 3  # these packages make attempts of their own, which take a minute or more
_EXTRA = {"gs": "gcs", "az": "azure", "hf": "hf"}
_ANONYMOUS: dict[str, dict[str, Any]] = {"gcs": {"token": "anon"}, "azure": {"anon": True}, "hf": {"token": False}}
_VERSIONS = ("etag", "ETag", "blob_id", "generation", "md5Hash", "content_md5", "last_commit", "mtime", "last_modified")
_PASSING_TYPES = (
    "ClientError",
    "ConnectError",
    "TimeoutException",
    "NetworkError",
    "ServiceRequestError",
    "TransportError",
)
_PASSING = {408, 429, 500, 502, 503, 504}


class FsspecStore:
    """Requests through fsspec; which file system an address needs is found by its scheme."""

    def __init__(self, options: StorageOptions, patience_s: float | None) -> None:
        self._options, self._patience_s = options, patience_s

    def get(self, uri: str, *, max_bytes: int | None) -> tuple[bytes, str]:
        """The object's bytes and its version. Raises TooManyBytes."""
        size_bytes, version = self.head(uri)
        if max_bytes is not None and size_bytes > max_bytes:
            raise too_many_bytes(uri, size_bytes, max_bytes)
        end = None if max_bytes is None else max_bytes + 1
        data: bytes = self._do("GET", uri, lambda fs, path: fs.cat_file(path, 0, end))
        if max_bytes is not None and len(data) > max_bytes:
            raise too_many_bytes(uri, len(data), max_bytes)
        return data, version

    def get_range(self, uri: str, start: int, *, size_bytes: int, version: str) -> bytes:
        data: bytes = self._do("GET", uri, lambda fs, path: fs.cat_file(path, start, start + size_bytes))
        if len(data) != size_bytes:
            raise StorageError(f"{uri} gave {len(data):,} bytes where {size_bytes:,} were asked for.")
        return data

    def head(self, uri: str) -> tuple[int, str]:
        """Size and version."""
        info = self._do("HEAD", uri, lambda fs, path: fs.info(path))
        if info.get("type") == "directory":
            raise ObjectMissing(f"{uri} is a folder.")
        return int(info["size"] or 0), _version(info)

    def list(self, folder_uri: str, *, recursive: bool, start_after: str, prefix: str = "") -> Iterator[Facts]:
        """All objects below a folder, sorted by URI."""
        scheme, _ = split_scheme(folder_uri)
        below = f"{folder_uri.rstrip('/')}/{prefix}"

        def find(fs: Any, path: str) -> list[Facts]:
            fs.invalidate_cache()
            found = fs.find(path, maxdepth=None if recursive else 1, withdirs=False, detail=True)
            facts = (
                (f"{scheme}://{name.lstrip('/')}", int(info["size"] or 0), _version(info))
                for name, info in found.items()
            )
            return sorted(fact for fact in facts if fact[0].startswith(below))

        return iter([fact for fact in self._do("LIST", folder_uri, find) if fact[0] > start_after])

    def pages(self, folder_uri: str, *, recursive: bool, start_after: str = "") -> Iterator[Facts]:
        return self.list(folder_uri, recursive=recursive, start_after=start_after)

    def put(self, uri: str, data: bytes, condition: dict[str, str] | None = None) -> str:
        _refuse(uri)

    def copy(self, source: str, target: str) -> None:
        _refuse(target)

    def delete(self, uri: str) -> None:
        _refuse(uri)

    def honours_conditions(self, probe: str) -> bool:
        _refuse(probe)

    def _do(self, verb: str, uri: str, call: Callable[[Any, str], T]) -> T:
        scheme, path = split_scheme(uri)

        def attempt() -> T:
            fs = self._file_system(scheme)
            try:
                return call(fs, path)
            except UniPicError:
                raise
            except Exception as error:
                raise _as_ours(error, uri) from error

        options = self._options.model_copy(update={"max_attempts": min(ATTEMPTS, self._options.max_attempts)})
        return attempts(attempt, Waiting(f"{verb} {uri}", self._patience_s or float("inf")), options)

    def _file_system(self, scheme: str) -> Any:
        import fsspec

        extra = _EXTRA[scheme]
        options = _ANONYMOUS[extra] if self._options.anonymous else {}
        try:
            return fsspec.filesystem(scheme, **options)  # one a process and options; fsspec tells a fork apart
        except ImportError as error:
            raise StorageError(
                f"{scheme}:// needs a package that is not installed.",
                remedy=f"Install it with: pip install 'unipic-batch[{extra}]'",
            ) from error
        except Exception as error:  # credentials are looked for here
            raise _as_ours(error, f"{scheme}://") from error


def _version(info: dict[str, Any]) -> str:
    found = next((info[name] for name in _VERSIONS if info.get(name)), None)
    return str(getattr(found, "oid", found)).strip('"') if found is not None else f"{info.get('size')} bytes"


def _refuse(uri: str) -> NoReturn:
    scheme, _ = split_scheme(uri)
    raise StorageError(
        f"{uri} cannot be written: {scheme}:// is only read from.", remedy="Write to a local folder or to s3://."
    )


def _as_ours(error: Exception, uri: str) -> StorageError:
    if isinstance(error, FileNotFoundError):
        return ObjectMissing(f"There is nothing at {uri}.")
    response = getattr(error, "response", None)
    codes = (getattr(error, "status", None), getattr(error, "code", None), getattr(response, "status_code", None))
    status = next((code for code in codes if isinstance(code, int)), 0)
    if status == 404:
        return ObjectMissing(f"There is nothing at {uri}.")
    if isinstance(error, PermissionError) or status in (401, 403):
        return AccessDenied(f"Access to {uri} is denied.", remedy="Check the credentials in the environment.")
    said = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
    lost = isinstance(error, ConnectionError | TimeoutError) or bool({*_PASSING_TYPES} & set(_names(error)))
    if status in _PASSING or lost:
        return StorageUnavailable(f"{uri} cannot be read: {said}")
    if isinstance(error, OSError) and error.errno:
        return from_system(error, uri)
    return StorageError(f"{uri} cannot be read: {said}.")


def _names(error: Exception) -> list[str]:
    """Of its class and those above: none of these packages need be there to be imported."""
    return [kind.__name__ for kind in type(error).__mro__]
