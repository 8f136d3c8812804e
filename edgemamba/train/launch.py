"""One process for each device: who this process is, and how all of them are started. Readable without torch.

The processes find each other by the environment variables that torchrun sets, so torchrun starts them as well. Started
here they give one message and the exit code of whoever failed first, where torchrun prints tables and ends with 1.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from edgemamba.errors import DeviceError, UsageError, of_exit_code

# A process that ends because another one has ended: not the one to listen to.
PEER_LOST = 75
_LAUNCHED = "EDGEMAMBA_LAUNCHED"
_INTERRUPTED = 130
_POLL_S = 0.05
# Until the others end by themselves, and from asking them to end to ending them.
_NOTICE_S, _END_S = 10.0, 10.0


@dataclasses.dataclass(frozen=True)
class Place:
    """Which of how many processes this one is.

    Attributes:
        rank: 0 to size - 1; 0 writes the files.
        size: processes.
        local: rank on this host, the number of its device.
        launched: by ``launch``, not by torchrun.
    """

    rank: int
    size: int
    local: int
    launched: bool


def place() -> Place | None:
    """What the environment says; None for a process on its own.

    Raises:
        UsageError: the variables do not fit together.
    """
    if "WORLD_SIZE" not in os.environ:
        return None
    try:
        size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
        local = int(os.environ.get("LOCAL_RANK", rank))
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"WORLD_SIZE is set, but with RANK and LOCAL_RANK it names no process ({error})",
            hint="start with torchrun, or unset WORLD_SIZE",
        ) from None
    return Place(rank, size, local, _LAUNCHED in os.environ)


def launch(command: Sequence[str], devices: int) -> int:
    """Run ``command`` once for each device and wait.

    The first process has this one's stdout and stderr, the others are silent. One that fails ends all. SIGINT and
    SIGTERM are passed on once; the processes then end together after the step under way.

    Args:
        command: program and arguments.
        devices: processes.

    Returns:
        The first process's exit code.

    Raises:
        EdgemambaError: what another process failed with.
    """
    with contextlib.ExitStack() as stack:
        errors = [stack.enter_context(tempfile.TemporaryFile("w+", errors="replace")) for _ in range(devices)]
        processes = _start(command, devices, errors)
        stack.callback(_end, processes)
        with _passing_signals_on(processes):
            first = _wait(processes)
        codes = [process.wait() for process in processes]
        # Its own message was shown.
        if codes[0] > 0 and codes[0] != PEER_LOST:
            return codes[0]
        if first is None:
            return 0
        errors[first].seek(0)
        raise _failure(first, codes[first], errors[first].read())


def _start(command: Sequence[str], devices: int, errors: Sequence[IO[str]]) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = max(1, (os.cpu_count() or 1) // devices)
    shared = {"OMP_NUM_THREADS": str(threads), **os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # Not the warnings of a process that ends because of an error: the error is told.
    shared.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    shared |= {"WORLD_SIZE": str(devices), "LOCAL_WORLD_SIZE": str(devices), _LAUNCHED: "1"}
    processes = []
    for rank in range(devices):
        streams: Mapping[str, Any] = {} if rank == 0 else {"stdout": subprocess.DEVNULL, "stderr": errors[rank]}
        # In a session of its own, so that Ctrl-C reaches it once, from here.
        process = subprocess.Popen(
            command,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **streams,
        )
        processes.append(process)
    return processes


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait for all; the first that failed, whereupon the others are ended, or None."""
    first, failed_at = None, 0.0
    while any(process.poll() is None for process in processes):
        if first is None:
            first = next((rank for rank, process in enumerate(processes) if process.poll()), None)
            failed_at = time.monotonic()
        elif time.monotonic() - failed_at > _NOTICE_S:
            _end(processes)
        time.sleep(_POLL_S)
    codes = [process.returncode for process in processes]
    own_fault = [rank for rank, code in enumerate(codes) if code not in (0, PEER_LOST)]
    if first is not None and codes[first] != PEER_LOST:
        return first
    return own_fault[0] if own_fault else first


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    until = time.monotonic() + _END_S
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


@contextlib.contextmanager
def _passing_signals_on(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(number: int, _frame: Any) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _failure(rank: int, code: int, text: str) -> Exception:
    """The error of the process ``rank``, of what it wrote on stderr."""
    if code == _INTERRUPTED:
        return KeyboardInterrupt()  # type: ignore[return-value]
    lines = text.splitlines()
    said = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)
    hint = next((line.removeprefix("hint: ") for line in reversed(lines) if line.startswith("hint: ")), "")
    if said is None and code < 0:
        name = signal.Signals(-code).name
        said, hint = f"was ended by {name}", "is the machine's memory too small? go on with --resume"
    elif said is None:
        said = f"ended with {code}: {lines[-1] if lines else 'it said nothing'}"
    kind = of_exit_code(code) if code > 0 else DeviceError
    return kind(f"the process of device {rank}: {said}", hint=hint)


def own_command(arguments: Sequence[str], out: Path) -> list[str]:
    """This program with its arguments, and the run folder where they leave it open: it has the time in its name."""
    named = any(argument.split("=")[0] == "--out" for argument in arguments)
    return [sys.executable, "-m", "edgemamba", *arguments, *([] if named else ["--out", str(out)])]
