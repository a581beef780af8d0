"""The system at work with a server for its model: an OpenAI-compatible address reads."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import openai

from helpers import CourseError
from helpers.ask import engines, teachers
from helpers.ask.file_answers import Answer, ReaderGoneError
from helpers.at_work import (
    TUNED,
    Read,
    cheap_read,
    error_costs_of,
    rules_in_words,
    unseen_readings,
)
from helpers.core import rows, runtime
from helpers.core.files import Journal, fingerprint
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.core.text import visible
from helpers.measure import baselines, error_costs, reviews, scoring, system
from helpers.measure.error_costs import Costs
from helpers.measure.system import Reading
from helpers.pay.error_prices import known_kinds
from helpers.ship.serve import record_request

SERVED = "served"
GONE = re.compile(r"not reachable|no answer within|status (429|502|503|504)")  # no row's fault


class ModelServer(engines.Server):
    """An OpenAI-compatible server that reads messages in place of the model in this process."""

    @property
    def host(self) -> str:
        """Where it is, for a sentence: without what an address may hold beside it."""
        return urlsplit(self.teacher.address).netloc

    def answer(self, requests: Sequence[dict]) -> list[dict]:
        """As engines.Server; ReaderGoneError where key, address or model are refused."""
        try:
            return super().answer(requests)
        except CourseError as problem:
            raise self._refusal(getattr(problem.__context__, "status_code", 0)) from None

    def listed(self) -> dict[str, str]:
        """{model: whose program serves it}; {} where the server does not say.

        Raises ReaderGoneError where nobody answers or the key is refused.
        """
        try:
            # one more try: somebody waits, and nothing is lost yet
            listed = self._client.with_options(max_retries=1, timeout=20).models.list()
            return {one.id: str(one.owned_by) for one in listed}
        except openai.APIConnectionError:
            cure = "start it, or correct --served"
            raise ReaderGoneError(f"No server answers at {self.host}; {cure}.") from None
        except openai.APIStatusError as problem:
            if problem.status_code in (401, 403):
                raise self._refusal(problem.status_code) from None
        except (ValueError, TypeError, AttributeError, openai.OpenAIError):
            pass
        return {}

    def _refusal(self, status: int) -> ReaderGoneError:
        what = f"The server at {self.host} {engines.FATAL.get(status, 'refused')} (status {status})"
        cure = "correct --served, --model or --key-from and run the same command again"
        return ReaderGoneError(f"{what}; {cure}: what was answered is kept.")


def open_server(address: str, model: str | None = None, key_from: str | None = None) -> ModelServer:
    """A server at `address` (ends in /v1 mostly), its key in the environment variable `key_from`.

    Without a name it is the one model that the server lists. llama.cpp is told the grammar, too.
    Raises CourseError: a wrong address, no such variable, no server, a model that is not named.
    """
    if not re.fullmatch("https?://[^@?]+", address):
        raise CourseError(
            "--served takes an address that begins with http:// or https://, and ends in /v1 "
            "mostly, without a key or password in it."
        )
    if key_from is not None and not re.fullmatch(teachers.VARIABLE, key_from):
        raise CourseError(
            "--key-from takes the NAME of an environment variable, such as MY_API_KEY, never a key."
        )
    if key_from and not os.environ.get(key_from):
        what = "The environment variable that --key-from names is not set"
        raise CourseError(f"{what}; set it and run the same command again.")
    # a model without a card may take minutes for the rows that wait together
    patient: dict[str, Any] = {"timeout": 600, "retries": 2}
    name = model or "unnamed"
    teacher = teachers.Teacher(address=address, model=name, key_from=key_from, **patient)
    server = ModelServer(teacher)
    listed = server.listed()
    if not model:
        teacher = teacher.model_copy(update={"model": _only(listed, server.host)})
    gbnf = "llamacpp" in listed.values()
    return ModelServer(teacher.model_copy(update={"gbnf": gbnf}))


def _only(listed: Mapping[str, str], host: str) -> str:
    """The only model of a server; CourseError where it has several, or does not say."""
    if len(listed) == 1:
        return next(iter(listed))
    names = ", ".join(visible(name) for name in list(listed)[:10])
    what = f"has several models ({names})" if listed else "does not say which models it has"
    raise CourseError(f"The server at {host} {what}; name one with --model.")


def served_record(pilot: Pilot, message: str, reply: Mapping[str, Any]) -> tuple[dict, str]:
    """(the record in a server's reply, "") or ({}, why there is none that this message allows)."""
    text = reply["text"]
    if text is None:
        return {}, reply["reason"]
    # a model without a grammar may put its record between other words
    record = scoring.parse(text[text.find("{") : text.rfind("}") + 1])
    if record is None or set(record) != set(pilot.fields):
        return {}, f"the server gave no record with {', '.join(pilot.fields)}"
    for name, spec in pilot.fields.items():
        value = record[name]
        if value is None and spec.type == "pattern" and not spec.matches(message):
            continue  # nothing could be copied, as the grammar has it
        if rows.wrong_value(name, spec, value, message):
            shown = visible(json.dumps(value, ensure_ascii=False))[:60]
            return {}, f"the server gave {name} {shown}, which this message does not allow"
    return record, ""


@dataclass(frozen=True)
class ServedSystem:
    """A pilot's system with a server for its model; made by `open_served`.

    A server tells its values and not how likely they are. So a label of it counts as one vote, as
    good as the tuned model's was on rows that it had not learnt (`trust`: {label field: share
    right}). And where it has a part in a field nobody knows how sure that is: to decide who checks,
    the value counts as wrong, in the dearest way. `judged` is the review of the other fields, None
    where there are none. `kept`: the file where answers lie until their rows are written.
    """

    system: system.System
    costs: Costs
    server: ModelServer
    ways: Mapping[str, Read]
    judged: reviews.Review | None
    trust: Mapping[str, float]
    kept: Path
    short: bool
    room: int  # tokens of an answer
    identity: str = ""

    @property
    def pilot(self) -> Pilot:
        """The pilot whose fields are read."""
        return self.system.pilot

    @property
    def unjudged(self) -> list[str]:
        """The fields in which the server has a part."""
        return [name for name, weights in self.system.weights.items() if TUNED in weights]

    def __str__(self) -> str:
        """Where messages go and what that means for who checks: two sentences."""
        where, name = self.server.host, visible(self.server.teacher.name)
        return (
            f"Every message is sent to {where}, where {name} answers under a licence that is "
            f"yours to read. It does not say how sure it is: {', '.join(self.unjudged)} have no "
            "confidence, and a person should look wherever a wrong value there would cost more "
            "than the look."
        )

    def answers(self, messages: Sequence[str]) -> list[Answer]:
        """One Answer for each message, an empty one that says why where the server gave no record.

        Raises ReaderGoneError where the server does not answer; what it answered is kept.
        """
        told = []
        for message, reply in zip(messages, self._replies(messages)):
            told.append(served_record(self.pilot, message, reply))
        readings = {way: read(list(messages)) for way, read in self.ways.items()}
        chances: dict[str, np.ndarray] = {}
        cost = np.zeros(len(messages))
        if self.judged:
            chances = self.judged.chances(readings)
            cost = self.judged.expected_cost(readings)
        readings[TUNED] = self._votes([record for record, _ in told])
        records, answered = self.system.records(readings), []
        for place, (record, (_, fault)) in enumerate(zip(records, told)):
            if fault:
                answered.append(Answer({}, {}, {}, True, f"could not be read: {fault}"))
                continue
            sure = {name: float(each[place]) for name, each in chances.items()}
            answered.append(self._answer(record, sure, float(cost[place])))
        return answered

    def _answer(self, record: dict, sure: Mapping[str, float], cost: float) -> Answer:
        """`cost`: money that errors of the judged fields are expected to cost."""
        unknown = sum(dearest_error(self.pilot, self.costs, record, n) for n in self.unjudged)
        caught, look = self.costs.caught, self.costs.review
        check = (cost + unknown) * caught > look
        note = ""
        if check and cost * caught <= look:
            note = f"how sure {', '.join(self.unjudged)} are is not known"
        by = {}
        for name, weights in self.system.weights.items():
            by[name] = " + ".join(SERVED if way == TUNED else way for way in weights)
        return Answer(record, {name: sure.get(name) for name in record}, by, check, note)

    def _votes(self, records: Sequence[dict]) -> Reading:
        """The server's records ({} where there is none) as a way of reading."""
        tables = {}
        for field in self.pilot.labels:
            classes = baselines.label_classes(self.pilot, field)
            tables[field] = np.full((len(records), len(classes)), 1 / len(classes))
            for row, record in zip(tables[field], records):
                if record:
                    row[:] = (1 - self.trust[field]) / (len(classes) - 1)
                    row[classes.index(record[field])] = self.trust[field]
        return Reading(list(records), tables)

    def _replies(self, messages: Sequence[str]) -> list[dict]:
        """One reply for each message (different ones), kept as they come."""
        requests = [self._request(message) for message in messages]
        keys = [fingerprint(request, self.server.identity) for request in requests]
        journal = Journal(self.kept)
        if not journal.entries.keys() & set(keys):  # of rows that are written
            self.kept.unlink(missing_ok=True)
            journal = Journal(self.kept)
        stopped = None
        try:
            teachers.collect(requests, self.server, journal)
        except ReaderGoneError:
            raise
        except CourseError as problem:
            if isinstance(problem.__context__, KeyboardInterrupt):
                raise
            stopped = str(problem)
        reasons = [journal.entries[key]["reason"] for key in keys if key in journal.entries]
        failed = [reason for reason in reasons if reason]
        gone = [reason for reason in failed if GONE.search(reason)]
        if stopped and not failed:  # its answers could not be written down
            raise ReaderGoneError(stopped)
        if gone or journal.missing(keys):
            what = f"The server at {self.server.host} gives no answers any more"
            cure = "see that it runs and run the same command again: what was answered is kept"
            raise ReaderGoneError(f"{what} ({[*failed, *gone][-1]}); {cure}.")
        return journal.of(keys)

    def _request(self, message: str) -> dict:
        grammar = self.server.teacher.gbnf
        return record_request(self.pilot, message, self.room, not self.short, grammar)


def dearest_error(pilot: Pilot, costs: Costs, record: dict, field: str) -> float:
    """Money for the dearest error that the value of this field can be."""
    value, truths = record[field], [None, f"not {record[field]}"]
    if field in pilot.labels:
        truths = list(baselines.label_classes(pilot, field))
    prices = [0.0]
    for truth in truths:
        if truth != value:
            kinds = error_costs.error_kinds(pilot, {**record, field: truth}, record, costs.errors)
            prices.append(sum(costs.of(kind) for kind in kinds))
    return max(prices)


def open_served(
    pilot: Pilot,
    server: ModelServer,
    kept: str | Path,
    *,
    tuned: bool = False,
    here: runtime.Runtime | None = None,
    say: Callable[[str], None] = print,
) -> ServedSystem:
    """The system that chapter 08 chooses for this pilot, with `server` for its model.

    `tuned`: it serves the pilot's own tuned model, which has learnt the short instruction. `kept`:
    a file for answers whose rows are not written yet. Raises CourseError without what chapter 00
    has made, and for a system that asks no model.
    """
    here = here or runtime.detect()
    train, run = list(rows.load(pilot, here.profile).train), Run(pilot, "08", here)
    unseen, costs = unseen_readings(run, train), error_costs_of(run, say)
    chosen = system.choose_system(pilot, train, unseen)
    used = {way for weights in chosen.weights.values() for way in weights}
    if TUNED not in used:
        raise CourseError("The system of this pilot asks no model; leave --served out.")
    trust = {}
    for field in pilot.labels:
        right = sum(one[field] == row[field] for one, row in zip(unseen[TUNED].records, train))
        trust[field] = (right + 0.5) / (len(train) + 1)
    longest = max(len(pilot.answer(row).encode()) for row in train)
    made_from = fingerprint(
        pilot.model_dump(mode="json"),
        rules_in_words(pilot),
        train,
        chosen.weights,
        trust,
        costs.model_dump(),
        [server.identity, tuned, longest],
        runtime.versions(),
    )
    return ServedSystem(
        chosen,
        costs,
        server,
        {way: cheap_read(pilot, train, way) for way in unseen if way in used - {TUNED}},
        _review_without_model(chosen, train, unseen, costs),
        trust,
        Path(kept),
        tuned,
        max(256, longest),  # a token is at least a byte
        made_from,
    )


def _review_without_model(
    chosen: system.System, train: list[dict], unseen: Mapping[str, Reading], costs: Costs
) -> reviews.Review | None:
    """The review of the fields in which the model has no part, None where it has one in each."""
    weights = {name: ways for name, ways in chosen.weights.items() if TUNED not in ways}
    if not weights:
        return None
    fields = {name: chosen.pilot.fields[name] for name in weights}
    part = chosen.pilot.model_copy(update={"fields": fields})
    known = known_kinds(part)
    errors = {kind: price for kind, price in costs.errors.items() if kind in known}
    cheap = {way: reading for way, reading in unseen.items() if way != TUNED}
    its_costs = costs.model_copy(update={"errors": errors})
    return reviews.choose_review(system.System(part, weights), train, cheap, its_costs)
