"""A real Apache Kafka, and the parts of the pipeline as processes on it."""
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import harness

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "kafka"
# Controllers listen so far above the brokers (scripts/kafka).
CONTROLLERS = 100


def free_ports(count):
    """So many ports in a row from the first, with those of the controllers free as well."""
    # Processes that start together have numbers that follow each other, and look at the same time.
    for first in range(20_000 + os.getpid() * 50 % 5_000, 31_000, 7):
        wanted = [first + i for i in range(count)] + [first + CONTROLLERS + i for i in range(count)]
        if all(_is_free(port) for port in wanted):
            return first
    raise AssertionError("no free ports for Kafka between 20000 and 31000")


def _is_free(port):
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Cluster:
    """One node or three, with a folder and ports of its own."""

    def __init__(self, nodes=1, properties=(), heap="512m", port=None):
        self.nodes, self.port = nodes, port or free_ports(2 * nodes)
        self.folder = Path(tempfile.mkdtemp(prefix="clickstream-kafka-"))
        more = [part for line in properties for part in ("--property", line)]
        self.script("start", "--nodes", str(nodes), "--heap", heap, *more)

    servers = property(lambda self: ",".join(f"127.0.0.1:{self.port + node}" for node in range(self.nodes)))
    url = property(lambda self: f"kafka://{self.servers}")

    def script(self, command, *more):
        done = subprocess.run(
            [str(SCRIPT), command, "--dir", str(self.folder), *(("--port", str(self.port)) if command == "start" else ()), *more],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=180)
        assert done.returncode == 0, f"scripts/kafka {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def kill(self, node=None):
        self.script("kill", *(("--node", str(node)) if node else ()))

    def start(self, node=None):
        self.script("start", *(("--node", str(node)) if node else ()))

    def runs(self):
        """All of it."""
        return subprocess.run([str(SCRIPT), "status", "--dir", str(self.folder)], capture_output=True).returncode == 0

    def tool(self, name, *arguments, check=True):
        """One of Kafka's own."""
        done = subprocess.run(
            [str(SCRIPT), "tool", name, "--bootstrap-server", self.servers, *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        assert not check or done.returncode == 0, f"{name} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def end(self):
        self.script("kill")
        shutil.rmtree(self.folder, ignore_errors=True)


class Part:
    """A process of one part. What it writes goes into files, so that it never waits for a reader."""

    def __init__(self, name, command, folder, **env):
        self.name, self.command = name, [str(part) for part in command]
        number = len(list(Path(folder).glob(f"{name}-*.err")))
        self.out, self.err = Path(folder) / f"{name}-{number}.out", Path(folder) / f"{name}-{number}.err"
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=harness.environment(**env))

    pid = property(lambda self: self.process.pid)

    def is_running(self):
        return self.process.poll() is None

    def says(self):
        return self.err.read_text(errors="replace")

    def describe(self):
        return f"{' '.join(self.command)}\nexit {self.process.poll()}\n{self.out.read_text()[-2000:]}\n{self.says()[-4000:]}"

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout):
        """Its exit code; it is killed, and fails the test, if it takes longer."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} still runs after {timeout} s\n{self.describe()}") from None

    def kill(self):
        self.process.kill()
        return self.process.wait()

    def drain(self, timeout=60):
        """Asks it to end, as a service manager does; it must do so well."""
        self.signal(signal.SIGTERM)
        code = self.wait(timeout)
        assert code == 0 or (self.name == "produce" and code == 3), self.describe()
        return self.report()

    def report(self):
        return json.loads(self.out.read_text())


class Pipeline:
    """Commands on one cluster, one prefix and one data folder."""

    def __init__(self, binary, cluster, folder, prefix, flags=()):
        self.binary, self.cluster, self.folder, self.prefix = Path(binary), cluster, Path(folder), prefix
        self.flags = list(flags)
        self.data, self.logs = self.folder / "data", self.folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.started = []

    marts = property(lambda self: self.data / "marts.db")
    lake = property(lambda self: self.data / "lake")

    def on(self):
        return ["--broker", self.cluster.url, "--topic-prefix", self.prefix, *self.flags]

    def command(self, name, *flags):
        words = ["consume", name] if name in ("lake", "warehouse") else [name]
        data = ["--data-dir", self.data] if name in ("lake", "marts", "run") else []
        serve = [] if any(str(flag).startswith("--listen") for flag in flags) else ["--listen", "off"]
        return [self.binary, *words, *self.on(), *data, *serve, "--json", *flags]

    def start(self, name, *flags, binary=None, **env):
        command = self.command(name, *flags)
        part = Part(name, [binary or command[0], *command[1:]], self.logs, **env)
        self.started.append(part)
        return part

    def serving(self, name, *flags, **env):
        """One that serves, once it is ready: the part, and its address."""
        part = self.start(name, "--listen", "127.0.0.1:0", *flags, **env)
        said = until("its address", lambda: "http://" in part.says() and part.says(), 180, part)
        address = said.split("http://")[1].split("/")[0]
        until(f"{name} to be ready", lambda: get(address, "/readyz")[0] == 200, 180, part)
        return part, address

    def ask(self, *words, check=True, timeout=60, **env):
        """A command that looks and ends."""
        done = subprocess.run(
            [str(word) for word in (self.binary, *words, *self.on())],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, env=harness.environment(**env))
        ended = harness.Ended(done.returncode, done.stdout, done.stderr)
        assert not check or ended.code == 0, ended.describe()
        return ended

    def run(self, inputs, *flags, timeout=240):
        """All parts in one process, to the end; the summary."""
        named = [str(i) for i in (inputs if isinstance(inputs, (list, tuple)) else [inputs])]
        part = self.start("run", *named, "--flat-out", *flags)
        code = part.wait(timeout)
        assert code == 0, part.describe()
        return part.report()

    def end(self):
        for part in self.started:
            if part.is_running():
                # One that was stopped has to go on to be killed.
                part.signal(signal.SIGCONT)
                part.kill()


def get(address, path):
    """Status and body of what a process serves."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return None, ""


def metric(part, name):
    """What it serves under that name, all labels together; 0 until it serves."""
    address = part.says().split("http://")[1:]
    served = get(address[0].split("/")[0], "/metrics")[1] if address else ""
    values = [line.split() for line in served.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(value) for _, value in values)


def until(what, true, seconds, *parts):
    """Waits for something to come true; a part that ends meanwhile fails the test."""
    deadline = time.monotonic() + seconds
    while True:
        found = true()
        if found:
            return found
        for part in parts:
            assert part.is_running(), f"while waiting for {what}:\n{part.describe()}"
        said = "\n".join(part.describe() for part in parts)
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s\n{said}"
        time.sleep(0.05)
