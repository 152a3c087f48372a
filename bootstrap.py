#!/usr/bin/env python3
"""Set the project up from a bare clone; needs Python 3.11 or newer and nothing else.

python3 bootstrap.py demo [options]   make .venv, install, run `hsfusion demo [options]`
python3 bootstrap.py test [options]   make a tox, bring git and libraries, run `tox [options]`
python3 bootstrap.py system           bring git and the tests' system libraries, nothing more

Packages are installed in the versions of constraints.txt. What Debian splits into
packages of its own (ensurepip, the libraries under a Qt window, a virtual display,
git for the tests) is installed by apt-get where this user may (root, or sudo without
a password), and named together with the command to run where not. apt-get never runs
when nothing is missing.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
CONSTRAINTS = ROOT / "constraints.txt"
OLDEST_PYTHON = (3, 11)
# What a Qt 6 window with OpenGL loads under Xvfb (ldd on Qt's xcb plug-in and its
# parts), and the Debian package of each.
LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libGLX_mesa.so.0": "libglx-mesa0",
    "libX11-xcb.so.1": "libx11-xcb1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libfreetype.so.6": "libfreetype6",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-glx.so.0": "libxcb-glx0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-render.so.0": "libxcb-render0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-shm.so.0": "libxcb-shm0",
    "libxcb-sync.so.1": "libxcb-sync1",
    "libxcb-xfixes.so.0": "libxcb-xfixes0",
    "libxcb-xinerama.so.0": "libxcb-xinerama0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxkbcommon.so.0": "libxkbcommon0",
}
PROGRAMS = {"Xvfb": "xvfb"}
# The hooks that tox runs (pre-commit) ask git which files there are.
TOOLS = {"git": "git"}


class SetupError(Exception):
    """The set-up cannot go on; the message says what is missing and what to do."""


def say(message: str) -> None:
    """Print one line of progress at once, before a child's output."""
    print(f"bootstrap: {message}", flush=True)


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> None:
    """Raise SetupError if this Python is too old."""
    if version[:2] < OLDEST_PYTHON:
        needed = ".".join(map(str, OLDEST_PYTHON))
        found = ".".join(map(str, version))
        raise SetupError(
            f"Python {needed} or newer is needed, this is Python {found} ({sys.executable})"
        )


def loads(library: str) -> bool:
    """Whether the dynamic loader finds and loads a shared library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def missing_for_venv() -> dict[str, str]:
    """Parts that `python -m venv` lacks here, each with its Debian package."""
    package = "python{}.{}-venv".format(*sys.version_info[:2])
    return {
        f"Python module {module}": package
        for module in ("venv", "ensurepip")
        if importlib.util.find_spec(module) is None
    }


def missing_for_display() -> dict[str, str]:
    """Libraries and programs that a headless Qt window lacks here, with packages."""
    if not sys.platform.startswith("linux"):
        return {}
    missing = {name: package for name, package in LIBRARIES.items() if not loads(name)}
    missing.update({name: pkg for name, pkg in PROGRAMS.items() if shutil.which(name) is None})
    return missing


def missing_tools() -> dict[str, str]:
    """Programs that tox's environments call and that are absent here, with packages."""
    return {name: package for name, package in TOOLS.items() if shutil.which(name) is None}


def as_administrator() -> list[str] | None:
    """Prefix that runs a command as root without asking, or None if there is none."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return []
    if shutil.which("sudo") is not None:
        asked = subprocess.run(
            ["sudo", "-n", "true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if asked.returncode == 0:
            return ["sudo", "-n"]
    return None


def bring(missing: dict[str, str]) -> None:
    """Install the Debian packages of what is missing, or say why that cannot be.

    Parameters
    ----------
    missing : dict of str to str
        What is missing, with its Debian package. Nothing is run if it is empty.

    Raises
    ------
    SetupError
        If there is no apt-get, no right to run it, or it fails.
    """
    if not missing:
        return
    packages = sorted(set(missing.values()))
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    todo = (
        f"missing on this machine: {', '.join(sorted(missing))}\n"
        f"as root, run:  apt-get update && {' '.join(install)}"
    )
    if shutil.which("apt-get") is None:
        raise SetupError(f"{todo}\n(there is no apt-get here: install what provides the same)")
    prefix = as_administrator()
    if prefix is None:
        raise SetupError(f"{todo}\n(this user is neither root nor has sudo without a password)")
    say(f"missing: {', '.join(sorted(missing))}")
    quiet = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive"]
    for command in (["apt-get", "update", "-q"], install):
        say(shlex.join(command))
        done = subprocess.run([*quiet, *command], stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            raise SetupError(f"{shlex.join(command)} failed ({done.returncode})\n{todo}")


def bring_system(display: bool, venv: bool, tools: bool = False) -> None:
    """Bring what is missing of the parts asked for, and check that it helped."""

    def missing() -> dict[str, str]:
        importlib.invalidate_caches()
        found = missing_for_venv() if venv else {}
        found.update(missing_tools() if tools else {})
        return {**found, **(missing_for_display() if display else {})}

    bring(missing())
    left = missing()
    if left:
        raise SetupError(f"still missing after the installation: {', '.join(sorted(left))}")


def venv_program(folder: Path, name: str) -> Path:
    """Path of a program inside a virtual environment."""
    windows = os.name == "nt"
    return folder / ("Scripts" if windows else "bin") / (f"{name}.exe" if windows else name)


def run(command: list[str]) -> None:
    """Run one step of the set-up; raise SetupError if it fails."""
    say(shlex.join(command))
    done = subprocess.run(command, stdin=subprocess.DEVNULL, cwd=ROOT, check=False)
    if done.returncode != 0:
        raise SetupError(f"this step failed ({done.returncode}): {shlex.join(command)}")


def make_venv(folder: Path, requirements: list[str]) -> None:
    """Make a virtual environment that holds `requirements`; keep one that is up to date.

    It is made anew when it was left half-made, or when the requirements, the
    constraints, the package's metadata or the Python changed.
    """
    mark = hashlib.sha256(repr((sys.version, sys.prefix, requirements)).encode())
    for path in (CONSTRAINTS, ROOT / "pyproject.toml"):
        mark.update(path.read_bytes())
    stamp = folder / "hsfusion-installed"
    if stamp.is_file() and stamp.read_text() == mark.hexdigest():
        return
    run([sys.executable, "-m", "venv", "--clear", str(folder)])
    pip = [str(venv_program(folder, "python")), "-m", "pip", "install", "-q"]
    run([*pip, "--disable-pip-version-check", "-c", str(CONSTRAINTS), *requirements])
    stamp.write_text(mark.hexdigest())


def start(program: Path, arguments: list[str], folder: Path | None = None) -> int:
    """Run the main program in this terminal; return its exit status as a shell would.

    It runs in `folder`, or where the user is.
    """
    say(shlex.join([program.name, *arguments]))
    status = subprocess.run([str(program), *arguments], cwd=folder, check=False).returncode
    return status if status >= 0 else 128 - status


def demo(arguments: list[str]) -> int:
    """Install the package into .venv and run its demonstration."""
    bring_system(display=False, venv=True)
    make_venv(ROOT / ".venv", ["-e", str(ROOT)])
    return start(venv_program(ROOT / ".venv", "hsfusion"), ["demo", *arguments])


def test(arguments: list[str]) -> int:
    """Install tox and run it."""
    bring_system(display=True, venv=True, tools=True)
    folder = ROOT / ".tox" / ".bootstrap"
    make_venv(folder, ["tox"])
    return start(venv_program(folder, "tox"), arguments, ROOT)


def main(arguments: list[str]) -> int:
    """Run one of the three commands; return the exit status."""
    command, *rest = arguments or ["help"]
    try:
        check_python()
        if command == "demo":
            return demo(rest)
        if command == "test":
            return test(rest)
        if command == "system" and not rest:
            bring_system(display=True, venv=False, tools=True)
            return 0
    except SetupError as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(__doc__)
    return 0 if command in ("help", "-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
