"""A shadow run over many messages, killed at random moments: is each in the log once?

    python -m benchmarks.shadow_kills [--messages 10000] [--kills 3]

What reads is a stand-in, a few keywords: the log is tried here, not a model. Prints one line of
JSON: messages, lines, lost, twice, kills, and the seconds of all starts.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from helpers.ask.file_answers import Answer
from helpers.core.files import write_csv
from helpers.core.pilot import Pilot
from helpers.watch.shadow import shadow_run
from helpers.watch.shadow_log import AnsweredBy, ShadowLog

FIELDS = {"topic": {"type": "label", "values": ["order", "complaint", "other"]}}
WORDS = {"order": "please send", "complaint": "is broken", "other": "hello there"}


class StandIn:
    """A Reader that knows three words."""

    pilot = Pilot.model_validate({"name": "stand_in", "text": "message", "fields": FIELDS})
    identity = "three words"

    def answers(self, messages: Sequence[str]) -> list[Answer]:
        """One Answer for each message."""
        told = []
        for message in messages:
            topic = next((name for name, word in WORDS.items() if word in message), "other")
            told.append(Answer({"topic": topic}, {"topic": 0.9}, {"topic": "words"}, False))
        return told


def write_messages(path: Path, number: int) -> None:
    """So many different messages as CSV, with ids."""
    draw = random.Random(0)
    rows = []
    for i in range(number):
        rows.append({"id": f"m{i}", "message": f"case {i}: {draw.choice(list(WORDS.values()))}"})
    write_csv(path, rows)


def killed_runs(folder: Path, number: int, kills: int, seed: int = 0) -> dict[str, float]:
    """Run, kill -9 while it writes, run again; then count the lines of each message."""
    mail, log = folder / "mail.csv", folder / "log"
    write_messages(mail, number)
    draw, started = random.Random(seed), time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.shadow_kills", "--child", str(mail), str(log)]
    done = 0
    for kill in range(kills):
        # at a moment when so many lines are written
        wanted = round(number * (kill + draw.random()) / kills)
        done += _killed_at(command, log, wanted)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    messages = Counter(line["attributes"]["course.position"] for line in _lines(log))
    return {
        "messages": number,
        "lines": sum(messages.values()),
        "lost": number - len(messages),
        "twice": sum(count > 1 for count in messages.values()),
        "kills": done,
        "seconds": round(time.perf_counter() - started, 1),
    }


def _killed_at(command: Sequence[str], log: Path, wanted: int) -> bool:
    """Start, and kill when `wanted` lines are in the log; False where it had ended before."""
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while running.poll() is None:
        if sum(path.read_bytes().count(b"\n") for path in log.glob("shadow-*.jsonl")) >= wanted:
            running.send_signal(signal.SIGKILL)
            running.wait()
            return True
        time.sleep(0.02)
    return False


def _lines(log: Path) -> list[dict]:
    found = []
    for path in sorted(log.glob("shadow-*.jsonl")):
        found += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return found


def _child(mail: str, log: str) -> None:
    # small files: the log is rotated many times while it is written
    by = AnsweredBy("stand-in", prompt="none")
    shadow_run(mail, ShadowLog(log, by, file_bytes=500_000), StandIn(), chunk=64)


def main() -> None:
    """Print what came of it, as a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shadow_kills")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(*options.child)
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(killed_runs(Path(folder), options.messages, options.kills)))


if __name__ == "__main__":
    main()
