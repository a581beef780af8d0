"""One client for any teacher: the embedded model in batches, or a server with requests in parallel.

Every answer is written down as it arrives, so that a kill loses none; a budget, a licence check and
the bill come with it.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from helpers import CourseError
from helpers.ask import engines
from helpers.ask.progress import progress
from helpers.ask.server import llama_server
from helpers.choose import licensing, models
from helpers.core.files import Journal, fingerprint
from helpers.core.pilot import Pilot
from helpers.core.text import pydantic_sentences

KEY_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,79}"


class Teacher(BaseModel):
    """`teacher:` of pilot.yaml. Without an address the model runs in this process.

    `address: embedded` starts llama.cpp with it. Prices are US dollars per million tokens,
    `timeout` is seconds. The key itself never stands here, only the name of its environment
    variable.
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
    chat_only: bool = False  # a server without /completions: a raw prompt goes as one user message
    gbnf: bool = (
        False  # the server takes llama.cpp grammars; without, what does not fit is dropped later
    )

    @field_validator("address")
    @classmethod
    def _plain_address(cls, address: str | None) -> str | None:
        if address in (None, "", "embedded"):
            return address
        if not address.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https:// and usually ends in /v1")
        if "@" in address:
            raise ValueError(
                "holds a user name or password; put the key into an environment variable and name "
                "it in key_from"
            )
        return address

    @property
    def name(self) -> str:
        """The model's name, as a server knows it."""
        return "SmolLM2-135M-Instruct" if self.model == "embedded" else self.model

    def key(self) -> str:
        """The key from the environment, 'none' without a variable; CourseError when not set."""
        if self.key_from is None:
            return "none"
        if not os.environ.get(self.key_from):
            raise CourseError(
                f"The environment variable {self.key_from}, which pilot.yaml names in key_from, is "
                "not set; set it before you start Jupyter or make."
            )
        return os.environ[self.key_from]


def of(pilot: Pilot) -> Teacher:
    """The Teacher that pilot.yaml names.

    Raises CourseError with one sentence per mistake; a key pasted by mistake is not repeated.
    """
    lines = pilot.teacher
    if lines == "embedded":
        return Teacher(licence="Apache-2.0")
    if not isinstance(lines, dict):
        raise CourseError(
            "pilot.yaml: teacher is 'embedded', or the lines 'address:' and 'model:' of an "
            "OpenAI-compatible server."
        )
    try:
        teacher = Teacher.model_validate(lines)
    except ValidationError as problem:
        sentences = pydantic_sentences(problem, "pilot.yaml: teacher", Teacher.model_fields)
        raise CourseError(_about_a_key(problem) or sentences) from None
    if teacher.address not in (None, "embedded") and "model" not in lines:
        raise CourseError(
            "pilot.yaml: teacher has an address but no model; add 'model:' with the name that the "
            "server knows it by."
        )
    # the course knows the licence of its own model
    if teacher.model == "embedded" and "licence" not in lines:
        teacher.licence = "Apache-2.0"
    return teacher


def _about_a_key(problem: ValidationError) -> str | None:
    """What to say when somebody wrote a key into the file."""
    for error in problem.errors():
        # pydantic's own sentence might repeat what was written
        name = str(error["loc"][-1])
        if name == "key_from":
            return (
                "pilot.yaml: teacher: key_from is the NAME of an environment variable, for example "
                "MY_API_KEY, never the key itself."
            )
        if error["type"] == "extra_forbidden" and "key" in name.lower():
            return (
                f"pilot.yaml: teacher: {name!r} is not known: a key never stands in a file; put it "
                "into an environment variable and write the variable's name as key_from."
            )
    return None


def stated(teacher: Teacher) -> str:
    """What pilot.yaml itself says about the licence; a catalogue's function may take its place."""
    # whoever writes a licence down has read it
    licence = teacher.licence.strip().lower()
    return licence if licence in ("blocked", "unknown") else "allowed"


def catalogue_verdict(pilot: Pilot, purpose: str = "internal") -> Callable[[Teacher], str]:
    """A function teacher -> what the licence gate of `choose` says of it as the pilot's teacher.

    `purpose`: research, internal, product or published.
    """

    def verdict(teacher: Teacher) -> str:
        use = licensing.Use(purpose)
        answer = licensing.gate(pilot.base_model, teachers=[teacher.model], use=use)
        return answer.verdict.split(":")[0]

    return verdict


def refuse_unlicensed_teacher(teacher: Teacher, verdict: Callable[[Teacher], str] = stated) -> str:
    """Before the first request: may this teacher's texts train another model? Returns the verdict.

    `verdict(teacher)` is allowed, allowed with duties, blocked or unknown. Raises CourseError when
    it is blocked, or unknown and not accepted in pilot.yaml.
    """
    answer = verdict(teacher)
    if answer == "blocked":
        raise CourseError(
            f"The licence of {teacher.name} does not allow training another model on its texts; "
            "choose another teacher in pilot.yaml. Nothing was asked."
        )
    if answer not in ("allowed", "allowed with duties") and not teacher.accept_unknown_licence:
        raise CourseError(
            f"Nobody has said whether the licence of {teacher.name} allows training on its texts; "
            "read it, then write 'licence:' and 'accept_unknown_licence: true' under teacher in "
            "pilot.yaml. Nothing was asked."
        )
    return answer


@contextmanager
def opened(
    teacher: Teacher, verdict: Callable[[Teacher], str] = stated
) -> Iterator[engines.Batches | engines.Server]:
    """The engine of a teacher, after its licence was checked: this process, llama.cpp, a server."""
    refuse_unlicensed_teacher(teacher, verdict)
    if teacher.address is None:
        yield engines.Batches(teacher)
    elif teacher.address == "embedded":
        gguf = models.resolve(teacher.model).gguf
        if gguf is None:
            raise CourseError(
                f"{teacher.name} has no GGUF file for llama.cpp; leave the address out to run it "
                "in this process."
            )
        with llama_server(gguf, teacher.parallel) as address:
            yield engines.Server(teacher, address)
    else:
        yield engines.Server(teacher)


@dataclass
class Budget:
    """Upper limits over all starts of one piece of work; None is no limit, 0 asks nothing."""

    requests: int | None = None
    tokens: int | None = None
    usd: float | None = None

    def passed(self, requests: int, tokens: int, usd: float) -> str | None:
        """The limit that these amounts pass, in words, or None."""
        amounts = {"requests": requests, "tokens": tokens, "usd": usd}
        for name, amount in amounts.items():
            limit = getattr(self, name)
            if limit is not None and (amount > limit or limit <= 0):
                return f"{limit:,} {name.replace('usd', 'USD')}"
        return None


@dataclass
class Collected:
    """`texts` in the order of the requests, None where the teacher failed; the bill of all starts.

    `failed` is {index: reason}; `estimated` says that a server did not count its tokens.
    """

    texts: list
    failed: dict = field(default_factory=dict)
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0
    estimated: bool = False
    seconds: float = 0.0

    def __str__(self) -> str:
        guess = " (partly estimated)" if self.estimated else ""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return (
            f"{self.requests} requests, {self.tokens_in:,} tokens in, "
            f"{self.tokens_out:,} out{guess}, {self.usd:.4f} USD, {self.seconds:.0f} s{failed}"
        )


def collect(
    requests: Sequence[dict],
    engine,
    journal: Journal,
    budget: Budget | None = None,
    fails_in_a_row: int = 20,
) -> Collected:
    """Ask for what the journal lacks; the texts come in the order of the requests.

    A stored answer is never asked for again, a failed one is. Raises CourseError, with everything
    that arrived kept: a spent budget, too many failures in a row, Ctrl-C, no answer at all.
    """
    work = _Work(requests, engine, journal, budget or Budget())
    if limit := work.budget.passed(0, 0, 0):
        raise CourseError(f"The budget is {limit}; nothing was asked. Raise it to begin.")
    try:
        work.ask(fails_in_a_row)
    except KeyboardInterrupt:
        raise CourseError(f"Stopped: {work.kept()} are kept. Run again to go on.") from None
    if work.units:
        limit = work.limit_passed_with(work.units[0][:1])
        raise CourseError(
            f"The budget of {limit} allows no further request: {work.kept()} are kept. Raise it "
            "and run again."
        )
    return work.collected()


class _Work:
    """Requests on their way through an engine into a journal."""

    def __init__(self, requests: Sequence[dict], engine, journal: Journal, budget: Budget) -> None:
        self.engine, self.journal, self.budget = engine, journal, budget
        self.keys = [self._key(request) for request in requests]
        # a batch is asked for as a whole, or the others of its rows would be drawn anew
        self.units = [unit for unit in engine.units(requests) if not all(map(self._has, unit))]
        self.under_way: dict[Future, list[dict]] = {}
        self.bar = progress(None, "teacher", total=sum(map(len, self.units)))
        self.clock = time.perf_counter()

    def _key(self, request: dict) -> str:
        return fingerprint(request, self.engine.identity)

    def _has(self, request: dict) -> bool:
        return self.journal.entries.get(self._key(request), {}).get("text") is not None

    def kept(self) -> str:
        """How many answers there are, for a sentence."""
        entries = self.journal.entries
        answered = [key for key in self.keys if entries.get(key, {}).get("text") is not None]
        return f"{len(answered)} of {len(self.keys)} answers"

    def ask(self, most_failures: int) -> None:
        """Ask, store and ask again until nothing is left or the budget allows no more."""
        failures, pool = 0, ThreadPoolExecutor(self.engine.parallel)
        try:
            self._hand_out(pool)
            # one that is ready is stored before the next is asked for
            while self.under_way:
                ready = wait(self.under_way, return_when=FIRST_COMPLETED).done
                replies, problem = self._store(ready)
                if problem:
                    raise problem
                for reply in replies:
                    failures = failures + 1 if reply["text"] is None else 0
                    if failures >= most_failures:
                        raise CourseError(
                            f"The teacher failed {failures} times in a row ({reply['reason']}); "
                            f"{self.kept()} are kept. Check the server, then run again: it goes on "
                            "where it stopped."
                        )
                self._hand_out(pool)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            late = wait(self.under_way, timeout=10).done  # they are paid for: keep them
            self._store([job for job in late if not job.cancelled()])
            self.bar.close()

    def _hand_out(self, pool: ThreadPoolExecutor) -> None:
        while self.units and len(self.under_way) < self.engine.parallel:
            unit = self.units.pop(0)
            affordable = unit  # as much of a batch as the budget allows
            while affordable and self.limit_passed_with(affordable):
                affordable = affordable[:-1]
            if len(affordable) < len(unit):
                self.units.insert(0, unit[len(affordable) :])
            if not affordable:
                return
            self.under_way[pool.submit(self.engine.answer, affordable)] = affordable

    def _store(self, jobs: Iterable[Future]) -> tuple[list[dict], BaseException | None]:
        """Journal what these jobs brought; returns the new replies and the first error."""
        entries, problem = {}, None
        for job in jobs:
            unit = self.under_way.pop(job)
            self.bar.update(len(unit))
            if job.exception():  # raised later: what the others brought is stored first
                problem = problem or job.exception()
                continue
            for request, reply in zip(unit, job.result(), strict=True):
                if not self._has(request):  # a batch may repeat rows that were kept
                    entries[self._key(request)] = reply
        now = time.perf_counter()
        if entries:
            self.journal.add(entries, now - self.clock)
        self.clock = now
        return list(entries.values()), problem

    def limit_passed_with(self, more: list[dict]) -> str | None:
        """The limit that the answers so far, those under way and `more` would pass, or None.

        What is not answered yet counts with its longest possible answer.
        """
        number, read, written = self._spent()
        expected = list(more)  # a budget must hold even if every answer is as long as it may be
        for unit in self.under_way.values():
            expected += unit
        for request in expected:
            read += engines.estimated_tokens(request)
            written += request.get("max_tokens", engines.SETTINGS["max_tokens"])
        cost = self._usd(read, written)
        return self.budget.passed(number + len(expected), read + written, cost)

    def _spent(self) -> tuple[int, int, int]:
        replies = self.journal.entries.values()  # of every start, the failed ones too
        read = sum(reply["tokens_in"] for reply in replies)
        written = sum(reply["tokens_out"] for reply in replies)
        return len(replies), read, written

    def _usd(self, read: int, written: int) -> float:
        teacher = self.engine.teacher
        return (read * teacher.usd_per_million_in + written * teacher.usd_per_million_out) / 1e6

    def collected(self) -> Collected:
        """Texts and bill; raises CourseError when there is no text at all."""
        texts, failed = [], {}
        for index, key in enumerate(self.keys):
            reply = self.journal.entries[key]
            texts.append(reply["text"])
            if reply["text"] is None:
                failed[index] = reply["reason"]
        if not texts:
            raise CourseError("There is nothing to ask the teacher.")
        if len(failed) == len(texts):
            raise CourseError(f"The teacher gave no answer at all ({failed[0]}).")
        number, read, written = self._spent()
        estimated = any(reply["estimated"] for reply in self.journal.entries.values())
        cost, seconds = self._usd(read, written), self.journal.seconds
        return Collected(texts, failed, number, read, written, cost, estimated, seconds)
