"""llama.cpp as a server on this machine, at an address that any OpenAI client can ask."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers import CourseError
from helpers.choose import models


@contextmanager
def llama_server(
    gguf: str | Path | None = None,
    parallel: int = 8,
    context: int = 2048,
    adapter: str | Path | None = None,
) -> Iterator[str]:
    """A llama.cpp server in this process; yields its OpenAI-compatible address (…/v1).

    `gguf`: the embedded model unless named. `context`: tokens for each of `parallel` requests.
    `adapter`: a GGUF file of ship.adapter_gguf, which every answer goes through.
    Raises CourseError where llama.cpp does not take the files.
    """
    import xllamacpp

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = xllamacpp.CommonParams()
    settings.model.path = str(gguf or models.resolve("embedded").gguf)
    settings.n_parallel, settings.n_ctx = parallel, context * parallel
    # beside another busy process two threads mostly wait for each other: a reader may ask for one
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    threads = int(asked) if asked.isdigit() else os.cpu_count()
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    if adapter:
        settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    settings.port, settings.verbosity = port, -1  # listens on this machine only
    try:
        running = xllamacpp.Server(settings)
    except RuntimeError:  # it does not say why
        files = [Path(settings.model.path).name, *([Path(adapter).name] if adapter else [])]
        cure = "is each there and whole, and was the adapter written for this model?"
        raise CourseError(f"llama.cpp could not start with {' and '.join(files)}: {cure}") from None
    try:
        yield f"{running.listening_address}/v1"
    finally:
        del running  # its end stops the server
