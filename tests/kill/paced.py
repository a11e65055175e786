"""Plays an input by its schedule, steers it at random, and kills it at random moments.

What control says holds across the deaths, so a life may begin paused, or at another speed than the
command names.
"""
import json
import random
import signal
import time
import urllib.error
import urllib.request

import harness

LIFE_SECONDS = (0.1, 1.2)
# How long a life may take until it serves, on a machine that does much else.
PATIENCE_SECONDS = 60


class Paced:
    def __init__(self, clickstream, path, flags, seed):
        self.clickstream, self.path, self.flags = clickstream, path, (*flags, "--listen", "0")
        self.draw = random.Random(seed)
        self.told, self.deaths = [], 0

    def die(self):
        """One life: changes at drawn moments, then SIGKILL at another."""
        process = self.clickstream.start(self.path, *self.flags)
        address = self.served(process)
        ends = time.monotonic() + self.draw.uniform(*LIFE_SECONDS)
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, self.draw.uniform(0, 0.3)))
            self.steer(address, *self.change())
        process.send_signal(signal.SIGKILL)
        ended = harness.finish(process)
        assert ended.code == -signal.SIGKILL, f"it ended before it was killed: {ended.describe()}"
        self.deaths += 1

    def change(self):
        return self.draw.choice([
            ("pause", None), ("resume", None), ("resume", None),
            ("speed", f"{self.draw.choice([20, 50, 100])}x"), ("rate", f"{self.draw.choice([50, 200, 400])}/s")])

    def finish(self):
        process = self.clickstream.start(self.path, *self.flags)
        address = self.served(process)
        self.steer(address, "rate", "50000/s")
        self.steer(address, "resume", None)
        return harness.finish(process, timeout=120)

    def served(self, process):
        """The address of this life: the one that a killed life left behind answers no more."""
        file, until = self.clickstream.data / "address", time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            assert process.poll() is None, harness.finish(process).describe()
            try:
                address = file.read_text().split("\n")[0]
                with urllib.request.urlopen(address + "/replay", timeout=10) as answer:
                    if json.load(answer)["source"]:
                        return address
            except (OSError, ValueError):
                pass
            time.sleep(0.01)
        raise AssertionError(f"it serves nothing after {PATIENCE_SECONDS} s")

    def steer(self, address, action, value):
        body = json.dumps({"value": value} if value else {}).encode()
        request = urllib.request.Request(
            f"{address}/replay/{action}", data=body, headers={"Content-Type": "application/json"}, method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            self.told.append((action, value, json.load(answer)))
