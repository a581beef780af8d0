"""Tuned models at an address: one adapter for any client, or several that requests choose from.

python -m helpers.ship.serve --registry FOLDER [--merged Q8_0] [--port 8080] [--pilot FOLDER]
serves the adapter in use there; --adapter FOLDER one that is in no registry.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from helpers import ROOT, CourseError
from helpers.ask import engines, teachers
from helpers.ask.server import llama_server
from helpers.choose import models
from helpers.core import runtime
from helpers.core.pilot import Pilot
from helpers.make.grammar import record_grammar
from helpers.ship import adapter_gguf
from helpers.ship.adapter_gguf import write_adapter_gguf, write_merged_gguf
from helpers.ship.records import adapter_name
from helpers.ship.registry import Registry

CONTEXT = 4096  # tokens of one request: an English message of 10,000 characters and its answer


def record_request(
    pilot: Pilot, message: str, room: int, full: bool = False, grammar: bool = True
) -> dict[str, Any]:
    """What a server is asked about a message: the likeliest answer, of at most `room` tokens.

    A tuned model needs the short chat only (`full` False); `grammar`: of this message's record.
    """
    chat = pilot.chat(message, full=full)
    asked = {"messages": chat, "seed": 0, "temperature": 0.0, "max_tokens": room}
    return asked | ({"grammar": record_grammar(pilot, message)} if grammar else {})


class Served:
    """Adapters that one server holds: its `address` (…/v1) and the `names` to ask for.

    `files`: {name: file name of its GGUF}, `parallel`: requests that are answered at once. Ask with
    `ask` alone: a request to the address that names no adapter goes on with what another has read.
    """

    def __init__(self, address: str, files: Mapping[str, str], parallel: int) -> None:
        self.address, self.names = address, list(files)
        with urlopen(f"{address.removesuffix('/v1')}/lora-adapters", timeout=60) as listed:
            numbers = {Path(one["path"]).name: one["id"] for one in json.load(listed)}
        self._numbers = {name: numbers[file] for name, file in files.items()}
        # a request that failed is told, not asked again
        teacher = teachers.Teacher(
            address="embedded", parallel=parallel, retries=0, licence="Apache-2.0"
        )
        self._server = _WithAdapters(teacher, address)

    def ask(self, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The reply of the adapter `name`; requests and replies are those of ask.engines.

        With `cache_prompt` False in the request all of its prompt is read anew. Raises CourseError
        for a name that is not served.
        """
        if name not in self._numbers:
            cure = f"ask for {' or '.join(self.names)}"
            raise CourseError(f"No adapter is served under the name {name!r}; {cure}.")
        scales = []
        for number in sorted(set(self._numbers.values())):
            scales.append({"id": number, "scale": float(number == self._numbers[name])})
        return self._server.answer([{**request, "lora": scales}])[0]


class _WithAdapters(engines.Server):
    """Requests that say which adapters answer, and whether a prompt's beginning is read anew."""

    def _arguments(self, request: dict) -> dict[str, Any]:
        arguments = super()._arguments(request)
        cached = request.get("cache_prompt", True)
        arguments["extra_body"] |= {"lora": request["lora"], "cache_prompt": cached}
        return arguments


@contextmanager
def serve_adapters(
    adapters: Mapping[str, Path],
    base: models.Base,
    folder: Path,
    parallel: int = 4,
    mended: bool = True,
) -> Iterator[Served]:
    """One server for the PEFT adapters {name: folder}, which all belong to `base`.

    Each is written to `folder` under the name that it has in a registry. `mended`: False leaves
    llama.cpp's fault in, by which an adapter goes on with what another has read. Raises
    CourseError: no adapters, one that is missing or of another base, a base without a GGUF file.
    """
    if not adapters:
        raise CourseError("There is no adapter to serve; name one or more.")
    gguf, paths = _gguf(base), {}
    for name, adapter in adapters.items():
        target = Path(folder) / f"{adapter_name(Path(adapter), base)}.gguf"
        paths[name] = write_adapter_gguf(Path(adapter), Path(base.path), target)
    files = {name: path.name for name, path in paths.items()}
    different = list(dict.fromkeys(paths.values()))  # two names may stand for one content
    with llama_server(gguf, parallel, CONTEXT, adapters=different, mended=mended) as address:
        yield Served(address, files, parallel)


@contextmanager
def serve_adapter(
    adapter: Path,
    base: models.Base,
    folder: Path,
    parallel: int = 4,
    *,
    merged: str | None = None,
    port: int | None = None,
) -> Iterator[tuple[str, str]]:
    """One PEFT adapter for any OpenAI client; yields (address, the model's name there).

    The name is the one it has in a registry, with the rounding behind it where base and adapter are
    `merged` (Q8_0 or Q4_0) into one file of `folder`: those answers may differ. `port`: a free one
    unless named. Raises CourseError as `serve_adapters` does, and for a port that is taken.
    """
    adapter, folder, laid_over = Path(adapter), Path(folder), None
    gguf, name = _gguf(base), adapter_name(adapter, base)
    if merged:
        name = f"{name}-{merged}"
        gguf = write_merged_gguf(adapter, Path(base.path), gguf, folder / f"{name}.gguf", merged)
    else:
        laid_over = write_adapter_gguf(adapter, Path(base.path), folder / f"{name}.gguf")
    with llama_server(gguf, parallel, CONTEXT, laid_over, port=port, alias=name) as address:
        yield address, name


def _gguf(base: models.Base) -> Path:
    if base.gguf is None:
        cure = "let the model answer in this process"
        raise CourseError(f"{base.name} has no GGUF file for llama.cpp; {cure}.")
    return base.gguf


# The command -----------------------------------------------------------------------------------


def serve_command(arguments: Sequence[str] | None = None) -> int:
    """Serve one adapter until Ctrl-C; returns the exit status."""
    runtime.make_folders_absolute()
    bundled = os.environ.get("COURSE_PILOT") or str(ROOT / "data/inbox")
    parser = argparse.ArgumentParser(
        prog="python -m helpers.ship.serve", description=__doc__.splitlines()[0]
    )
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument("--registry", metavar="FOLDER", help="the adapter in use there")
    one.add_argument("--adapter", metavar="FOLDER", help="a PEFT adapter")
    kinds = list(adapter_gguf.KINDS)
    parser.add_argument("--merged", choices=kinds, help="base and adapter as one file: faster")
    parser.add_argument("--port", type=int, default=8080, help="where it listens (8080)")
    parser.add_argument("--pilot", default=bundled, help="a folder with a pilot.yaml")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            _serve(options, Path(folder))
    except CourseError as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass  # how it is meant to end
    return 0


def _serve(options: argparse.Namespace, folder: Path) -> None:
    runtime.quiet()
    pilot = Pilot.load(Path(options.pilot).expanduser())
    base = models.resolve(pilot.base_model, pilot.folder)
    kind, port = options.merged, options.port
    with serve_adapter(_adapter(options, base), base, folder, merged=kind, port=port) as (
        address,
        name,
    ):
        print(f"{name} answers at {address}, for programs on this machine; Ctrl-C ends it.")
        command = f"python -m helpers.answer mail.csv out.csv --served {address} --tuned"
        if Path(options.pilot).resolve() != ROOT / "data/inbox":
            command += f" --pilot {shlex.quote(options.pilot)}"
        print(f"Use it: {command}", flush=True)
        while True:
            time.sleep(3600)


def _adapter(options: argparse.Namespace, base: models.Base) -> Path:
    """The folder of the adapter that was asked for; that of a registry has the hashes it had."""
    if options.adapter:
        return Path(options.adapter).expanduser()
    return Registry(Path(options.registry).expanduser()).open(None, base)


if __name__ == "__main__":
    sys.exit(serve_command())
