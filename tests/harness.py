"""Runs the command as a user's shell would, and makes inputs in the forms that users have."""
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

HEADER = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
ROOT = Path(__file__).resolve().parent.parent
# Of a MinIO that was just started.
AWS = {"AWS_ACCESS_KEY_ID": "minioadmin", "AWS_SECRET_ACCESS_KEY": "minioadmin", "AWS_REGION": "us-east-1"}
PACES = ("--speed", "--rate", "--flat-out", "--ramp", "--rate-steps")


@dataclass
class Ended:
    code: int
    stdout: str
    stderr: str

    @property
    def summary(self):
        """The one JSON object of `--json`."""
        try:
            return json.loads(self.stdout)
        except json.JSONDecodeError as error:
            raise AssertionError(f"stdout is not one JSON object ({error}):\n{self.describe()}") from None

    def describe(self):
        return f"exit {self.code}\nstdout:\n{self.stdout[-4000:]}\nstderr:\n{self.stderr[-4000:]}"


def environment(**more):
    """This process's environment without settings of clickstream's that a user may have there, and with
    these; None for one that is not there."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CLICKSTREAM_") and k != "FAILPOINTS"}
    return {k: v for k, v in {**kept, "NO_COLOR": "1", **more}.items() if v is not None}


def cache():
    """The folder outside the clone that scripts/env makes."""
    folder = os.environ.get("CLICKSTREAM_CACHE")
    assert folder, "run the tests through scripts/env: scripts/env pytest tests"
    return Path(folder)


class Clickstream:
    def __init__(self, binary, data):
        self.binary, self.data = Path(binary), Path(data)

    marts = property(lambda self: self.data / "marts.db")
    lake = property(lambda self: self.data / "lake")
    broker = property(lambda self: self.data / "broker.db")

    def command(self, inputs, flags=()):
        pace = () if any(flag.split("=")[0] in PACES for flag in flags) else ("--flat-out",)
        listen = () if any(flag.startswith("--listen") for flag in flags) else ("--listen", "off")
        named = [str(i) for i in (inputs if isinstance(inputs, (list, tuple)) else [inputs])]
        common = ("--data-dir", str(self.data), "--quiet", "--json")
        return [str(self.binary), "run", *named, *pace, *listen, *common, *flags]

    def environment(self, **more):
        return environment(**more)

    def start(self, inputs, *flags, stdin=subprocess.DEVNULL, **env):
        return subprocess.Popen(
            self.command(inputs, flags), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(**env)
        )

    def run(self, inputs, *flags, stdin=b"", timeout=120, **env):
        process = self.start(inputs, *flags, stdin=subprocess.PIPE, **env)
        return finish(process, stdin=stdin, timeout=timeout)

    def done(self, inputs, *flags, **more):
        """Runs to the end; it must exit 0."""
        ended = self.run(inputs, *flags, **more)
        assert ended.code == 0, ended.describe()
        return ended

    def peak(self, inputs, *flags):
        """Runs to the end; the summary, and the most memory that it had, in MB."""
        command = self.command(inputs, flags)
        process = subprocess.Popen(
            [sys.executable, "-c", PEAK, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=environment()
        )
        ended = finish(process)
        assert ended.code == 0, ended.describe()
        return ended.summary, int(ended.stderr.splitlines()[-1]) / 1000


# A process is charged what the one had that started it, and the tests' own may be large.
PEAK = """
import os, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def finish(process, stdin=None, timeout=120):
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
        ended = Ended(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
        raise AssertionError(f"still running after {timeout} s\n{ended.describe()}") from None
    return Ended(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def lines_of(path):
    """Header and rows of a gzipped CSV, each row with its line end."""
    with gzip.open(path, "rt", newline="") as file:
        header, *rows = file.readlines()
    return header, rows


def write_csv(path, rows, header=HEADER + "\n"):
    """In the form that the name says: .csv, .gz, .zst or .zip."""
    path = Path(path)
    text = header + "".join(rows)
    if path.suffix == ".gz":
        # Two members, as `cat a.gz b.gz` makes them.
        middle = len(text) // 2
        path.write_bytes(gzip.compress(text[:middle].encode()) + gzip.compress(text[middle:].encode()))
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{path.stem}.csv", text)
    elif path.suffix == ".zst":
        path.write_bytes(zstd(text[: len(header)], path) + zstd(text[len(header) :], path))
    else:
        path.write_bytes(text.encode())
    return path


def zstd(text, beside):
    """One frame, made by DuckDB: each line is written as it is, as a CSV of one unquoted column."""
    plain, packed = Path(f"{beside}.lines"), Path(f"{beside}.frame")
    plain.write_bytes(text.encode())
    one_column = "auto_detect=false, header=false, delim='\\t', quote='', escape='', columns={'line':'VARCHAR'}"
    duckdb.sql(
        f"COPY (SELECT * FROM read_csv('{plain}', {one_column})) TO '{packed}'"
        " (FORMAT csv, HEADER false, DELIMITER '\\t', QUOTE '', ESCAPE '', COMPRESSION zstd)"
    )
    frame = packed.read_bytes()
    plain.unlink()
    packed.unlink()
    return frame


def shifted(rows, day, renamed):
    """The same rows on another day ('2019-11-01'), in sessions of their own."""
    return [day + row[10:].rstrip("\r\n") + renamed + "\n" for row in rows]


def not_tested(why):
    """What cannot be had here fails under CI; elsewhere it is skipped, saying so."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"NOT TESTED: {why}")


def installed(script):
    """What `scripts/… install` prints."""
    done = subprocess.run([ROOT / "scripts" / script, "install"], capture_output=True, text=True)
    if done.returncode:
        not_tested(f"scripts/{script} install: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()


def said(process, text, timeout=60):
    """Whether it says that on stderr; what never does is killed."""
    killer = threading.Timer(timeout, process.kill)
    killer.start()
    try:
        return any(text in line.decode(errors="replace") for line in process.stderr)
    finally:
        killer.cancel()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def served_until(process, clickstream, path, read, enough, timeout=60):
    """What a process serves there, once it is enough. The address of one that was killed answers no more."""
    until, values, file = time.monotonic() + timeout, None, clickstream.data / "address"
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(file.read_text().splitlines()[0] + path, timeout=10) as answer:
                values = read(answer.read().decode())
            if enough(values):
                return values
        except (OSError, IndexError):
            pass
        time.sleep(0.05)
    raise AssertionError(f"{path} never came to that: {values}")


def metrics_until(process, clickstream, enough, timeout=60):
    """The metrics of a process that serves, once they are enough."""
    values = lambda text: {name: float(value) for name, _, value in (
        line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))}
    return served_until(process, clickstream, "/metrics", values, enough, timeout)


def status_until(process, clickstream, enough):
    """The same of /api/status."""
    return served_until(process, clickstream, "/api/status", json.loads, enough)


def wait_for_port(port, process, log, timeout=120):
    until = time.monotonic() + timeout
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}: {Path(log).read_text()[-2000:]}")


def command(binary, *words, timeout=120):
    """Any command, as a user types it."""
    process = subprocess.Popen(
        [str(binary), *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    return finish(process, timeout=timeout)
