"""A load test that looks at the answers: which are late, which fail, which are another adapter's.

An answer is held against cold ones, given one at a time by a server that had read nothing before.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from helpers import CourseError

Ask = Callable[["Job"], Mapping[str, Any]]  # a reply of ask.engines


@dataclass(frozen=True)
class Job:
    """A request to the adapter of that name; `own` and `others`: the cold answers to it.

    `own` is that of the adapter itself, `others` those of the other adapters ("" and (): not yet
    asked; see `cold_answers`).
    """

    adapter: str
    request: Mapping[str, Any]
    own: str = ""
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadResult:
    """What a load did: counts of `requests`, `failed` {reason: how many}, seconds.

    `wrong_adapter`: answers that are another adapter's cold answer and not their own. `different`:
    answers that are nobody's cold answer, of rounding in a batch or of a cache that another adapter
    has filled: with one client at a time there is no rounding, and each is a fault. `telling`:
    answers to requests that adapters answer differently; only those can show a wrong one. `p50`,
    `p95`: seconds from a request to its answer for half and for 95% of the answers (nan without
    any). `seconds`: of the whole load.
    """

    requests: int
    clients: int
    seconds: float
    failed: Mapping[str, int] = field(default_factory=dict)
    wrong_adapter: int = 0
    different: int = 0
    telling: int = 0
    p50: float = np.nan
    p95: float = np.nan

    @property
    def answered(self) -> int:
        """Requests that got an answer, right or not."""
        return self.requests - sum(self.failed.values())

    @property
    def per_second(self) -> float:
        """Messages answered in a second."""
        return self.answered / self.seconds

    def __str__(self) -> str:
        reasons = ", ".join(f"{number} x {reason}" for reason, number in self.failed.items())
        return (
            f"{self.requests} requests by {self.clients} clients in {self.seconds:.1f} s: "
            f"{self.per_second:.2f} messages a second, half within {self.p50:.2f} s, "
            f"95% within {self.p95:.2f} s; {sum(self.failed.values())} failed"
            f"{f' ({reasons})' if reasons else ''}, {self.wrong_adapter} of {self.telling} "
            f"answered by another adapter, {self.different} different"
        )


def cold_answers(ask_cold: Ask, jobs: Sequence[Job]) -> list[Job]:
    """The same jobs with their cold answers: every request to every adapter of `jobs`.

    `ask_cold` is called for one at a time and must have all of a prompt read anew (`cache_prompt`
    False). Raises CourseError where a request has no answer.
    """
    names = dict.fromkeys(job.adapter for job in jobs)
    told: dict[tuple[str, str], str] = {}
    for job in jobs:
        for name in names:
            key = name, repr(job.request)
            if key not in told:
                told[key] = _cold(ask_cold, replace(job, adapter=name))
    ready = []
    for job in jobs:
        answers = {name: told[name, repr(job.request)] for name in names}
        own = answers.pop(job.adapter)
        ready.append(replace(job, own=own, others=tuple(answers.values())))
    return ready


def _cold(ask_cold: Ask, job: Job) -> str:
    reply = ask_cold(job)
    if reply["text"] is None:
        what = f"The adapter {job.adapter} gave no answer to compare with ({reply['reason']})"
        raise CourseError(f"{what}; see that its server runs and begin again.")
    return str(reply["text"])


def run_load(
    ask: Ask,
    jobs: Sequence[Job],
    clients: int,
    seconds: float,
    seed: int = 0,
    most: int | None = None,
) -> LoadResult:
    """Let `clients` threads ask for `seconds`, or until `most` requests are sent.

    Every round asks all `jobs` in an order that `seed` draws. What was asked in time is waited for
    and counts. Raises CourseError for jobs without cold answers, and where there is no job.
    """
    if not jobs or any(not job.own for job in jobs):
        raise CourseError("Each job of a load test needs its cold answers; ask cold_answers first.")
    work = _Work(ask, jobs, seed, most)
    begin = time.perf_counter()
    work.end = begin + seconds
    with ThreadPoolExecutor(clients) as pool:
        try:
            for done in [pool.submit(work.run) for _ in range(clients)]:
                done.result()
        finally:
            work.end = 0.0  # after Ctrl-C no client asks again
    return _counted(work.results, clients, time.perf_counter() - begin)


class _Work:
    """Jobs in a drawn order, handed to the clients; `results`: (job, reply, seconds)."""

    def __init__(self, ask: Ask, jobs: Sequence[Job], seed: int, most: int | None) -> None:
        self.ask, self.end = ask, 0.0
        self.results: list[tuple[Job, Mapping[str, Any], float]] = []
        self._order, self._left = _endless(jobs, seed), most
        self._lock = threading.Lock()

    def run(self) -> None:
        """One client: ask until the time is over."""
        while time.perf_counter() < self.end:
            job = self._next()
            if job is None:
                return
            clock = time.perf_counter()
            try:
                reply = self.ask(job)
            except Exception as problem:  # a load goes on, whatever one request meets
                reason = str(problem).split("\n")[0][:80] or type(problem).__name__
                reply = {"text": None, "reason": reason}
            self.results.append((job, reply, time.perf_counter() - clock))

    def _next(self) -> Job | None:
        with self._lock:
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    return None
            return next(self._order)


def _endless(jobs: Sequence[Job], seed: int) -> Iterator[Job]:
    draw = np.random.default_rng(seed)
    while True:
        for place in draw.permutation(len(jobs)):
            yield jobs[place]


def _counted(
    results: Sequence[tuple[Job, Mapping[str, Any], float]], clients: int, seconds: float
) -> LoadResult:
    failed: Counter[str] = Counter()
    wrong, different, telling = 0, 0, 0
    latencies = []
    for job, reply, latency in results:
        text = reply["text"]
        if text is None:
            failed[str(reply["reason"])] += 1
            continue
        latencies.append(latency)
        telling += any(other != job.own for other in job.others)
        if text != job.own:
            wrong += text in job.others
            different += text not in job.others
    p50, p95 = np.percentile(latencies or [np.nan], [50, 95])
    counts = len(results), clients, seconds, dict(failed), wrong, different, telling
    return LoadResult(*counts, float(p50), float(p95))
