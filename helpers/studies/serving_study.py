"""Study 09, third part: chapter 05's adapter served by llama.cpp, against transformers' answers.

Every way of serving answers the same test rows; loads of a minute over three adapters, with and
without the mend. Nothing is chosen by what a test row says.
"""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from helpers.ask import answers, engines, teachers
from helpers.ask.server import llama_server
from helpers.choose import models
from helpers.core import runtime
from helpers.core.files import Journal, fingerprint, sha256
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
from helpers.measure import intervals, scoring
from helpers.ship.adapter_gguf import write_adapter_gguf, write_merged_gguf
from helpers.ship.load_test import Job, cold_answers, run_load
from helpers.ship.serve import CONTEXT, record_request, serve_adapters
from helpers.studies import study_figures as figures
from helpers.tune.students import shipped

# {way: rounding of the merged weights; None: the adapter is laid over the base, in 4 bits here}
SERVED: dict[str, str | None] = {
    "adapter": None,
    "merged 16 bits": "F16",
    "merged 8 bits": "Q8_0",
    "merged 4 bits": "Q4_0",
}
PARALLEL, ROOM = 16, 1024  # requests at once; tokens of each
TOGETHER = 4  # requests at once where several adapters are served: they are not read together
MINUTE, CLIENTS = 60.0, (1, 4, 16)
LOADED_WAYS = ("merged 8 bits",)  # by several clients, too; the adapter is among the loads
LOADED = 5  # messages of a load, each asked of every adapter
ALONE = 40  # test rows that transformers answers one by one, for its speed


def room_of(pilot: Pilot, tokenizer: Any, rows: Sequence[dict]) -> int:
    """Tokens that an answer may take."""
    return max(64, max(len(tokenizer(pilot.answer(row)).input_ids) for row in rows) + 16)


@contextmanager
def served(way: str, adapter: Path, base: models.Base, folder: Path) -> Iterator[engines.Server]:
    """The engine of one way of serving an adapter, PARALLEL requests at a time."""
    kind, laid_over, gguf = SERVED[way], None, base.gguf
    assert gguf, "the embedded model has one"
    if kind:
        target = folder / f"{figures.arm_name(way)}.gguf"
        gguf = write_merged_gguf(adapter, Path(base.path), base.gguf, target, kind)
    else:
        laid_over = write_adapter_gguf(adapter, Path(base.path), folder / "adapter.gguf")
    teacher = teachers.Teacher(address="embedded", parallel=PARALLEL, licence="own")
    with llama_server(gguf, PARALLEL, ROOM, laid_over) as address:
        engine = engines.Server(teacher, address)
        engine.identity = [way, sha256(gguf), sha256(laid_over) if laid_over else ""]
        yield engine


# Quality and speed -----------------------------------------------------------------------------


def measure_served(
    pilot: Pilot, data: Any, run: Run, say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """A cell for transformers and for each way of serving: right, speeds, bytes; kept once made."""
    adapter = run.need("05", "adapter")
    base, tokenizer = answers.open_base(pilot)
    room, journal = room_of(pilot, tokenizer, data.train), Journal(run.path("served.jsonl"))
    texts = [row[pilot.text] for row in data.test]
    weights, cells = sha256(adapter / "adapter_model.safetensors"), []
    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "transformers": partial(_transformers, pilot, data, run, adapter, tokenizer, room)
    }
    for way in SERVED:
        makers[way] = partial(_llama, way, pilot, data, run, adapter, base, room)
    for way, make in makers.items():
        shape = [] if way == "transformers" else [PARALLEL, ROOM]
        key = fingerprint(way, weights, texts, MINUTE, ALONE, *shape)
        if journal.missing([key]):
            start = time.perf_counter()
            cell = {"arm": way, "key": key, "machine": run.runtime.note} | make()
            journal.add({key: cell | {"versions": runtime.versions()}}, time.perf_counter() - start)
        cells += journal.of([key])
        exact, speed = np.mean(cells[-1]["right"]), cells[-1]["one_by_one"]
        say(f"{way:16} exact {exact:.1%}  {speed:.2f} messages a second, one by one")
    return cells


def _transformers(
    pilot: Pilot, data: Any, run: Run, adapter: Path, tokenizer: Any, room: int
) -> dict[str, Any]:
    model = shipped(pilot, adapter, run.runtime)
    limits: dict[str, Any] = {"max_length": 512, "max_new_tokens": room}
    told = answers.generate(model, tokenizer, pilot, data.test, run.path("told/all"), **limits)
    some = data.test.select(range(min(ALONE, len(data.test))))
    alone = run.path(f"told/alone_{time.time_ns()}")  # never answers of an earlier start
    one = answers.generate(model, tokenizer, pilot, some, alone, batch_size=1, **limits)
    right = scoring.score(pilot, data.test, told.texts).exact.tolist()
    size = sum(file.stat().st_size for file in Path(_base_path(pilot)).glob("*.safetensors"))
    told_all = {"right": right, "texts": told.texts, "one_by_one": len(some) / one.seconds}
    return told_all | {"batched": len(data.test) / told.seconds, "bytes": size}


def _base_path(pilot: Pilot) -> str:
    return models.resolve(pilot.base_model, pilot.folder).path


def _llama(
    way: str, pilot: Pilot, data: Any, run: Run, adapter: Path, base: models.Base, room: int
) -> dict[str, Any]:
    requests = [record_request(pilot, row[pilot.text], room) for row in data.test]
    jobs = [Job(way, request, own="-") for request in requests]
    with served(way, adapter, base, run.path("served")) as engine:
        replies, start = [], time.perf_counter()
        for request in requests:
            replies += engine.answer([request])
        speed = len(requests) / (time.perf_counter() - start)
        loads = {}
        for clients in CLIENTS if way in LOADED_WAYS else ():
            told = run_load(
                lambda job: engine.answer([dict(job.request)])[0], jobs, clients, MINUTE
            )
            loads[str(clients)] = asdict(told) | {"per_second": told.per_second}
    texts = [reply["text"] or "" for reply in replies]
    right = scoring.score(pilot, data.test, texts).exact.tolist()
    cell = {"right": right, "texts": texts, "loads": loads}
    cell["one_by_one"] = speed
    return cell | {"bytes": size_of(way, base, run.path("served"))}


def size_of(way: str, base: models.Base, folder: Path) -> int:
    """Bytes of the files that one way of serving reads."""
    if SERVED[way]:
        return (folder / f"{figures.arm_name(way)}.gguf").stat().st_size
    assert base.gguf
    return base.gguf.stat().st_size + (folder / "adapter.gguf").stat().st_size


# One core, and memory ---------------------------------------------------------------------------


def measure_device(
    pilot: Pilot, data: Any, run: Run, say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Tokens a second on one core and memory of a process, for each way; in processes of its own.

    Reads training rows. The last two cells are memory of three adapters and of three models.
    """
    adapter, cells = run.need("05", "adapter"), []
    base, tokenizer = answers.open_base(pilot)
    room = room_of(pilot, tokenizer, data.train)
    requests = [record_request(pilot, row[pilot.text], room) for row in list(data.train)[:20]]
    for way in SERVED:
        cells.append({"arm": way} | _alone(_one_core, way, adapter, run.path("served"), requests))
        one = cells[-1]
        say(f"{way:16} one core {one['tokens_per_second']:.0f} tokens/s, {one['rss'] / 1e6:.0f} MB")
    three = [str(place) for place in three_adapters(run).values()]
    for arm in ("three adapters", "three models"):
        cells.append({"arm": arm} | _alone(_three, arm, three, run.path("served")))
        say(f"{arm}: {cells[-1]['rss'] / 1e6:.0f} MB")
    return cells


def _alone(task: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """What `task` returns in a fresh process that has one core."""
    kept = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(task, arguments)
    finally:
        if kept is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = kept


def _rss() -> int:
    return psutil.Process().memory_info().rss


def _one_core(way: str, adapter: Path, folder: Path, requests: list[dict]) -> dict[str, Any]:
    base = models.resolve()
    with served(way, adapter, base, folder):  # its files are written, its libraries loaded
        pass
    before = _rss()
    with served(way, adapter, base, folder) as engine:
        engine.answer(requests[:1])
        start, tokens = time.perf_counter(), 0
        for request in requests:
            tokens += engine.answer([request])[0]["tokens_out"]
        seconds, memory = time.perf_counter() - start, _rss() - before
    told = {"tokens_per_second": tokens / seconds, "rss": memory}
    return told | {"messages_per_second": len(requests) / seconds}


def _three(arm: str, adapters: list[str], folder: Path) -> dict[str, Any]:
    """Memory with three adapters beside one base, or three merged models in four bits like it.

    Both have answered the same request, with the same room for a prompt.
    """
    base, asked = models.resolve(), {"prompt": "Hello", "seed": 0, "max_tokens": 4}
    named = {str(number): Path(one) for number, one in enumerate(adapters)}
    with serve_adapters(named, base, folder, TOGETHER):  # as above
        pass
    teacher = teachers.Teacher(address="embedded", parallel=PARALLEL, licence="own")
    with contextlib.ExitStack() as running:
        if arm == "three adapters":
            before = _rss()
            together = running.enter_context(serve_adapters(named, base, folder, TOGETHER))
            for name in named:
                together.ask(name, asked)
        else:
            files = []
            for name, adapter in named.items():
                target = folder / f"model_{name}.gguf"
                files.append(write_merged_gguf(adapter, Path(base.path), base.gguf, target, "Q4_0"))
            before = _rss()
            for file in files:
                address = running.enter_context(llama_server(file, TOGETHER, CONTEXT))
                engines.Server(teacher, address).answer([asked])
        return {"rss": _rss() - before}


# Loads over three adapters -----------------------------------------------------------------------


def three_adapters(run: Run) -> dict[str, Path]:
    """Chapter 00's adapter, chapter 05's and the order desk's, all of the embedded model."""
    named = {"first": ("00", "adapter"), "tuned": ("05", "adapter"), "desk": ("06", "player")}
    return {name: run.need(*place) for name, place in named.items()}


def measure_loads(
    pilot: Pilot, data: Any, run: Run, say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Loads of a minute over three adapters: 1, 4 and 16 clients, and 1 and 16 without the mend."""
    base, tokenizer = answers.open_base(pilot)
    room, adapters, cells = room_of(pilot, tokenizer, data.train), three_adapters(run), []
    jobs: list[Job] = []
    for name in adapters:
        for row in list(data.train)[:LOADED]:
            jobs.append(Job(name, record_request(pilot, row[pilot.text], room)))
    ready: list[Job] = []
    for mended, clients in [*((True, number) for number in CLIENTS), (False, 1), (False, 16)]:
        folder = run.path("served")
        with serve_adapters(adapters, base, folder, TOGETHER, mended=mended) as together:
            ready = ready or cold_answers(partial(_cold, together), jobs)
            told = run_load(partial(_asked, together), ready, clients, MINUTE)
        say(f"{'mended' if mended else 'as it comes'}: {told}")
        cell = asdict(told) | {"per_second": told.per_second, "mended": mended}
        cells.append({"arm": "load"} | cell)
    return cells


def _cold(together: Any, job: Job) -> Any:
    return together.ask(job.adapter, {**job.request, "cache_prompt": False})


def _asked(together: Any, job: Job) -> Any:
    return together.ask(job.adapter, job.request)


# Figures ------------------------------------------------------------------------------------------


def served_figures(cells: list[dict[str, Any]]) -> Iterator[figures.StudyFigure]:
    """Exact record of each way, its distance from transformers, speeds, bytes."""
    own = next(cell for cell in cells if cell["arm"] == "transformers")
    for cell in cells:
        name = figures.arm_name(cell["arm"])
        exact = intervals.share(cell["right"])
        yield figures.StudyFigure(f"served.{name}.exact", exact, "test, Wilson 95 %", [0])
        speed, how = cell["one_by_one"], "one client, one message after the other"
        yield figures.StudyFigure(f"served.{name}.messages_per_second", speed, how, [0], "1/s")
        yield figures.StudyFigure(f"served.{name}.bytes", cell["bytes"], "files", [0], "bytes")
        if cell is not own:
            gap = intervals.compare(cell["right"], own["right"])
            told = "minus transformers, paired bootstrap 95 %"
            yield figures.StudyFigure(f"served.{name}.exact_difference", gap, told, [0])
            times, told = speed / own["one_by_one"], "over transformers one by one"
            yield figures.StudyFigure(f"served.{name}.speedup", times, told, [0], "times")
        for clients, told in cell.get("loads", {}).items():
            yield from _clients_figures(f"served.{name}.clients_{clients}", told, own)


def _clients_figures(
    name: str, told: dict[str, Any], own: dict[str, Any]
) -> Iterator[figures.StudyFigure]:
    """Speed of one way of serving under so many clients, and against transformers one by one."""
    how, n = f"{told['seconds']:.0f} s, {PARALLEL} requests at once", told["requests"]
    speed, failed = told["per_second"], sum(told["failed"].values())
    yield figures.StudyFigure(f"{name}.messages_per_second", speed, how, [0], "1/s", n)
    for what in ("p50", "p95"):
        yield figures.StudyFigure(f"{name}.{what}", told[what], how, [0], "s", n)
    yield figures.StudyFigure(f"{name}.failed", failed, how, [0], "count", n)
    times, told_how = speed / own["one_by_one"], "over transformers one by one"
    yield figures.StudyFigure(f"{name}.speedup", times, told_how, [0], "times", n)
