"""Files appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import WriteError

_PREFIX = ".hsfusion-"


def _temporary(directory: Path) -> Path:
    return directory / f"{_PREFIX}{secrets.token_hex(8)}.tmp"


@contextmanager
def atomic_write(targets: Sequence[Path], *, overwrite: bool = True) -> Iterator[list[Path]]:
    """Give temporary files beside `targets` that take their places on success.

    Every temporary file is flushed to the disk before the first target is
    replaced; targets are replaced in the order given. If the body, a flush or
    a replacement fails or is interrupted, every target is as it was and no
    temporary file is left.

    Parameters
    ----------
    targets : sequence of Path
        Symbolic links are followed: the file they point to is replaced.
    overwrite : bool
        Whether existing targets may be replaced.

    Yields
    ------
    list of Path
        Empty files to write, one a target.

    Raises
    ------
    WriteError
        If a directory is missing or not writable, a target is a directory, or
        exists and `overwrite` is false, or writing failed.
    """
    finals = [Path(os.path.realpath(t)) for t in targets]
    for target, final in zip(targets, finals, strict=True):
        if final.is_dir():
            raise WriteError(f"{target}: cannot be written: it is a directory")
        if not final.parent.is_dir():
            raise WriteError(f"{target}: cannot be written: no directory {final.parent}")
        if final.exists() and not overwrite:
            raise WriteError(f"{target}: exists already, and overwrite is off")
    made: list[Path] = []
    try:
        for final in finals:
            temporary = _temporary(final.parent)
            made.append(temporary)
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield list(made)
        for temporary, final in zip(made, finals, strict=True):
            _flush(temporary)
            if final.exists():
                os.chmod(temporary, stat.S_IMODE(final.stat().st_mode))
        replace_all(made, finals)
    except OSError as error:
        if isinstance(error, WriteError):
            raise
        names = ", ".join(str(t) for t in targets)
        raise WriteError(f"{names}: could not be written: {error}") from error
    finally:
        for temporary in made:
            temporary.unlink(missing_ok=True)


def replace_all(temporaries: Sequence[Path], finals: Sequence[Path]) -> None:
    """Replace several files so that a failure in between brings all of them back.

    Parameters
    ----------
    temporaries, finals : sequence of Path
        As many of the one as of the other, pair by pair on one file system; the
        finals are no symbolic links.

    Raises
    ------
    OSError
        If a replacement fails; every final is as it was.
    """
    if len(finals) == 1:
        os.replace(temporaries[0], finals[0])
        _flush_directory(finals[0].parent)
        return
    backups: list[tuple[Path, Path | None]] = []
    try:
        for temporary, final in zip(temporaries, finals, strict=True):
            backup = _temporary(final.parent) if final.exists() else None
            backups.append((final, backup))
            if backup is not None:
                _keep(final, backup)
            os.replace(temporary, final)
    except BaseException:
        for final, backup in reversed(backups):
            if backup is None:
                final.unlink(missing_ok=True)
            elif backup.exists():
                os.replace(backup, final)
        raise
    finally:
        for _, backup in backups:
            if backup is not None:
                backup.unlink(missing_ok=True)
    for parent in {final.parent for final in finals}:
        _flush_directory(parent)


def _keep(final: Path, backup: Path) -> None:
    """Give `final` a second name; file systems without hard links move it away instead."""
    try:
        os.link(final, backup)
    except OSError:
        os.replace(final, backup)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_directory(path: Path) -> None:
    if os.name == "nt":
        return
    # some file systems do not let a directory be flushed; the files are safe anyway
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
