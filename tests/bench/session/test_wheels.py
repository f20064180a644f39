"""Wheels for a machine that reaches nothing: what is fetched, what it weighs, how it is put there."""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kaleido_fast.bench.session import wheels


class Pip:
    """Writes a wheel a requirement; those of `refused` it does not find."""

    def __init__(self, num_bytes: int = 1 << 20, refused: tuple[str, ...] = ()) -> None:
        self.num_bytes, self.refused, self.commands = num_bytes, refused, list[list[str]]()

    def __call__(self, command: list[str], env: dict[str, str], **options: Any) -> subprocess.CompletedProcess:
        self.commands.append(command)
        name, folder = command[-1].partition("==")[0], Path(command[command.index("-d" if "-d" in command else "-w") + 1])
        if name not in self.refused:
            (folder / f"{name}-1-py3-none-any.whl").write_bytes(bytes(self.num_bytes))
        return subprocess.CompletedProcess(command, int(name in self.refused))


def test_what_is_fetched_is_listed_with_its_weight(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pip = Pip()
    monkeypatch.setattr(wheels.subprocess, "run", pip)
    assert wheels.fetch_wheels(tmp_path / "wheels", "3.12") == 0
    out = capsys.readouterr().out
    assert "   1.00 MiB  xformers-1-py3-none-any.whl" in out and f"{len(pip.commands)}.00 MiB  of 64 MiB" in out
    by_name = {command[-1].partition("==")[0]: command for command in pip.commands}
    assert set(by_name) >= {"xformers", "nvidia-cuda-runtime-cu12", "deepspeed", "hjson", "pydantic", "py-cpuinfo"}
    assert by_name["xformers"][by_name["xformers"].index("--python-version") + 1] == "3.12"
    assert "--no-deps" not in by_name["pydantic"], "its core must be of the version that it asks for"
    assert by_name["deepspeed"][3] == "wheel" and "--no-build-isolation" in by_name["deepspeed"]


def test_what_cannot_be_had_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wheels.subprocess, "run", Pip(refused=("deepspeed",)))
    assert wheels.fetch_wheels(tmp_path, "3.12") == 1
    assert "deepspeed==0.19.8 could not be fetched or built for Python 3.12; put its wheel" in capsys.readouterr().out
    monkeypatch.setattr(wheels.subprocess, "run", Pip(num_bytes=8 << 20))
    assert wheels.fetch_wheels(tmp_path, "3.12") == 1, "more than such a machine takes along"


def test_carried_wheels_are_installed_beside_everything(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "carried_along-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried_along.py", "ANSWER = 7")
        wheel.writestr("carried_along-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: carried_along\nVersion: 1\n")
        wheel.writestr("carried_along-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("carried_along-1.dist-info/RECORD", "")
    assert wheels.install_wheels(tmp_path, tmp_path / "site") == ""
    done = subprocess.run([sys.executable, "-c", "import carried_along; print(carried_along.ANSWER)"], capture_output=True,
                          text=True, env={"PYTHONPATH": str(tmp_path / "site")})
    assert done.stdout.strip() == "7"
    (tmp_path / "broken-1-py3-none-any.whl").write_bytes(b"no zip")
    assert "broken-1-py3-none-any.whl" in wheels.install_wheels(tmp_path, tmp_path / "site")
    assert "no wheels there; gpu_session.py --wheels" in wheels.install_wheels(tmp_path / "none", tmp_path / "site")
