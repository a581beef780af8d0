"""One client for any teacher: the embedded model in batches, or a server with requests in parallel.

Every answer is written down as it arrives, so that a kill loses none; a budget, a licence check and
the bill come with it.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from helpers import CourseError
from helpers.ask import engines
from helpers.ask.server import llama_server
from helpers.choose import gguf_parts, licensing, models
from helpers.core.files import Journal, fingerprint
from helpers.core.pilot import Pilot
from helpers.core.progress import progress
from helpers.core.runs import Run
from helpers.core.text import pydantic_sentences

VARIABLE = "[A-Za-z_][A-Za-z0-9_]{0,79}"


class Teacher(BaseModel):
    """`teacher:` of pilot.yaml. Without an address the model runs in this process.

    `address: embedded` starts llama.cpp with it. Prices are US dollars per million tokens,
    `timeout` is seconds. `chat_only`: a server without /completions gets a raw prompt as one user
    message. `gbnf`: it takes llama.cpp's grammars; else what does not fit is dropped later.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    address: str | None = None
    model: str = "embedded"
    key_from: str | None = Field(default=None, pattern=f"^{VARIABLE}$")
    licence: str = "unknown"
    accept_unknown_licence: bool = False
    usd_per_million_in: float = Field(default=0.0, ge=0)
    usd_per_million_out: float = Field(default=0.0, ge=0)
    timeout: float = Field(default=120.0, gt=0)
    parallel: int = Field(default=8, ge=1, le=256)
    retries: int = Field(default=4, ge=0, le=20)
    chat_only: bool = False
    gbnf: bool = False

    @field_validator("address")
    @classmethod
    def _plain_address(cls, address: str | None) -> str | None:
        if address not in (None, "embedded") and not re.fullmatch("https?://[^@]+", address):
            raise ValueError(
                "must start with http:// or https:// and usually ends in /v1; a key or password "
                "belongs into an environment variable that key_from names"
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
            what = f"The environment variable {self.key_from}, which pilot.yaml names in key_from,"
            raise CourseError(f"{what} is not set; set it before you start Jupyter or make.")
        return os.environ[self.key_from]


def of(pilot: Pilot) -> Teacher:
    """The Teacher that pilot.yaml names.

    Raises CourseError with one sentence per mistake; a key pasted by mistake is not repeated.
    """
    lines = {} if pilot.teacher == "embedded" else pilot.teacher
    if not isinstance(lines, dict):
        server = "the lines 'address:' and 'model:' of an OpenAI-compatible server"
        raise CourseError(f"pilot.yaml: teacher is 'embedded', or {server}.")
    keys = [name for name in lines if "key" in str(name).lower() and name != "key_from"]
    # pydantic's own sentence might repeat a key that somebody wrote down
    if keys or not re.fullmatch(VARIABLE, str(lines.get("key_from"))):
        raise CourseError(
            "pilot.yaml: teacher: a key never stands in a file; put it into an environment "
            "variable. key_from is the NAME of an environment variable, for example MY_API_KEY."
        )
    if lines.get("model", "embedded") == "embedded":  # the course knows its own model's licence
        lines = {"licence": "Apache-2.0"} | lines
    try:
        teacher = Teacher.model_validate(lines)
    except ValidationError as problem:
        sentences = pydantic_sentences(problem, "pilot.yaml: teacher", Teacher.model_fields)
        raise CourseError(sentences) from None
    if teacher.address not in (None, "embedded") and "model" not in lines:
        cure = "add 'model:' with the name that the server knows it by"
        raise CourseError(f"pilot.yaml: teacher has an address but no model; {cure}.")
    return teacher


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
        what = f"The licence of {teacher.name} does not allow training another model on its texts"
        raise CourseError(f"{what}; choose another teacher in pilot.yaml. Nothing was asked.")
    if answer not in ("allowed", "allowed with duties") and not teacher.accept_unknown_licence:
        raise CourseError(
            f"Nobody has said whether the licence of {teacher.name} allows training on its texts; "
            "read it, then write 'licence:' and 'accept_unknown_licence: true' under teacher in "
            "pilot.yaml. Nothing was asked."
        )
    return answer


@contextmanager
def opened(
    teacher: Teacher, verdict: Callable[[Teacher], str] = stated, context: int = 2048
) -> Iterator[engines.Batches | engines.Absent | engines.Server]:
    """The engine of a teacher, after its licence was checked: this process, llama.cpp, a server.

    `context`: tokens that llama.cpp keeps for each request. A larger model that was not fetched
    has its recorded answers, and nothing fetches it here.
    """
    refuse_unlicensed_teacher(teacher, verdict)
    if not is_here(teacher):
        yield engines.Absent(teacher)
    elif teacher.address is None:
        yield engines.Batches(teacher)
    elif teacher.address == "embedded":
        gguf = models.resolve(teacher.model).gguf
        if gguf is None:
            cure = "leave the address out to run it in this process"
            raise CourseError(f"{teacher.name} has no GGUF file for llama.cpp; {cure}.")
        with llama_server(gguf, teacher.parallel, context) as address:
            yield engines.Server(teacher, address)
    else:
        yield engines.Server(teacher)


def is_here(teacher: Teacher) -> bool:
    """False for a larger model of `choose.gguf_parts` that nobody has fetched."""
    known = teacher.address in (None, "embedded") and teacher.model in gguf_parts.PARCELS
    return not known or gguf_parts.is_fetched(teacher.model, models.cache_folder())


def journal(run: Run, teacher: Teacher, name: str) -> Journal:
    """Where the answers of `teacher` to the requests `name` lie, those of a recorded run first.

    With COURSE_ASK_AGAIN in the environment nothing recorded is taken.
    """
    file = f"teacher/{re.sub('[^a-z0-9]+', '_', teacher.name.lower())}/{name}.jsonl"
    path = run.path(file)
    if not path.is_file() and not os.environ.get("COURSE_ASK_AGAIN"):
        with suppress(CourseError):
            recorded = run.need(run.chapter, file).read_bytes()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(recorded)
    return Journal(path, "The teacher's answers")


@dataclass
class Budget:
    """Upper limits over all starts of one piece of work; None is no limit, 0 asks nothing."""

    requests: int | None = None
    tokens: int | None = None
    usd: float | None = None

    def passed(self, requests: int, tokens: int, usd: float) -> str | None:
        """The limit that these amounts pass, in words, or None."""
        for name, amount in (("requests", requests), ("tokens", tokens), ("usd", usd)):
            limit = getattr(self, name)
            if limit is not None and (amount > limit or limit <= 0):
                return f"{limit:,} {name.replace('usd', 'USD')}"
        return None


@dataclass
class Collected:
    """`texts` in the order of the requests, None where the teacher failed; the bill of all starts.

    The bill is of these requests alone; `seconds` is their part, by number, of what the journal
    took. `failed` is {index: reason}; `estimated` says that a server did not count its tokens.
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
    if limit := budget and budget.passed(0, 0, 0):
        raise CourseError(f"The budget is {limit}; nothing was asked. Raise it to begin.")
    work, failures = _Work(requests, engine, journal, budget or Budget()), 0
    try:
        work.hand_out()
        # one that is ready is stored before the next is asked for
        while work.under_way:
            for reply in work.store(wait(work.under_way, return_when=FIRST_COMPLETED).done):
                failures += 1
                if reply["text"] is not None:
                    failures = 0
                if failures >= fails_in_a_row:
                    what = f"The teacher failed {failures} times in a row ({reply['reason']})"
                    cure = "Check the server, then run again: it goes on where it stopped"
                    raise CourseError(f"{what}; {work.kept()} are kept. {cure}.")
            work.hand_out()
    except KeyboardInterrupt:
        work.close()
        raise CourseError(f"Stopped: {work.kept()} are kept. Run again to go on.") from None
    finally:
        work.close()
    if work.units:
        limit = work.limit_passed_with(work.units[0][:1])
        what = f"The budget of {limit} allows no further request: {work.kept()} are kept"
        raise CourseError(f"{what}. Raise it and run again.")
    return work.collected()


class _Work:
    """Requests on their way through an engine into a journal."""

    def __init__(self, requests: Sequence[dict], engine, journal: Journal, budget: Budget) -> None:
        self.engine, self.journal, self.budget = engine, journal, budget
        self.keys = [self._key(request) for request in requests]
        # a batch is asked for as a whole, or the others of its rows would be drawn anew
        self.units = []
        for unit in engine.units(requests):
            if not all(self._has(self._key(request)) for request in unit):
                self.units.append(unit)
        self.pool = ThreadPoolExecutor(engine.parallel)
        self.under_way: dict[Future, list[dict]] = {}
        self.bar = progress(None, "teacher", total=sum(map(len, self.units)))
        self.clock = time.perf_counter()

    def _key(self, request: dict) -> str:
        return fingerprint(request, self.engine.identity)

    def _has(self, key: str) -> bool:
        return self.journal.entries.get(key, {}).get("text") is not None

    def kept(self) -> str:
        """How many answers there are, for a sentence."""
        return f"{sum(map(self._has, self.keys))} of {len(self.keys)} answers"

    def hand_out(self) -> None:
        """Keep the engine busy, as far as the budget allows."""
        while self.units and len(self.under_way) < self.engine.parallel:
            affordable = self.units[0]  # as much of a batch as the budget allows
            while affordable and self.limit_passed_with(affordable):
                affordable = affordable[:-1]
            if not affordable:
                return
            rest = self.units.pop(0)[len(affordable) :]
            if rest:
                self.units.insert(0, rest)
            self.under_way[self.pool.submit(self.engine.answer, affordable)] = affordable

    def store(self, jobs: Iterable[Future]) -> list[dict]:
        """Journal what these jobs brought; returns the new replies, or raises a job's error."""
        replies: list[dict] = []
        # an error is raised last: what the others brought is stored first
        for job in sorted(jobs, key=lambda job: job.exception() is not None):
            unit, entries = self.under_way.pop(job), {}
            self.bar.update(len(unit))
            for request, reply in zip(unit, job.result(), strict=True):
                key = self._key(request)
                if not self._has(key):  # a batch may repeat rows that were kept
                    entries[key] = reply
            now = time.perf_counter()
            self.journal.add(entries, now - self.clock)
            self.clock = now
            replies += entries.values()
        return replies

    def close(self) -> None:
        """Nothing more is asked; what arrives within ten seconds is paid for and kept."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        late = wait(self.under_way, timeout=10).done
        self.store([job for job in late if not (job.cancelled() or job.exception())])
        self.bar.close()

    def limit_passed_with(self, more: list[dict]) -> str | None:
        """The limit that the answers so far, those under way and `more` would pass, or None."""
        expected = sum(self.under_way.values(), more)
        number, read, written, usd = self._bill(self.journal.entries, expected)
        return self.budget.passed(number, read + written, usd)

    def _bill(
        self, entries: Mapping[str, dict], expected: Sequence[dict] = ()
    ) -> tuple[int, int, int, float]:
        """(requests, tokens read, tokens written, USD) of every start, the failed ones too."""
        replies, teacher = entries.values(), self.engine.teacher
        read = sum(reply["tokens_in"] for reply in replies)
        written = sum(reply["tokens_out"] for reply in replies)
        for request in expected:  # a budget must hold if every answer is as long as it may be
            read += engines.estimated_tokens(request)
            written += request.get("max_tokens", engines.SETTINGS["max_tokens"])
        usd = (read * teacher.usd_per_million_in + written * teacher.usd_per_million_out) / 1e6
        return len(replies) + len(expected), read, written, usd

    def collected(self) -> Collected:
        """Texts and bill; raises CourseError when there is no text at all."""
        texts, failed = [], {}
        for index, reply in enumerate(self.journal.of(self.keys)):
            texts.append(reply["text"])
            if reply["text"] is None:
                failed[index] = reply["reason"]
        if not texts:
            raise CourseError("There is nothing to ask the teacher.")
        if len(failed) == len(texts):
            raise CourseError(f"The teacher gave no answer at all ({failed[0]}).")
        own = {key: self.journal.entries[key] for key in self.keys}
        estimated = any(reply["estimated"] for reply in own.values())
        part = len(own) / len(self.journal.entries)  # seconds are those of batches
        return Collected(texts, failed, *self._bill(own), estimated, self.journal.seconds * part)
