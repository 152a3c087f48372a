"""Files that a command writes: none of them an input, all of them or none."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import WriteError
from ._console import check_output_file, make_output_folder


def check_no_input(
    outputs: Iterable[Path], *, cubes: Iterable[Path], others: Iterable[str | None] = ()
) -> None:
    """Make sure that no file to be written is one that is read.

    Parameters
    ----------
    outputs : iterable of Path
        As the user names them; an ENVI image is two files.
    cubes : iterable of Path
        Images that are read, likewise.
    others : iterable of str or None
        Further options that may each be the path of a file, or something else.

    Raises
    ------
    WriteError
        Naming the file that is both.
    """
    from ..io import files_read, files_written

    read = [file for cube in cubes for file in files_read(cube)]
    read += [path for path in (Path(o).expanduser() for o in others if o) if path.is_file()]
    for output in outputs:
        for written in files_written(output):
            for file in read:
                if _same(written, file):
                    raise WriteError(
                        f"{output}: would replace {file}, which is an input; "
                        "choose another name for the output"
                    )


def check_outputs(outputs: Iterable[Path], suffixes: tuple[str, ...]) -> None:
    """Make sure, before any work, that files can be written, each beside the others.

    Raises
    ------
    WriteError
        As :func:`~._console.check_output_file` raises it, or if two are the same file.
    """
    from ..io import files_written

    taken: dict[Path, Path] = {}
    for output in outputs:
        check_output_file(output, suffixes)
        for written in files_written(output):
            other = taken.setdefault(written.resolve(), output)
            if other is not output:
                raise WriteError(f"{output}: would replace {other}, which is an output as well")


def _same(first: Path, second: Path) -> bool:
    if first.resolve() == second.resolve():
        return True
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False


@contextmanager
def staged(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """Folder to write into whose files move to `folder` together at the end.

    If the body or a move fails or is interrupted, `folder` is as it was: no new
    file, every earlier one in its place, and itself absent if it was absent.

    Parameters
    ----------
    folder : Path
        Made if it is absent, with its parents.
    names : iterable of str
        Names of the files that will be written; none may be a folder's.

    Yields
    ------
    Path
        A folder inside `folder`, and so on its file system.

    Raises
    ------
    WriteError
        If `folder` cannot be made or takes no file, or a move fails.
    """
    from ..io import replace_together

    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    stage = folder / f".hsfusion-{secrets.token_hex(8)}"
    done = False
    try:
        make_output_folder(folder)
        for name in names:
            if (folder / name).is_dir():
                raise WriteError(f"{folder / name}: expected a file to write, found a folder")
        stage.mkdir()
        yield stage
        made = sorted(stage.iterdir())
        replace_together(made, [folder / path.name for path in made])
        done = True
    except OSError as error:
        if isinstance(error, WriteError):
            raise
        raise WriteError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if not done:
            for path in absent:
                with suppress(OSError):
                    path.rmdir()


@contextmanager
def naming_what_stays(folder: Path | None) -> Iterator[None]:
    """Let an interruption say which files it leaves in a folder that the body fills.

    Parameters
    ----------
    folder : Path, optional
        Without one, nothing is said.

    Raises
    ------
    KeyboardInterrupt
        The one that came, with ``kept FILE, …`` as its text if there are any.
    """
    before = _stamps(folder)
    try:
        yield
    except KeyboardInterrupt as stop:
        kept = [str(path) for path, stamp in _stamps(folder).items() if before.get(path) != stamp]
        if not kept:
            raise
        raise KeyboardInterrupt(f"kept {', '.join(kept)}") from stop


def _stamps(folder: Path | None) -> dict[Path, tuple[int, int]]:
    if folder is None or not folder.is_dir():
        return {}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}
