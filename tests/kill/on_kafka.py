"""Plays one input through parts that are processes of their own on Kafka, while they, and the broker,
die again and again; and notes the moment of each death.

A death is one of
- a failpoint: a part is started so that it kills itself there, the k-th time it comes by;
- a drain that dies: SIGTERM to the lake, then a failpoint of what a drain does (it stores its files);
- random: SIGKILL of a part from outside, or of two at one moment;
- the broker: SIGKILL, and started again.

Every part that is dead is started again under its own instance, as a service manager would.
"""
import os
import random
import signal
import time
from pathlib import Path

from .campaign import Death

PARTS = ("sessionize", "lake", "marts", "produce")
# The parts that come by the failpoints of a name. All of them read or write by the backend.
COME_BY = {
    "producer": ("produce",), "sessionizer": ("sessionize",), "lake": ("lake",), "marts": ("marts",),
    "kafka::before_send_offsets": ("produce", "sessionize"), "kafka::before_commit": ("produce", "sessionize"),
    "kafka::after_commit": ("produce", "sessionize"), "kafka::before_offset_commit": ("lake", "marts"),
    "kafka::after_offset_commit": ("lake", "marts"),
}
# Come by once, when the input is exhausted: the campaign ends before it.
NEVER = ("producer::before_end", "producer::after_end", "broker::")
# How long a part may take to come by its failpoint, before it is killed all the same.
PATIENCE_SECONDS = 15
# Between two deaths: at the most.
LIFE_SECONDS = 0.8


def moments_of(names):
    """Each failpoint with a part that comes by it."""
    return [(part, name) for name in names if not name.startswith(NEVER)
            for part in COME_BY.get(name, COME_BY.get(name.split("::")[0], ()))]


class Campaign:
    def __init__(self, pipeline, failpoint_binary, path, log, seed, rate):
        self.pipeline, self.failing, self.path, self.rate = pipeline, failpoint_binary, path, rate
        self.draw = random.Random(seed)
        self.log = Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text(f"# seed {seed}\n{Death.HEAD}")
        self.deaths, self.reached, self.began = [], {}, time.monotonic()
        self.running = {}

    def flags(self, part):
        own = [self.path, "--rate", f"{self.rate}/s"] if part == "produce" else []
        if part in ("produce", "sessionize") and self.draw.random() < 0.5:
            # Half of the time what it writes is in the log before it is committed, not as it is.
            own += ["--kafka-property", "linger.ms=0"]
        return own + (["--instance", "campaign"] if part in ("sessionize", "lake") else [])

    def start(self, part, **env):
        binary = self.failing if env else None
        self.running[part] = self.pipeline.start(part, *self.flags(part), binary=binary, **env)
        return self.running[part]

    def died(self, moment, lived):
        self.reached[moment] = self.reached.get(moment, 0) + 1
        death = Death(len(self.deaths) + 1, time.monotonic() - self.began, moment, lived, 0, f"{self.rate}/s")
        self.deaths.append(death)
        with open(self.log, "a") as log:
            log.write(death.line())
            log.flush()
            os.fsync(log.fileno())

    def all_run(self):
        """Whoever ended for any reason but ours is a failure, and not only a death more."""
        for part, process in self.running.items():
            if not process.is_running():
                done = part == "produce" and process.process.returncode == 0
                assert done, f"it ended by itself\n{process.describe()}"

    def input_is_done(self):
        produce = self.running.get("produce")
        return produce is not None and not produce.is_running() and produce.process.returncode == 0

    def run(self, moments, randoms, brokers):
        # Every third of the random ones takes two parts at once.
        of_one = [(self.draw.sample(PARTS, 2 if at % 3 == 0 else 1), "random") for at in range(randoms)]
        plan = [*moments, *of_one, *[("broker", "random")] * brokers]
        self.draw.shuffle(plan)
        for part in PARTS:
            self.start(part)
        for part, moment in plan:
            time.sleep(self.draw.uniform(0.05, LIFE_SECONDS))
            self.all_run()
            if "produce" in part and self.input_is_done():
                continue
            if part == "broker":
                self.broker()
            elif moment == "random":
                self.random(*part)
                for each in part:
                    self.start(each)
            else:
                self.failpoint(part, moment)
                self.start(part)

    def random(self, *parts):
        for part in parts:
            self.running[part].signal(signal.SIGKILL)
        for part in parts:
            self.running[part].kill()
        self.died(f"{' and '.join(parts)}: random", 0)

    def broker(self):
        self.pipeline.cluster.kill()
        self.died("broker", 0)
        time.sleep(self.draw.uniform(0, 2))
        self.pipeline.cluster.start()

    def failpoint(self, part, name):
        """One random death first: the part has to be started with its failpoint."""
        self.random(part)
        count = self.draw.choice([0, 0, 1, 2, 3, 5, 8]) if not name.startswith("lake") and "recovering" not in name else 0
        process = self.start(part, FAILPOINTS=f"{name}={count}*off->panic" if count else f"{name}=panic")
        began = time.monotonic()
        if part == "lake":
            # Files are due when it drains.
            time.sleep(self.draw.uniform(1.0, 2.5))
            if process.is_running():
                process.signal(signal.SIGTERM)
        try:
            process.process.wait(PATIENCE_SECONDS)
        except Exception:
            process.kill()
            self.died(f"{part}: random (it had not come by {name})", time.monotonic() - began)
            return
        code = process.process.returncode
        if code == -signal.SIGKILL:
            self.died(f"{part}: {name}#{count}", time.monotonic() - began)
        else:
            # A drain that had nothing to do, or an input that was done.
            assert code == 0 and part in ("lake", "produce"), f"{name}: instead of a death\n{process.describe()}"

    def finish(self):
        """No part dies any more: the input is played to its end, and all are asked to drain."""
        produce = self.running["produce"]
        if not self.input_is_done():
            produce.kill()
            self.rate = 10**9
            produce = self.start("produce")
            assert produce.wait(300) == 0, produce.describe()
        self.all_run()
        for part in ("sessionize", "lake", "marts"):
            self.running[part].drain(timeout=30)
