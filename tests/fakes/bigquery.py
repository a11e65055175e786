"""BigQuery's emulator (`scripts/bigquery`) as a process of its own, and what its tables hold."""
import json
import signal
import subprocess
import urllib.error
import urllib.request
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import harness

PROJECT, DATASET = "shop", "clicks"


class BigQuery:
    """`with BigQuery(folder) as bigquery:`; `flags` make clickstream use it."""

    def __init__(self, folder, faults=None):
        self.folder, self.faults, self.stack, self.processes = folder, faults, ExitStack(), []
        self.port, self.grpc, self.proxy = harness.free_port(), harness.free_port(), harness.free_port()

    dataset = f"{PROJECT}.{DATASET}"
    url = property(lambda self: f"http://127.0.0.1:{self.port}")

    @property
    def flags(self):
        storage = self.proxy if self.faults is not None else self.grpc
        at = ("--bigquery-endpoint", self.url, "--bigquery-storage-endpoint", f"http://127.0.0.1:{storage}")
        return ("--warehouse", self.dataset, *at)

    def __enter__(self):
        python = harness.installed("bigquery")
        data = ("--host", "127.0.0.1", "--data-dir", str(self.folder), "--project", PROJECT, "--dataset", "other")
        ports = ("--port", str(self.port), "--grpc-port", str(self.grpc))
        self.start([harness.ROOT / "scripts/bigquery", "serve", *ports, *data], "emulator.log", self.grpc, self.port)
        if self.faults is not None:
            faults = ",".join(f"{number}={fault}" for number, fault in self.faults.items())
            proxy = Path(__file__).with_name("write_proxy.py")
            command = [python, proxy, f"127.0.0.1:{self.proxy}", f"127.0.0.1:{self.grpc}", faults]
            self.start(command, "proxy.log", self.proxy)
        return self

    def start(self, command, log, *ports):
        self.folder.mkdir(parents=True, exist_ok=True)
        out = self.stack.enter_context(open(self.folder / log, "w"))
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=subprocess.STDOUT)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        self.processes.append(process)
        for port in ports:
            harness.wait_for_port(port, process, self.folder / log)

    def __exit__(self, *_):
        self.stack.close()

    def hangs(self, hangs=True):
        """The Storage API (with `faults`, the proxy before it): nothing is answered."""
        self.processes[-1].send_signal(signal.SIGSTOP if hangs else signal.SIGCONT)

    def remake(self, name, **changes):
        """A table of the same name, without rows and with these changes; None takes something away."""
        whole = self.table(name)
        kept = {key: whole.get(key) for key in ("tableReference", "timePartitioning", "clustering")}
        kept["schema"] = {"fields": whole["schema"]["fields"]}
        self.call("DELETE", f"datasets/{DATASET}/tables/{name}")
        made = {key: value for key, value in {**kept, **changes}.items() if value is not None}
        self.call("POST", f"datasets/{DATASET}/tables", made)

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.url}/bigquery/v2/projects/{PROJECT}/{path}"
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()[:500]}") from None

    def query(self, sql):
        """Rows as tuples of text, None for NULL; lists and structs as they are."""
        answer = self.call("POST", "queries", {"query": sql, "useLegacySql": False, "maxResults": 1_000_000, "timeoutMs": 60_000})
        return [tuple(cell["v"] for cell in row["f"]) for row in answer.get("rows", [])]

    def table(self, name):
        return self.call("GET", f"datasets/{DATASET}/tables/{name}")


def money(text):
    return None if text is None else Decimal(text).quantize(Decimal("0.01"))
