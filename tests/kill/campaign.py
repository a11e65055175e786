"""Plays one input to its end through many deaths, and notes the moment of each.

A death is one of
- a failpoint: the process kills itself there, the k-th time it comes by (counts are drawn);
- a drain that dies: SIGTERM, then a failpoint of what a drain does (the lake stores its files then);
- random: SIGKILL from outside after a drawn time, from before the first commit on.

The names of the failpoints are read from the sources, so a new one is in the campaign by itself.
The pace of each run is set by what is left, so that deaths fall over the whole of the input.
"""
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

# How long a run may take to come by its failpoint, before it is killed all the same.
PATIENCE_SECONDS = 8
# What a run lives, about: with the rows left, it sets the pace.
LIFE_SECONDS = 0.7
# Come by once, when the input is exhausted.
AT_THE_END = ("producer::before_end", "producer::after_end")
# Come by when files are due: at a drain, or when the log is full.
WHEN_STORING = ("lake::",)


@dataclass
class Death:
    number: int
    at_seconds: float
    moment: str
    lived_seconds: float
    rows_in_marts: int
    pace: str

    HEAD = "number\tat_seconds\tmoment\tlived_seconds\trows_in_marts\tpace\n"

    def line(self):
        return (f"{self.number}\t{self.at_seconds:.2f}\t{self.moment}\t{self.lived_seconds:.3f}"
                f"\t{self.rows_in_marts}\t{self.pace}\n")


def failpoints(root, kafka=False):
    """Every name in the sources that the pipeline comes by: on the embedded broker, or on Kafka."""
    names = set()
    for path in Path(root).glob("*/src/**/*.rs"):
        names |= set(re.findall(r'fail_point!\(\s*"([^"]+)"', path.read_text()))
    return sorted(name for name in names if not name.startswith(("broker" if kafka else "kafka", "warehouse::")))


class Campaign:
    def __init__(self, clickstream, path, rows, names, log, seed):
        self.clickstream, self.path, self.rows, self.names = clickstream, path, rows, names
        self.draw = random.Random(seed)
        self.log = Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text(f"# seed {seed}, {rows} rows\n{Death.HEAD}")
        self.deaths, self.reached, self.started = [], {}, time.monotonic()
        # Runs that ended before they could be killed: the input was done.
        self.done_early = 0

    def rows_in_marts(self):
        """Read from a copy: a look into the file itself would do the recovery that is on trial."""
        with tempfile.TemporaryDirectory() as folder:
            for name in ("marts.db", "marts.db-wal"):
                if (self.clickstream.data / name).exists():
                    shutil.copy(self.clickstream.data / name, folder)
            if not (Path(folder) / "marts.db").exists():
                return 0
            try:
                db = sqlite3.connect(Path(folder) / "marts.db")
                found = db.execute("SELECT sum(views + carts + purchases) FROM mart_traffic_hourly").fetchone()[0]
                db.close()
            except sqlite3.OperationalError:
                # Killed before the tables were made.
                return 0
            return found or 0

    def plan(self, deaths):
        """The names to die at, in a drawn order: every one several times, and random ones between."""
        ordinary = [name for name in self.names if name not in AT_THE_END]
        randoms = max(1, deaths // 4)
        each = -(-(deaths - randoms) // len(ordinary))
        moments = ordinary * each + ["random"] * randoms
        self.draw.shuffle(moments)
        return moments

    def pace(self, deaths_left, flat_out):
        """So that what is left lasts for the deaths that are left, and no one run can come to its end."""
        left = self.rows - self.rows_in_marts()
        if left > 0.4 * self.rows and self.draw.random() < flat_out:
            return "--flat-out"
        rate = min(left / (deaths_left + 5) / LIFE_SECONDS, left / 2 / PATIENCE_SECONDS)
        return f"--rate={max(200, int(rate))}/s"

    def run(self, deaths):
        moments = self.plan(deaths)
        while moments:
            moment = moments.pop()
            if moment == "random":
                self.random(self.pace(len(moments), flat_out=0.15))
            elif moment.startswith(WHEN_STORING):
                if self.draw.random() < 0.8:
                    drain_after = self.draw.uniform(0.2, 0.9)
                    self.failpoint(moment, 0, self.pace(len(moments), flat_out=0.15), drain_after)
                else:
                    self.failpoint(moment, self.draw.choice([0, 1]), self.pace(len(moments), flat_out=1))
            else:
                flat_out = 0 if moment.endswith("recovering") else 0.15
                self.failpoint(moment, self.draw.choice([0, 0, 1, 2, 3, 5, 8]), self.pace(len(moments), flat_out))
        # What is left, flat out, up to the end of the input: there die twice before it and once after.
        for moment in ("producer::before_end", "producer::before_end", "producer::after_end"):
            if moment in self.names:
                self.failpoint(moment, 0, "--flat-out", patience=120)
        # The end is written; the outputs still have to catch up with it.
        for moment in ("lake::after_put", "sessionizer::after_commit", "marts::before_commit", "lake::before_commit"):
            if moment in self.names:
                self.failpoint(moment, 0, "--flat-out", may_be_done=True)

    def start(self, pace, **env):
        # A small log: the lake is asked to store when it is full, the producer waits.
        return subprocess.Popen(
            self.clickstream.command(self.path, (pace, "--max-log-mib", "8")),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.clickstream.environment(**env),
        )

    def random(self, pace):
        process = self.start(pace)
        self.kill_after(process, self.draw.uniform(0.01, 1.2), "random", pace)

    def kill_after(self, process, seconds, moment, pace):
        began = time.monotonic()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        self.ended(process, began, moment, pace)

    def failpoint(self, name, count, pace, drain_after=None, patience=PATIENCE_SECONDS, may_be_done=False):
        process = self.start(pace, FAILPOINTS=f"{name}={count}*off->panic" if count else f"{name}=panic")
        began = time.monotonic()
        if drain_after is not None:
            try:
                process.wait(drain_after)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
            moment = f"{name}#{count}" + (" at a drain" if drain_after is not None else "")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            moment = f"random (it had not come by {name})"
        self.ended(process, began, moment, pace, drained=drain_after is not None, may_be_done=may_be_done)

    def ended(self, process, began, moment, pace, drained=False, may_be_done=False):
        output = process.communicate()[0].decode(errors="replace")
        lived = time.monotonic() - began
        if process.returncode != -signal.SIGKILL:
            # It ended by itself: at the end of the input, or (3) with a drain that had nothing to do.
            fine = (process.returncode == 0 and may_be_done) or (process.returncode == 3 and drained)
            assert fine, f"{moment}: exit {process.returncode} after {lived:.1f} s instead of a death\n{output[-4000:]}"
            self.done_early += 1
            return
        name = moment.split("#")[0]
        self.reached[name] = self.reached.get(name, 0) + 1
        death = Death(len(self.deaths) + 1, time.monotonic() - self.started, moment, lived, self.rows_in_marts(), pace)
        self.deaths.append(death)
        with open(self.log, "a") as log:
            log.write(death.line())
            log.flush()
            os.fsync(log.fileno())
