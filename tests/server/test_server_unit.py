"""The systemd unit of docs/server.md: systemd's opinion, and its command within the bounds that it sets."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import psycopg
import pytest

from documented import block
from pictura.server import app
from pictura.server.keys import added

SHIM = f"""#!{sys.executable}
import sys
from pictura.cli import main
sys.exit(main())
"""
# ProtectSystem=strict: everything but the service's folders and /tmp is to read; and no capabilities.
BOUNDS = """
for place in "$0/lib/pictura" "$0/cache/pictura" /tmp; do mount --bind "$place" "$place"; done
for place in $(cut -d' ' -f2 /proc/self/mounts); do
    case "$place/" in
        /proc/*|/sys/*|/dev/*|/tmp/|"$0"/*) ;;
        *) mount -o remount,bind,ro "$place" ;;
    esac
done
mkdir "$0/lib/pictura/there" && rmdir "$0/lib/pictura/there" && ! mkdir "$0/bin/there" 2> /dev/null
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


@pytest.fixture(scope="module")
def text():
    return block("server.md", "[Service]")


@pytest.fixture(scope="module")
def unit(text):
    """{name: values in their order} of all that the unit sets."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if "=" in line:
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def analysed(*arguments):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)


def test_systemd_understands_it(text, tmp_path):
    (tmp_path / "pictura").write_text(SHIM)
    (tmp_path / "pictura").chmod(0o755)
    file = tmp_path / "pictura.service"
    file.write_text(text.replace("/opt/pictura/bin/pictura", str(tmp_path / "pictura")))
    done = analysed("verify", str(file))
    ours = [line for line in done.stderr.splitlines() if "pictura" in line]  # the machine's units may be odd
    assert not ours and done.returncode == 0, done.stderr
    done = analysed("security", "--offline=true", "--threshold=30", str(file))
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd judges no units that are not loaded")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_it_may_write_where_it_wants_to(unit):
    """Each folder of the command is one that systemd makes for it."""
    (command,) = unit["ExecStart"]
    options = dict(re.findall(r"--([a-z-]+) (\S+)", command))
    environment = dict(value.split("=", 1) for value in unit["Environment"])
    assert options["folder"] == f"%S/{unit['StateDirectory'][0]}"
    assert environment["PICTURA_CACHE"] == f"%C/{unit['CacheDirectory'][0]}"
    assert options["api-key-file"] == f"%d/{unit['LoadCredential'][0].partition(':')[0]}"
    assert float(options["grace"]) + app.LONGER < float(unit["TimeoutStopSec"][0])


class Service:
    """The unit's command with systemd's words put in, and what systemd would give it."""

    def __init__(self, unit, root: Path, database: str, *before: str) -> None:
        for name in ("lib", "cache", "credentials", "bin"):
            (root / name).mkdir()
        self.key = added(root / "credentials" / "keys", "anna", ["read", "generate"])
        self.pictura = root / "bin" / "pictura"
        self.pictura.write_text(SHIM)
        self.pictura.chmod(0o755)
        words = {
            "%S": f"{root}/lib", "%C": f"{root}/cache", "%d": f"{root}/credentials",
            "/opt/pictura": str(root), "postgresql:///pictura": database,
        }  # fmt: skip

        def put(value):
            for word, place in words.items():
                value = value.replace(word, place)
            assert "%" not in value, f"{value} has a specifier that this test does not know"
            return value

        for name in ("StateDirectory", "CacheDirectory"):
            place = {"StateDirectory": "lib", "CacheDirectory": "cache"}[name]
            (root / place / unit[name][0]).mkdir()
        environment = dict(put(value).split("=", 1) for value in unit["Environment"])
        environment |= {
            "PATH": "/usr/bin:/bin",
            "HOME": "/nonexistent",
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
        }
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}
        self.command = [*before, *shlex.split(put(unit["ExecStart"][0])), "--port", "0"]
        self.environment, self.umask = environment, int(unit["UMask"][0], 8)
        self.out, self.log = root / "out", root / "log"
        self.seconds = float(unit["TimeoutStopSec"][0])

    def __enter__(self) -> Service:
        with self.out.open("w") as out, self.log.open("w") as log:
            self.process = subprocess.Popen(
                self.command, stdout=out, stderr=log, env=self.environment, cwd="/", umask=self.umask
            )
        try:
            url = self.until(lambda: re.search(r"http://\S+\d", self.out.read_text()))[0]
            headers = {"authorization": f"Bearer {self.key}"}
            self.client = httpx2.Client(base_url=url, headers=headers, timeout=60)
            self.until(lambda: self.client.get("/readyz").status_code == 200)
        except BaseException:
            self.end()
            raise
        return self

    def end(self) -> None:
        for id in self.processes():
            os.kill(id, signal.SIGKILL)
        self.process.wait()

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.end()

    def until(self, true):
        end = time.monotonic() + 120
        while not (found := true()):
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.05)
        return found

    def processes(self) -> list[int]:
        """All that systemd would signal: the command and whatever it started."""
        parents = {}
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has just ended
                continue
        found = [self.process.pid] if self.process.poll() is None else []
        for id in found:
            found += [child for child, parent in parents.items() if parent == id]
        return found

    def job(self, **request):
        answer = self.client.post("/api/jobs", json={"requests": [request]})
        assert answer.status_code == 202, answer.text
        return answer.headers["location"]

    def done(self, location):
        return self.until(lambda: (job := self.client.get(location).json())["status"] == "done" and job)


def test_its_command_runs_within_its_bounds_and_ends_in_time(unit, pg, tmp_path):
    """Without a home, on a file system to read, told to end together with all of its workers."""
    postgres, name = pg
    before = ["unshare", "--mount", "--propagation=private", "sh", "-euc", BOUNDS, str(tmp_path)]
    service = Service(unit, tmp_path, postgres.url(name), *before)
    if os.geteuid() or subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    postgres.folder.chmod(0o755)  # its socket is another user's
    with service:
        made = service.done(service.job(prompt="a cat", seed=7, num_steps=2))
        content = service.client.get(made["images"][0]["url"]).content
        assert service.client.post("/api/attachments", content=content).status_code == 201
        service.job(prompt="two stars", seed=8, num_steps=60)
        running = "/api/jobs?status=running"
        service.until(lambda: service.client.get(running).json()["items"])
        began = time.monotonic()
        for id in service.processes():
            os.kill(id, signal.SIGTERM)
        status = service.process.wait(service.seconds)
        assert status in (0, -signal.SIGTERM) and time.monotonic() - began < service.seconds
    with psycopg.connect(postgres.url(name)) as connection:
        assert connection.execute("SELECT count(*) FROM pictures").fetchone() == (2,)
    kept = [path for place in ("lib", "cache") for path in (tmp_path / place).rglob("*") if path.is_file()]
    assert len(kept) >= 3  # two pictures and what was sent
    assert not [path for path in kept if path.stat().st_mode & 0o077]


@pytest.mark.slow
def test_it_calls_nothing_that_its_unit_forbids(unit, pg, tmp_path):
    """The system calls and families of sockets of a server and its workers from start to end."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    postgres, name = pg
    listed = analysed("syscall-filter", "--no-pager").stdout
    sets: dict[str, list[str]] = {}
    for line in listed.splitlines():
        if line.startswith("@"):
            calls = sets.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.lstrip().startswith("#"):
            calls.append(line.strip())

    def every(name):
        return set().union(*map(every, sets[name])) if name.startswith("@") else {name}

    trace = tmp_path / "trace"
    service = Service(unit, tmp_path, postgres.url(name), "strace", "-f", "-qq", "-o", str(trace))
    with service:
        service.done(service.job(prompt="a cat", seed=7, num_steps=2))
        os.kill(int(trace.read_text(errors="replace").split()[0]), signal.SIGTERM)  # not strace itself
        service.process.wait(service.seconds)
    lines = trace.read_text(errors="replace")
    called = set(re.findall(r"^\d+ +([a-z_0-9]+)\(", lines, re.M))
    assert {"openat", "execve", "socket"} < called
    assert called <= set().union(*map(every, unit["SystemCallFilter"]))
    families = set(re.findall(r"^\d+ +socket(?:pair)?\((AF_[A-Z0-9]+)", lines, re.M))
    assert {"AF_INET", "AF_UNIX"} <= families <= set(unit["RestrictAddressFamilies"][0].split())
