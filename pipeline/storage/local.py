"""Local files behind `Storage`: whole writes by rename, put-if-absent by hard link, sorted lists."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO

from unipic.pipeline.errors import ObjectMissing
from unipic.pipeline.storage.errors import from_system, from_system_write, too_many_bytes
from unipic.pipeline.storage.ordering import in_order

FOLDER_ATTEMPTS = 4
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_TEMP_PREFIX, _TEMP_SUFFIX = ".unipic-", ".tmp"


def open_file(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise from_system(error, path) from error


def read(path: str, max_bytes: int | None) -> bytes:
    size_bytes, _ = stat(path)  # before opening: a pipe or a device would never end
    if max_bytes is not None and size_bytes > max_bytes:
        raise too_many_bytes(path, size_bytes, max_bytes)
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise from_system(error, path) from error


def stat(path: str) -> tuple[int, str]:
    """Size in bytes and version of a file; a folder counts as nothing there."""
    try:
        facts = os.stat(path)
    except OSError as error:
        raise from_system(error, path) from error
    if not os.path.isfile(path):
        raise ObjectMissing(f"There is no file at {path}.")
    return facts.st_size, str(facts.st_mtime_ns)


def write(path: str, data: bytes) -> None:
    """All of `data` or nothing: a reader never sees half a file, nor does a power cut leave one."""
    try:
        temp = _write_temp(path, data)
        try:
            os.replace(temp, path)
        except OSError:
            _remove(temp)
            raise
        _sync_folder(os.path.dirname(path))
    except OSError as error:
        raise from_system_write(error, path, _in_the_way(path)) from error


def create(path: str, data: bytes) -> bool:
    """Write `data` unless something is there already; False then."""
    try:
        temp = _write_temp(path, data)
        try:
            os.link(temp, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create_without_links(path, data)
        finally:
            _remove(temp)
        _sync_folder(os.path.dirname(path))
        return True
    except OSError as error:
        raise from_system_write(error, path, _in_the_way(path)) from error


def replace(path: str, data: bytes, expected: Callable[[bytes], bool]) -> bool:
    """Write `data` if `expected` holds of what is there now; False otherwise, or if there is nothing.

    Writers that use this function take turns, on one machine or on a file system whose locks reach all of them.
    """
    try:
        with _locked(path):
            try:
                with open(path, "rb") as file:
                    held = file.read()
            except FileNotFoundError:
                return False
            if not expected(held):
                return False
            write(path, data)
            return True
    except OSError as error:
        raise from_system(error, path) from error


def move(source: str, target: str) -> None:
    """Rename a file, replacing what is at `target`. Raises ObjectMissing where `source` is gone."""
    try:
        for attempt in range(FOLDER_ATTEMPTS):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            try:
                os.replace(source, target)
                break
            except FileNotFoundError:  # the source is gone, or another process removed the empty folder just now
                if not os.path.exists(source) or attempt == FOLDER_ATTEMPTS - 1:
                    raise
        _sync_folder(os.path.dirname(target))
    except FileNotFoundError as error:
        raise ObjectMissing(f"There is no file at {source}.") from error
    except OSError as error:
        raise from_system_write(error, target, _in_the_way(target)) from error
    remove_folders([os.path.dirname(source)])  # the folder of an attempt goes with its last file


def links_work(path: str) -> bool:
    """Whether the file system makes hard links, tried at `path`, where nothing is left afterwards."""
    made = make_folders(os.path.dirname(path))
    try:
        temp = _write_temp(path, b"1")
        try:
            os.link(temp, path)
            _remove(path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return False
        finally:
            _remove(temp)
        return True
    except OSError as error:
        raise from_system_write(error, path, _in_the_way(path)) from error
    finally:
        remove_folders(made)


def make_folders(path: str) -> list[str]:
    """Make the folder and those above it; the ones that were not there before, outermost first."""
    made: list[str] = []
    missing: list[str] = []
    above = path
    while above and not os.path.isdir(above):
        missing.append(above)
        above = os.path.dirname(above.rstrip("/"))
    try:
        for folder in reversed(missing):
            with suppress(FileExistsError):  # another process was first; a file in the way shows as soon as it is used
                os.mkdir(folder)
                made.append(folder)
    except OSError as error:
        remove_folders(made)
        raise from_system_write(error, path, _in_the_way(f"{path}/")) from error
    return made


def remove_folders(made: Sequence[str]) -> None:
    """Remove those of these folders, outermost first, that nothing was put in since."""
    for folder in reversed(made):
        try:
            os.rmdir(folder)
        except OSError:  # in use now, by whoever filled it
            return


def delete(path: str) -> None:
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise from_system(error, path) from error


def walk(folder: str, *, recursive: bool, start_after: str = "", prefix: str = "") -> Iterator[tuple[str, int, str]]:
    """(path, size, version) of every file below `folder`, sorted by path; our own temporary files are not shown.

    Args:
        start_after: a path; what sorts up to it is left out.
        prefix: of the names in `folder`; others are left out.
    """
    try:
        with os.scandir(folder) as found:
            # A folder sorts by what its files' paths begin with: "a.txt" comes before "a/b".
            wanted = (entry for entry in found if entry.name.startswith(prefix))
            names = in_order((f"{entry.name}/" if entry.is_dir() else entry.name,) for entry in wanted)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise from_system(error, folder) from error
    for (name,) in names:
        path = os.path.join(folder, name)
        if name.endswith("/"):
            before = path < start_after and not start_after.startswith(path)
            if recursive and not before and not _leads_up(path.rstrip("/")):
                yield from walk(path.rstrip("/"), recursive=True, start_after=start_after)
        elif path > start_after and not (name.startswith(_TEMP_PREFIX) and name.endswith(_TEMP_SUFFIX)):
            with suppress(FileNotFoundError):  # deleted since the folder was read
                facts = os.stat(path)
                yield path, facts.st_size, str(facts.st_mtime_ns)


def _in_the_way(path: str) -> str | None:
    """The file that is where a folder above `path` has to be."""
    folder = os.path.dirname(path)
    while folder and not os.path.lexists(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return folder if folder and not os.path.isdir(folder) else None


def _leads_up(link: str) -> bool:
    """Whether `link` is a link to a folder that it lies in: following it would never end."""
    if not os.path.islink(link):
        return False
    target = os.path.realpath(link)
    here = os.path.realpath(os.path.dirname(link))
    return here == target or here.startswith(target.rstrip("/") + "/")


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """No other process runs this for the same folder; the lock ends with its process."""
    handle = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write_temp(path: str, data: bytes) -> str:
    folder = os.path.dirname(path)
    temp = os.path.join(folder, f"{_TEMP_PREFIX}{secrets.token_hex(8)}{_TEMP_SUFFIX}")
    file = _open_new(temp, folder)
    try:
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        _remove(temp)
        raise
    return temp


def _open_new(path: str, folder: str) -> BinaryIO:
    for attempts_left in reversed(range(FOLDER_ATTEMPTS)):
        try:
            if folder:
                os.makedirs(folder, exist_ok=True)
            return open(path, "xb")
        except (FileNotFoundError, FileExistsError):  # another process may just be taking back a folder it had made
            if not attempts_left:
                raise
    raise AssertionError("FOLDER_ATTEMPTS is at least 1")


def _create_without_links(path: str, data: bytes) -> bool:
    try:
        file = open(path, "xb")  # noqa: SIM115
    except FileExistsError:
        return False
    try:
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        _remove(path)
        raise
    return True


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _sync_folder(folder: str) -> None:
    """Make a rename last through a power cut; some network file systems do not let folders be synced."""
    handle = os.open(folder or ".", os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(handle)
