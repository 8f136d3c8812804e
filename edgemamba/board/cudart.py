"""The few CUDA runtime calls that running an engine needs, through ctypes: JetPack brings no cuda-python.

Copied into the Bundles of TensorRT targets; standard library and numpy only, Python 3.8.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import pathlib
from typing import Any

import numpy as np

_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2
_CAPTURE_RELAXED = 2
_MAJOR, _MINOR = 75, 76
_NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
_PLACES = ("cuda/lib64/libcudart.so*", "cuda-*/lib*/libcudart.so*")


def _runner() -> Any:
    return importlib.import_module(f"{__package__}.runner" if __package__ else "runner")


def _library() -> ctypes.CDLL:
    found = ctypes.util.find_library("cudart")
    names = [*([found] if found else []), *_NAMES]
    for place in _PLACES:
        names += sorted(map(str, pathlib.Path("/usr/local").glob(place)), reverse=True)
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise _runner().BundleError("the CUDA runtime (libcudart) is not installed", "sudo apt install nvidia-jetpack", 4)


class Cuda:
    """One stream of the current device.

    Raises:
        BundleError: no CUDA runtime (4), or any call fails (9).
    """

    def __init__(self) -> None:
        self._lib = _library()
        self._lib.cudaGetErrorString.restype = ctypes.c_char_p
        count = ctypes.c_int(0)
        self._call("cudaGetDeviceCount", ctypes.byref(count))
        self._stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(self._stream))

    @property
    def stream(self) -> int:
        """Handle of the stream, as TensorRT takes it."""
        return self._stream.value or 0

    def capability(self) -> str:
        """Compute capability, such as 8.7."""
        found = []
        for attribute in (_MAJOR, _MINOR):
            value = ctypes.c_int(0)
            self._call("cudaDeviceGetAttribute", ctypes.byref(value), attribute, 0)
            found.append(value.value)
        return f"{found[0]}.{found[1]}"

    def device_buffer(self, size: int) -> int:
        """Address of ``size`` bytes on the device; they live as long as the process."""
        pointer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer.value or 0

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Page-locked array, which copies without staging; it lives as long as the process."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        pointer = ctypes.c_void_p()
        self._call("cudaHostAlloc", ctypes.byref(pointer), ctypes.c_size_t(size), ctypes.c_uint(0))
        raw = (ctypes.c_ubyte * size).from_address(pointer.value or 0)
        return np.frombuffer(raw, kind).reshape(shape)

    def upload(self, device: int, host: np.ndarray) -> None:
        """Queue a copy of ``host`` to the device."""
        self._copy(device, host.ctypes.data, host.nbytes, _HOST_TO_DEVICE)

    def download(self, host: np.ndarray, device: int) -> None:
        """Queue a copy from the device into ``host``."""
        self._copy(host.ctypes.data, device, host.nbytes, _DEVICE_TO_HOST)

    def _copy(self, target: int, source: int, size: int, kind: int) -> None:
        self._call(
            "cudaMemcpyAsync",
            ctypes.c_void_p(target),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size),
            kind,
            self._stream,
        )

    def synchronize(self) -> None:
        """Wait until everything queued is done."""
        self._call("cudaStreamSynchronize", self._stream)

    def begin_capture(self) -> None:
        """Record what is queued from here on instead of running it."""
        self._call("cudaStreamBeginCapture", self._stream, _CAPTURE_RELAXED)

    def end_capture(self) -> ctypes.c_void_p:
        """What was recorded, ready for ``launch``."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cudaStreamEndCapture", self._stream, ctypes.byref(graph))
        self._call("cudaGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        return executable

    def launch(self, executable: ctypes.c_void_p) -> None:
        """Queue a recorded graph."""
        self._call("cudaGraphLaunch", executable, self._stream)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._lib, name)(*arguments)
        if code != 0:
            text = self._lib.cudaGetErrorString(code).decode("utf-8", "replace")
            # The error stays set otherwise and would be reported by the next call.
            self._lib.cudaGetLastError()
            raise _runner().BundleError(f"{name}: {text} (cudaError {code})", "see README.md, set-up", 9)


def device_name() -> str:
    """Name of the first GPU as the driver gives it; empty without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    device, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return ""
    if driver.cuDeviceGetName(name, ctypes.c_int(len(name)), device):
        return ""
    return name.value.decode("utf-8", "replace")
