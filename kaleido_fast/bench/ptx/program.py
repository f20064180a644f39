"""PTX as Triton writes it, taken apart: one entry, its parameters, its instructions and where its labels stand."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_ENTRY = re.compile(r"\.entry\s+(\w+)\s*\((.*?)\)", re.S)
_DECLARATIONS = (".reg", ".file", ".section", ".pragma", ".shared", ".local")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: `@!%p1 add.s32 %r1, %r2, 4`."""

    predicate: str | None
    negated: bool  # it runs where the predicate is false
    opcode: str  # with its modifiers: "ld.global.v4.b32"
    operands: tuple[str, ...]
    line: str  # of the kernel's Python source
    text: str
    file: str = ""  # its name

    @property
    def moves_on(self) -> bool:
        """Whether the next instruction follows whatever happens."""
        return not self.opcode.startswith(("bra", "brx", "ret"))

    @property
    def where(self) -> str:
        """For messages."""
        return f"line {self.line}: {self.text}"


@dataclass(slots=True)
class Program:
    """A kernel's code."""

    name: str
    threads: int  # of a block
    parameters: tuple[tuple[str, int], ...]  # name, bits
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # name -> number of the instruction behind it
    tables: dict[str, list[str]] = field(default_factory=dict)  # targets of an indexed branch


def parse(ptx: str) -> Program:
    """The program of a PTX module with one entry.

    Raises:
        ValueError: no entry, or no number of threads.
    """
    ptx = re.sub(r"//[^\n]*", "", ptx)
    entry, threads = _ENTRY.search(ptx), re.search(r"\.reqntid\s+(\d+)", ptx)
    if entry is None or threads is None:
        raise ValueError("ptx: expected one .entry with .reqntid, as Triton compiles kernels")
    parameters = []
    for declaration in entry[2].split(","):
        kind = re.search(r"\.param\s+\.[a-z]+(\d+)", declaration)
        assert kind is not None, declaration
        parameters.append((declaration.split()[-1], int(kind[1])))
    program = Program(entry[1], int(threads[1]), tuple(parameters))
    files = {number: Path(path).name for number, path in re.findall(r'\.file\s+(\d+)\s+"([^"]+)"', ptx)}
    _read_body(_body(ptx[ptx.index("{", entry.end()) + 1:]), files, program)
    return program


def _body(text: str) -> str:
    """Up to the brace that closes the entry."""
    depth = 1
    for place, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if not depth:
            return text[:place]
    raise ValueError("ptx: the entry's braces do not close")


def _read_body(body: str, files: Mapping[str, str], program: Program) -> None:
    source_line, source_file, label = "", "", ""
    table: str | None = None  # whose targets are being read, which may take several lines
    for raw in re.split(r"(?<=[;:])\s*\n|\n", body):
        line = raw.strip()
        if not line or line.startswith(_DECLARATIONS):
            continue
        if place := re.match(r"\.loc\s+(\d+)\s+(\d+)", line):
            source_file, source_line = files.get(place[1], ""), place[2]
            continue
        targets = re.match(r"(?:(\$?[\w$]+):)?\s*\.branchtargets\s*(.*)$", line)
        if targets or table is not None:
            read: str = (targets[1] or label) if targets else str(table)
            names = (targets[2] if targets else line).rstrip(";")
            program.tables.setdefault(read, []).extend(name.strip() for name in names.split(",") if name.strip())
            table = None if line.endswith(";") else read
        elif alone := re.match(r"(\$?[\w$]+):$", line):
            label = alone[1]
            program.labels[label] = len(program.instructions)
        else:
            for text in (part.strip() for part in line.split(";")):
                if text not in ("", "{", "}") and not text.startswith(".reg"):
                    program.instructions.append(_instruction(text, source_line, source_file))


def _instruction(text: str, source_line: str, source_file: str) -> Instruction:
    guard = re.match(r"@(!?)(%p\d+)\s+(.*)", text, re.S)
    negated, predicate = (guard[1] == "!", guard[2]) if guard else (False, None)
    whole = re.match(r"(\S+)\s*(.*)", guard[3] if guard else text, re.S)
    assert whole is not None, text
    return Instruction(predicate, negated, whole[1], tuple(_operands(whole[2])), source_line, text, source_file)


def _operands(text: str) -> list[str]:
    """Split at commas outside of brackets and braces."""
    operands, depth, current = [], 0, ""
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if character == "," and not depth:
            operands.append(current.strip())
            current = ""
        else:
            current += character
    return [*operands, current.strip()] if current.strip() else operands
