"""llama.cpp as a server on this machine, at an address that any OpenAI client can ask."""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers import CourseError
from helpers.choose import models

LOCAL = "127.0.0.1"  # nobody outside this machine can ask


@contextmanager
def llama_server(
    gguf: str | Path | None = None,
    parallel: int = 8,
    context: int = 2048,
    adapter: str | Path | None = None,
    *,
    adapters: Sequence[str | Path] = (),
    port: int | None = None,
    alias: str | None = None,
    mended: bool = True,
) -> Iterator[str]:
    """A llama.cpp server in this process; yields its OpenAI-compatible address (…/v1).

    `gguf`: the embedded model unless named. `context`: tokens for each of `parallel` requests.
    `adapter`: a GGUF file of ship.adapter_gguf, which every answer goes through. `adapters`: such
    files that wait until a request names one in "lora"; every request must, since one that does not
    goes on with what another adapter has read. Even so llama.cpp takes up what an adapter has read
    for another one, unless it is `mended`: prompts that leave their slot are then forgotten.
    `port`: a free one unless named. `alias`: the name that /v1/models lists, else the file's path.

    Raises CourseError where the port is taken or llama.cpp does not take the files.
    """
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(gguf or models.resolve("embedded").gguf)
    settings.port, settings.verbosity = _free_port(port), -1
    settings.hostnames = [LOCAL]
    settings.n_parallel, settings.n_ctx = parallel, context * parallel
    # a connected client keeps one; where all are taken, the next is turned away
    settings.n_threads_http = 64
    # beside another busy process two threads mostly wait for each other: a reader may ask for one
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    threads = int(asked) if asked.isdigit() else os.cpu_count()
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    if alias:
        settings.model_alias = {alias}
    scales = {str(adapter): 1.0} if adapter else {}
    scales |= {str(one): 0.0 for one in adapters}
    loras = [xllamacpp.CommonAdapterLoraInfo(path, scale) for path, scale in scales.items()]
    settings.lora_adapters = loras
    if adapters and mended:
        settings.cache_ram_mib = 0
    running = _started(settings, [settings.model.path, *scales])
    try:
        yield f"{running.listening_address}/v1"
    finally:
        del running  # its end stops the server


def _free_port(port: int | None) -> int:
    """The port that was asked for, else a free one; CourseError where it cannot be had."""
    with socket.socket() as probe:
        if os.name == "posix":  # a server that ended a moment ago is not in the way
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCAL, port or 0))
        except (OSError, OverflowError):
            what = f"Port {port} is in use on this machine, or not open to you"
            cure = "end the program that has it, or name another from 1024 to 65535"
            raise CourseError(f"{what}; {cure}.") from None
        return int(probe.getsockname()[1])


def _started(settings: Any, files: Sequence[str]) -> Any:
    """A running server; CourseError names the `files` that llama.cpp did not take."""
    import xllamacpp

    try:
        return xllamacpp.Server(settings)
    except RuntimeError:  # it does not say why
        names = " and ".join(Path(file).name for file in files)
        cure = "is each there and whole, and was the adapter written for this model?"
        raise CourseError(f"llama.cpp could not start with {names}: {cure}") from None
