"""Checks of scripts/lib/demo-test.sh.

demo_check.py result OUT    the report and the picture are as they should be
demo_check.py there FOLDER  of each kind of thing that a demo makes, one of the demo in FOLDER is there
demo_check.py gone FOLDER   none of any kind is there

Only what is that demo's is looked at: its process is in the variable demo_pid, its binaries and data are in FOLDER.
"""

import collections
import json
import os
import pathlib
import struct
import subprocess
import sys
import zlib

DISPLAY = (1280, 720)
TIMES = ["create_to_running_ms", "docker_run_ms", "exec_roundtrip_ms", "screenshot_ms"]
# Generous: what is longer or negative is no measurement.
LONGEST_MS = 180_000
DATA_LABEL = "dev.wolfpack.dev-data"


def result(out: pathlib.Path) -> list[str]:
    report = json.loads((out / "report.json").read_text())
    wrong = []
    if set(report) != {*TIMES, "via"}:
        wrong.append(f"the keys of the report are {sorted(report)}")
    for key in TIMES:
        if type(report.get(key)) is not int or not 0 < report[key] <= LONGEST_MS:
            wrong.append(f"{key} is {report.get(key)!r}")
    if report.get("via") not in ("sandbox", "wolf"):
        wrong.append(f"via is {report.get('via')!r}")
    width, height, colours = decode((out / "screenshot.png").read_bytes())
    if (width, height) != DISPLAY:
        wrong.append(f"the picture is {width}x{height}")
    # A desktop without a window is one colour; one with a terminal has its text as well.
    if len(colours) < 3:
        wrong.append(f"the picture has {len(colours)} colours: there is no window on it")
    return wrong


def decode(data: bytes) -> tuple[int, int, collections.Counter]:
    """Size and pixels by colour of a PNG of 8 bits a channel, not interlaced."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n"), "no PNG"
    at, packed, ended = 8, b"", False
    while not ended:
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        (crc,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert crc == zlib.crc32(kind + body), f"a damaged {kind!r}"
        at += 12 + length
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            assert depth == 8 and colour in (2, 6) and not interlaced, (depth, colour, interlaced)
            size = 3 if colour == 2 else 4
        packed += body if kind == b"IDAT" else b""
        ended = kind == b"IEND"
    rows, stride = zlib.decompress(packed), width * size
    assert len(rows) == height * (stride + 1), "another number of pixels than it says"
    colours: collections.Counter = collections.Counter()
    above = bytearray(stride)
    for y in range(height):
        start = y * (stride + 1)
        row = bytearray(rows[start + 1 : start + 1 + stride])
        unfilter(rows[start], row, above, size)
        colours.update(bytes(row[x : x + size]) for x in range(0, stride, size))
        above = row
    return width, height, colours


def unfilter(kind: int, row: bytearray, above: bytearray, size: int) -> None:
    assert kind <= 4, f"filter {kind}"
    for i in range(len(row) if kind else 0):
        left = row[i - size] if i >= size else 0
        up = above[i]
        if kind == 1:
            add = left
        elif kind == 2:
            add = up
        elif kind == 3:
            add = (left + up) // 2
        else:
            corner = above[i - size] if i >= size else 0
            guess = left + up - corner
            add = min((left, up, corner), key=lambda value: abs(guess - value))
        row[i] = (row[i] + add) & 255


def found(folder: pathlib.Path) -> dict[str, list[str]]:
    """What there is of the demo, by kind."""
    ready = json.loads((folder / "ready.json").read_text())
    ports = {int(ready[key].rsplit(":", 1)[1]) for key in ("server", "server_tls", "agents")}
    processes = ours(folder)
    return {
        "container": objects(folder, ready, ["ps", "--all"], "{{.ID}}"),
        "volume": objects(folder, ready, ["volume", "ls"], "{{.Name}}"),
        "network": objects(folder, ready, ["network", "ls"], "{{.ID}}"),
        "process": [f"{pid} {name}" for pid, name in processes.items()],
        "port": [str(port) for port in sorted(ports & listening(processes))],
        "folder": [str(path) for path in (folder / "tmp").iterdir()],
    }


def objects(folder: pathlib.Path, ready: dict, listing: list[str], name: str) -> list[str]:
    """Those with the demo's label or, as all of a fleet's do, its name."""
    format_ = f'{name}\t{{{{.Label "{DATA_LABEL}"}}}}'
    names = "{{.Names}}" if listing[0] == "ps" else "{{.Name}}"
    command = ["docker", *listing, "--format", f"{format_}\t{names}"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    left = []
    for line in lines:
        ident, data, called = line.split("\t")
        mine = data.startswith(f"{folder}/") or called.startswith(ready["network"])
        # The container to compare with is named after the demo's process.
        if mine or called == f"wolfpack-demo-{os.environ['demo_pid']}":
            left.append(f"{ident} {called}")
    return left


def ours(folder: pathlib.Path) -> dict[int, str]:
    """Processes of the demo's binaries, or with its folder in what they were started with."""
    processes = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            program = os.readlink(entry / "exe")
        except OSError:
            continue
        if program.startswith(f"{folder}/") or f"{folder}/" in command:
            processes[int(entry.name)] = command[:120]
    return processes


def listening(processes: dict[int, str]) -> set[int]:
    """The ports that something of the demo listens at, or nobody that can be named: a port that somebody else has taken
    since is theirs."""
    owners = {}
    for link in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
        try:
            owners[os.readlink(link)] = int(link.parts[2])
        except OSError:
            continue
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in pathlib.Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            owner = owners.get(f"socket:[{fields[9]}]")
            if fields[3] == "0A" and (owner is None or owner in processes):
                ports.add(int(fields[1].rsplit(":", 1)[1], 16))
    return ports


def main() -> int:
    what, path = sys.argv[1], pathlib.Path(sys.argv[2])
    if what == "result":
        wrong = result(path)
    elif what == "there":
        wrong = [f"no {kind} is found while the demo runs" for kind, those in found(path).items() if not those]
    else:
        wrong = [f"a {kind} is left: {it}" for kind, those in found(path).items() for it in those]
    for line in wrong:
        print(f"demo test: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
