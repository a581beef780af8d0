"""llama.cpp as a server on this machine, at an address that any OpenAI client can ask."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.choose import models


@contextmanager
def llama_server(
    gguf: str | Path | None = None, parallel: int = 8, context: int = 2048
) -> Iterator[str]:
    """A llama.cpp server in this process; yields its OpenAI-compatible address (…/v1).

    `gguf`: the embedded model unless named. `context`: tokens for each of `parallel` requests.
    """
    import xllamacpp

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = xllamacpp.CommonParams()
    settings.model.path = str(gguf or models.resolve("embedded").gguf)
    settings.n_parallel, settings.n_ctx = parallel, context * parallel
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = os.cpu_count()
    settings.port, settings.verbosity = port, -1  # listens on this machine only
    running = xllamacpp.Server(settings)
    try:
        yield f"{running.listening_address}/v1"
    finally:
        del running  # its end stops the server
