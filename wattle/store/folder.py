"""One process per data folder, held by a lock file; apart from the stores, because a gateway has a folder and no store."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from wattle.errors import StoreError
from wattle.store.faults import full


class FolderLock:
    """Keeps a data folder to one process. Released by ``close`` or by the process's end, however it ends."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(folder / "wattle.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _no_folder(folder, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, str(os.getpid()).encode(), 0)
        except BlockingIOError:
            holder = os.pread(self._file, 100, 0).decode(errors="replace").strip()
            os.close(self._file)
            raise StoreError(
                f"the data folder {folder} is in use by process {holder or 'unknown'}; stop it, or give another folder with --data",
                code="STORE_IN_USE",
            ) from None
        except OSError as error:
            os.close(self._file)
            raise _no_folder(folder, error) from error

    def close(self) -> None:
        """Let others have the folder."""
        os.close(self._file)


def _no_folder(folder: Path, error: OSError) -> StoreError:
    if error.errno == errno.ENOSPC:
        return full(folder)
    return StoreError(
        f"cannot use the data folder {folder}: {error.strerror}; give a folder you may write to with --data",
        code="STORE_UNUSABLE",
    )
