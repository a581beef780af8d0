"""One client for any teacher: the embedded model in batches, or an OpenAI-compatible server with requests in parallel.

Every answer is written down as it arrives, so that a kill loses none; a budget, a licence check and the bill come with it.
"""

import os
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from helpers import CourseError
from helpers.ask import answers, engines
from helpers.choose import models
from helpers.core.files import fingerprint
from helpers.core.runtime import progress

KEY_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,79}"


class Teacher(BaseModel):
    """`teacher:` of pilot.yaml. Without an address the model runs in this process; `address: embedded` starts llama.cpp with it.

    Prices are US dollars per million tokens, `timeout` is seconds. The key itself never stands here, only its variable's name.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    address: str | None = None
    model: str = "embedded"
    key_from: str | None = Field(default=None, pattern=rf"^{KEY_NAME}$")
    licence: str = "unknown"
    accept_unknown_licence: bool = False
    usd_per_million_in: float = Field(default=0.0, ge=0)
    usd_per_million_out: float = Field(default=0.0, ge=0)
    timeout: float = Field(default=120.0, gt=0)
    parallel: int = Field(default=8, ge=1, le=256)
    retries: int = Field(default=4, ge=0, le=20)
    chat_only: bool = (
        False  # a server without /completions: raw prompts are sent as one user message
    )
    gbnf: bool = False  # the server takes llama.cpp grammars; without, answers are free and what does not fit is dropped later

    @field_validator("address")
    @classmethod
    def plain_address(cls, address):
        if address and address != "embedded" and not address.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https:// and usually ends in /v1")
        if address and "@" in address:
            raise ValueError(
                "holds a user name or password; put the key into an environment variable and name it in key_from"
            )
        return address

    @property
    def name(self):
        return "SmolLM2-135M-Instruct" if self.model == "embedded" else self.model

    def key(self):
        """The key from the environment, 'none' when no variable is named. Raises CourseError when it is not set."""
        if self.key_from is None:
            return "none"
        if not os.environ.get(self.key_from):
            raise CourseError(
                f"The environment variable {self.key_from}, which pilot.yaml names in key_from, is not set; set it before "
                "you start Jupyter or make."
            )
        return os.environ[self.key_from]


def of(pilot):
    """The Teacher that pilot.yaml names. Raises CourseError with one sentence per mistake; a key pasted by mistake is not repeated."""
    said = pilot.teacher
    if said == "embedded":
        return Teacher(licence="Apache-2.0")
    if not isinstance(said, dict):
        raise CourseError(
            "pilot.yaml: teacher is 'embedded', or the lines 'address:' and 'model:' of an OpenAI-compatible server."
        )
    try:
        teacher = Teacher.model_validate(said)
    except ValidationError as problem:
        raise CourseError(" ".join(_sentence(error) for error in problem.errors())) from None
    if teacher.address not in (None, "embedded") and "model" not in said:
        raise CourseError(
            "pilot.yaml: teacher has an address but no model; add 'model:' with the name that the server knows it by."
        )
    if teacher.model == "embedded" and "licence" not in said:
        teacher.licence = "Apache-2.0"
    return teacher


def _sentence(error):
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        if "key" in where.lower():
            return (
                f"pilot.yaml: teacher: {where!r} is not known: a key never stands in a file; put it into an environment variable and "
                "write the variable's name as key_from."
            )
        return f"pilot.yaml: teacher: unknown key {where!r}; known keys are {', '.join(Teacher.model_fields)}."
    if where == "key_from":
        return "pilot.yaml: teacher: key_from is the NAME of an environment variable, for example MY_API_KEY, never the key itself."
    return f"pilot.yaml: teacher: {where}: {error['msg'].removeprefix('Value error, ')}."


def stated(teacher):
    """What pilot.yaml itself says about the teacher's licence; a catalogue's function of the same shape may take its place."""
    said = teacher.licence.strip().lower()
    return said if said in ("blocked", "unknown") else "allowed"


def gate(teacher, verdict=stated):
    """Before the first request: may this teacher's texts train another model? Raises CourseError when not, or when nobody knows.

    `verdict(teacher)` answers allowed, allowed with duties, blocked or unknown.
    """
    found = verdict(teacher)
    if found == "blocked":
        raise CourseError(
            f"The licence of {teacher.name} does not allow training another model on its texts; choose another teacher in "
            "pilot.yaml. Nothing was asked."
        )
    if found not in ("allowed", "allowed with duties") and not teacher.accept_unknown_licence:
        raise CourseError(
            f"Nobody has said whether the licence of {teacher.name} allows training on its texts; read it, then write "
            "'licence:' and 'accept_unknown_licence: true' under teacher in pilot.yaml. Nothing was asked."
        )
    return found


@dataclass
class Budget:
    """Upper limits over all starts of one piece of work; None is no limit, 0 refuses before the first request."""

    requests: int | None = None
    tokens: int | None = None
    usd: float | None = None

    def over(self, requests, tokens, usd):
        """The limit that these amounts pass, in words, or None."""
        for name, limit, amount in (
            ("requests", self.requests, requests),
            ("tokens", self.tokens, tokens),
            ("USD", self.usd, usd),
        ):
            if limit is not None and (amount > limit or limit <= 0):
                return f"{limit:,} {name}"
        return None


@dataclass
class Collected:
    """`texts` in the order of the requests, None where the teacher failed; `failed`: {index: reason}; the bill of all starts."""

    texts: list
    failed: dict = field(default_factory=dict)
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0
    estimated: bool = False
    seconds: float = 0.0

    def __str__(self):
        guess, failed = (
            " (partly estimated)" if self.estimated else "",
            f", {len(self.failed)} failed" if self.failed else "",
        )
        return (
            f"{self.requests} requests, {self.tokens_in:,} tokens in, {self.tokens_out:,} out{guess}, {self.usd:.4f} USD, "
            f"{self.seconds:.0f} s{failed}"
        )


@contextmanager
def opened(teacher, verdict=stated):
    """The engine of a teacher, after its licence was checked: the model in this process, llama.cpp with it, or the server."""
    gate(teacher, verdict)
    if teacher.address is None:
        yield engines.Batches(teacher)
    elif teacher.address == "embedded":
        gguf = models.resolve(teacher.model).gguf
        if gguf is None:
            raise CourseError(
                f"{teacher.name} has no GGUF file for llama.cpp; leave the address out to run it in this process."
            )
        with answers.llama_server(gguf, teacher.parallel) as address:
            yield engines.Server(teacher, address)
    else:
        yield engines.Server(teacher)


def collect(requests, engine, journal, budget=None, fails_in_a_row=20, partial=False):
    """Ask for what the journal lacks and return Collected, in the order of the requests, however the answers arrive.

    Stored answers are never asked for again; failed ones are. Raises CourseError, with everything that arrived kept in the journal:
    a spent budget (partial=True returns what is there instead), too many failures in a row, Ctrl-C, no answer at all.
    """
    budget, keys = budget or Budget(), [fingerprint(r) for r in requests]
    if limit := budget.over(0, 0, 0):
        raise CourseError(f"The budget is {limit}; nothing was asked. Raise it to begin.")
    have = lambda key: (journal.replies.get(key) or {}).get("text") is not None  # noqa: E731
    units = [unit for unit in engine.units(requests) if not all(have(fingerprint(r)) for r in unit)]
    waiting, streak, clock = {}, 0, [time.perf_counter()]
    bar = progress(None, "teacher", total=sum(map(len, units)))

    def over(more):
        return budget.over(
            *_sum(
                journal.replies.values(),
                engine.teacher,
                [r for unit in waiting.values() for r in unit] + more,
            )
        )

    def store(jobs):
        """Journal what these jobs brought; returns the replies and the first error."""
        replies, problem = [], None
        for job in jobs:
            bar.update(len(waiting.pop(job)))
            problem = problem or job.exception()
            replies += [] if job.exception() else [r for r in job.result() if not have(r["key"])]
        now = time.perf_counter()
        if replies:
            journal.add(replies, now - clock[0])
        clock[0] = now
        return replies, problem

    pool = ThreadPoolExecutor(engine.parallel)
    engine.stop.clear()
    try:
        while True:
            while units and len(waiting) < engine.parallel:
                unit = units[0]
                while unit and over(unit):  # as much of a batch as the budget allows
                    unit = unit[:-1]
                if not unit:
                    break
                units[0] = units[0][len(unit) :]
                units = units if units[0] else units[1:]
                waiting[pool.submit(engine.answer, unit)] = unit
            if not waiting:
                break
            replies, problem = store(wait(waiting, return_when=FIRST_COMPLETED).done)
            if problem:
                raise problem
            for r in replies:
                streak = 0 if r["text"] is not None else streak + 1
                if streak >= fails_in_a_row:
                    raise CourseError(
                        f"The teacher failed {streak} times in a row ({r['reason']}); {_kept(keys, have)} are kept. "
                        "Check the server, then run again: it goes on where it stopped."
                    )
    except KeyboardInterrupt:
        raise CourseError(f"Stopped: {_kept(keys, have)} are kept. Run again to go on.") from None
    finally:
        engine.stop.set()  # ends every pause between two tries
        pool.shutdown(wait=False, cancel_futures=True)
        store(
            [job for job in wait(waiting, timeout=10).done if not job.cancelled()]
        )  # answers under way are paid for: keep them
        bar.close()
    if units and not partial:
        raise CourseError(
            f"The budget of {over(units[0][:1])} allows no further request: {_kept(keys, have)} are kept. Raise it and run "
            "again."
        )
    if not any(map(have, keys)) and not units:
        reasons = [journal.replies[key]["reason"] for key in keys if key in journal.replies]
        raise CourseError(
            f"The teacher gave no answer at all ({reasons[0]})."
            if reasons
            else "There is nothing to ask the teacher."
        )
    replies = [journal.replies.get(key) or {"text": None, "reason": "not asked"} for key in keys]
    count, tokens, usd = _sum(journal.replies.values(), engine.teacher)
    tokens_in = sum(r["tokens_in"] for r in journal.replies.values())
    return Collected(
        [r["text"] for r in replies],
        {i: r["reason"] for i, r in enumerate(replies) if r["text"] is None},
        count,
        tokens_in,
        tokens - tokens_in,
        usd,
        any(r["estimated"] for r in journal.replies.values()),
        journal.seconds,
    )


def _kept(keys, have):
    return f"{sum(map(have, keys))} of {len(keys)} answers"


def _sum(replies, teacher, expected=()):
    """(requests, tokens, USD) of replies, and of requests under way, which count with their longest possible answer."""
    read = sum(r["tokens_in"] for r in replies) + sum(map(engines.length, expected))
    written = sum(r["tokens_out"] for r in replies) + sum(
        r.get("max_tokens", engines.SETTINGS["max_tokens"]) for r in expected
    )
    return (
        len(replies) + len(expected),
        read + written,
        (read * teacher.usd_per_million_in + written * teacher.usd_per_million_out) / 1e6,
    )
