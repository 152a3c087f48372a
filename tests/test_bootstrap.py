"""The set-up script, on machines that are not this one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


class Machine:
    """Stand-in for what the script asks of a machine; it keeps a log of commands."""

    def __init__(self) -> None:
        self.table: dict[str, str] = {}
        self.libraries: set[str] = set()
        self.tools: dict[str, str] = {}
        self.programs: set[str] = {"apt-get", "sudo"}
        self.modules: set[str] = {"venv", "ensurepip"}
        self.sudo_works = True
        self.apt_helps = True
        self.failing: tuple[str, ...] = ()
        self.status = 100
        self.ran: list[list[str]] = []
        self.folders: list[object] = []

    def which(self, name: str) -> str | None:
        return f"/usr/bin/{name}" if name in self.programs else None

    def find_spec(self, name: str) -> object | None:
        return name if name in self.modules else None

    def run(self, command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        if command[:3] == ["sudo", "-n", "true"]:
            return subprocess.CompletedProcess(command, 0 if self.sudo_works else 1)
        self.ran.append(command)
        self.folders.append(options.get("cwd"))
        if self.failing and all(word in command for word in self.failing):
            return subprocess.CompletedProcess(command, self.status)
        if "install" in command and "apt-get" in command and self.apt_helps:
            packages = set(command)
            self.libraries |= {so for so, package in self.table.items() if package in packages}
            self.programs |= {p for p, package in self.tools.items() if package in packages}
            if any(package.endswith("-venv") for package in packages):
                self.modules |= {"venv", "ensurepip"}
        return subprocess.CompletedProcess(command, 0)

    @property
    def apt_calls(self) -> list[list[str]]:
        return [command for command in self.ran if "apt-get" in command]


@pytest.fixture
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", ROOT / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def machine(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A Linux machine with every part, an ordinary user, and sudo without a password."""
    fake = Machine()
    fake.table = dict(bootstrap.LIBRARIES)
    fake.libraries = set(bootstrap.LIBRARIES)
    fake.tools = {**bootstrap.PROGRAMS, **bootstrap.TOOLS}
    fake.programs |= set(fake.tools)
    monkeypatch.setattr(bootstrap, "loads", lambda name: name in fake.libraries)
    monkeypatch.setattr(bootstrap.shutil, "which", fake.which)
    monkeypatch.setattr(bootstrap.importlib.util, "find_spec", fake.find_spec)
    monkeypatch.setattr(bootstrap.subprocess, "run", fake.run)
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 1000, raising=False)
    monkeypatch.setattr(bootstrap.sys, "platform", "linux")
    return fake


def test_nothing_runs_when_nothing_is_missing(bootstrap: ModuleType, machine: Machine) -> None:
    assert bootstrap.main(["system"]) == 0
    assert machine.ran == []


def test_what_is_missing_is_installed_in_one_go(bootstrap: ModuleType, machine: Machine) -> None:
    machine.libraries -= {"libxcb-cursor.so.0", "libEGL.so.1"}
    machine.programs -= {"Xvfb"}
    assert bootstrap.main(["system"]) == 0
    update, install = machine.apt_calls
    assert update[:2] == install[:2] == ["sudo", "-n"]
    assert "update" in update
    assert [word for word in install if word.startswith(("lib", "xvfb", "python"))] == [
        "libegl1",
        "libxcb-cursor0",
        "xvfb",
    ]
    assert "DEBIAN_FRONTEND=noninteractive" in install
    assert "-y" in install


def test_root_needs_no_sudo(
    bootstrap: ModuleType, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 0)
    machine.programs -= {"sudo", "Xvfb"}
    assert bootstrap.main(["system"]) == 0
    assert all("sudo" not in command for command in machine.ran)
    assert len(machine.apt_calls) == 2


@pytest.mark.parametrize("why", ["password", "no sudo", "no apt"])
def test_who_may_not_install_is_told_what_to_run(
    bootstrap: ModuleType, machine: Machine, capsys: pytest.CaptureFixture[str], why: str
) -> None:
    machine.libraries -= {"libGL.so.1"}
    machine.programs -= {"Xvfb"}
    if why == "password":
        machine.sudo_works = False
    elif why == "no sudo":
        machine.programs -= {"sudo"}
    else:
        machine.programs -= {"apt-get"}
    assert bootstrap.main(["system"]) == 1
    told = capsys.readouterr().err
    assert "missing on this machine: Xvfb, libGL.so.1" in told
    assert "apt-get install -y --no-install-recommends libgl1 xvfb" in told
    assert machine.ran == [], "nothing may run"


def test_an_apt_that_fails_or_does_not_help_is_an_error(
    bootstrap: ModuleType, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.libraries -= {"libGL.so.1"}
    machine.apt_helps = False
    assert bootstrap.main(["system"]) == 1
    assert "still missing after the installation: libGL.so.1" in capsys.readouterr().err
    machine.failing = ("install",)
    assert bootstrap.main(["system"]) == 1
    assert "failed (100)" in capsys.readouterr().err
    machine.ran.clear()
    machine.failing = ("update",)
    assert bootstrap.main(["system"]) == 1
    assert len(machine.apt_calls) == 1, "no install after a failed update"


def test_other_systems_bring_their_own_display(
    bootstrap: ModuleType, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.libraries.clear()
    machine.programs = {"git"}
    for platform in ("darwin", "win32"):
        monkeypatch.setattr(bootstrap.sys, "platform", platform)
        assert bootstrap.main(["system"]) == 0
    assert machine.ran == []


def test_an_old_python_is_named(
    bootstrap: ModuleType, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        bootstrap.SetupError, match=r"Python 3\.11 or newer is needed, this is Python 3\.9\.2"
    ):
        bootstrap.check_python((3, 9, 2))
    bootstrap.check_python((3, 11, 0))
    bootstrap.check_python((4, 0, 0))
    check = bootstrap.check_python
    bootstrap.check_python = lambda: check((3, 10, 13))
    assert bootstrap.main(["demo"]) == 1
    assert "this is Python 3.10.13" in capsys.readouterr().err
    assert machine.ran == []


@pytest.fixture
def elsewhere(bootstrap: ModuleType, machine: Machine, tmp_path: Path) -> Path:
    """A checkout of the files the script reads, under a path with a space."""
    root = tmp_path / "a clone"
    root.mkdir()
    for name in ("constraints.txt", "pyproject.toml"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    bootstrap.ROOT, bootstrap.CONSTRAINTS = root, root / "constraints.txt"
    real = machine.run

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        if command[1:4] == ["-m", "venv", "--clear"]:
            Path(command[4]).mkdir(parents=True, exist_ok=True)
            for left in Path(command[4]).iterdir():
                left.unlink()
        return real(command, **options)

    bootstrap.subprocess.run = run
    return root


def test_demo_installs_once_and_passes_its_options_on(
    bootstrap: ModuleType, machine: Machine, elsewhere: Path
) -> None:
    assert bootstrap.main(["demo", "--out", "some where"]) == 0
    venv, install, demo = machine.ran
    assert venv == [sys.executable, "-m", "venv", "--clear", str(elsewhere / ".venv")]
    assert install[1:4] == ["-m", "pip", "install"]
    assert install[install.index("-c") + 1] == str(elsewhere / "constraints.txt")
    assert install[-2:] == ["-e", str(elsewhere)]
    assert Path(demo[0]).parent.parent == elsewhere / ".venv"
    assert demo[1:] == ["demo", "--out", "some where"]
    assert machine.folders == [elsewhere, elsewhere, None], "the demo runs where the user is"

    machine.ran.clear()
    assert bootstrap.main(["demo"]) == 0
    assert [command[1:] for command in machine.ran] == [["demo"]], "nothing to install again"

    machine.ran.clear()
    (elsewhere / "constraints.txt").write_text("numpy==1.26.4\n")
    assert bootstrap.main(["demo"]) == 0
    assert len(machine.ran) == 3, "other constraints: installed anew"


def test_a_broken_install_is_not_taken_for_a_whole_one(
    bootstrap: ModuleType, machine: Machine, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.failing = ("pip",)
    assert bootstrap.main(["demo"]) == 1
    assert "this step failed (100)" in capsys.readouterr().err
    assert not any("demo" in command for command in machine.ran)
    machine.failing = ()
    machine.ran.clear()
    assert bootstrap.main(["demo"]) == 0
    assert len(machine.ran) == 3


def test_test_brings_everything_in_one_go_and_hands_on_toxs_status(
    bootstrap: ModuleType, machine: Machine, elsewhere: Path
) -> None:
    machine.modules -= {"ensurepip"}
    machine.programs -= {"Xvfb", "git"}
    assert bootstrap.main(["test", "-e", "lint"]) == 0
    assert machine.folders[-1] == elsewhere
    (install,) = [command for command in machine.apt_calls if "install" in command]
    venv = "python{}.{}-venv".format(*sys.version_info[:2])
    assert install[-3:] == ["git", venv, "xvfb"]
    assert machine.ran[-2][-1] == "tox"
    assert Path(machine.ran[-1][0]).name.startswith("tox")
    assert machine.ran[-1][1:] == ["-e", "lint"]

    machine.failing = ("lint",)
    assert bootstrap.main(["test", "-e", "lint"]) == 100
    machine.status = -15
    assert bootstrap.main(["test", "-e", "lint"]) == 143, "ended by a signal, as a shell says it"


def test_demo_needs_no_display(bootstrap: ModuleType, machine: Machine, elsewhere: Path) -> None:
    machine.libraries.clear()
    machine.programs -= {"Xvfb", "git"}
    assert bootstrap.main(["demo"]) == 0
    assert machine.apt_calls == []


@pytest.mark.parametrize(
    ("arguments", "status"), [([], 0), (["--help"], 0), (["system", "now"], 2), (["deploy"], 2)]
)
def test_what_is_no_command_gets_the_help(
    bootstrap: ModuleType,
    machine: Machine,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
) -> None:
    assert bootstrap.main(arguments) == status
    assert "bootstrap.py demo" in capsys.readouterr().out
    assert machine.ran == []


def test_the_loader_is_asked_for_real(bootstrap: ModuleType) -> None:
    known = {"linux": "libc.so.6", "darwin": "libSystem.dylib", "win32": "kernel32"}
    assert bootstrap.loads(known[sys.platform])
    assert not bootstrap.loads("libhsfusion-does-not-exist.so.1")


def test_it_runs_on_the_standard_library_alone(tmp_path: Path) -> None:
    """Isolated, without site-packages and from elsewhere: it prints its help."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "bootstrap.py"), "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert "python3 bootstrap.py test" in done.stdout


def test_ci_runs_it(tmp_path: Path) -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    fake = tmp_path / "python3"
    fake.write_text('#!/bin/sh\necho "$(pwd) $*"\nexit 7\n')
    fake.chmod(0o755)
    done = subprocess.run(
        [str(script)],
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 7
    assert done.stdout.split() == [str(ROOT), "bootstrap.py", "test"]
