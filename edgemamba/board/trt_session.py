"""Run the engine of this Bundle with TensorRT (10.x and 11.x).

Copied into the Bundles of TensorRT targets; standard library, numpy and JetPack's TensorRT, Python 3.8. The
engine is run once and then recorded as a CUDA graph: a compact net is thousands of tiny kernels, and
launching them one by one costs more than running them.
"""

from __future__ import annotations

import importlib
import pathlib
import time
from typing import Any

import numpy as np


def _sibling(name: str) -> Any:
    return importlib.import_module(f"{__package__}.{name}" if __package__ else name)


runner, build_engine, cudart = _sibling("runner"), _sibling("build_engine"), _sibling("cudart")


class TensorRtSession(runner.Session):  # type: ignore[misc, name-defined]
    """An engine with its buffers; one input, one output, static shapes.

    Raises:
        BundleError: no GPU, a refused graph, a failed build, or an engine of another signature.
    """

    runtime = "tensorrt"

    def __init__(self, model: pathlib.Path, manifest: dict[str, Any], version: str) -> None:
        super().__init__(manifest, version)
        trt = build_engine.import_tensorrt()
        begin = time.perf_counter_ns()
        options, folder = build_engine.Options(), build_engine.cache_folder()
        engine, record = build_engine.ensure_engine(model, options, folder)
        self.build_ns = 0 if record["cached"] else time.perf_counter_ns() - begin
        self._log = build_engine.Log(trt)
        self._runtime = trt.Runtime(self._log.logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise runner.BundleError(f"TensorRT refuses its own engine: {self._log.reason()}", "", 9)
        self._context = self._engine.create_execution_context()
        self._cuda = cudart.Cuda()
        self._bind(trt)
        self._enqueue()
        self._cuda.synchronize()
        self._graph = self._record()

    def _bind(self, trt: Any) -> None:
        """Give input and output their memory on both sides."""
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        names = inputs + [name for name in names if name not in inputs]
        shapes = [tuple(engine.get_tensor_shape(name)) for name in names]
        expected = [self.shape, tuple(self._output["shape"])]
        if len(inputs) != 1 or shapes != expected:
            raise runner.BundleError(f"the engine's tensors are {shapes}, expected {expected}", "", 5)
        arrays, addresses = [], []
        for name, shape in zip(names, shapes):
            array = self._cuda.host_array(shape, trt.nptype(engine.get_tensor_dtype(name)))
            array[...] = 0
            address = self._cuda.device_buffer(array.nbytes)
            self._context.set_tensor_address(name, address)
            arrays.append(array)
            addresses.append(address)
        self._host_in, self._host_out = arrays
        self._device_in, self._device_out = addresses

    def _enqueue(self) -> None:
        self._cuda.upload(self._device_in, self._host_in)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise runner.BundleError(f"TensorRT cannot run the engine: {self._log.reason()}", "", 9)
        self._cuda.download(self._host_out, self._device_out)

    def _record(self) -> Any:
        """Copies and engine as one CUDA graph; None, with a note, where the engine cannot be recorded."""
        fault, graph = "", None
        self._cuda.begin_capture()
        try:
            self._enqueue()
        except runner.BundleError as error:
            fault = error.message
        try:
            graph = self._cuda.end_capture()
        except runner.BundleError as error:
            fault = fault or error.message
        if fault:
            self.note = f"not run as a CUDA graph: {fault}"
            return None
        return graph

    def _run(self, x: np.ndarray) -> np.ndarray:
        np.copyto(self._host_in, x, casting="same_kind")
        if self._graph is None:
            self._enqueue()
        else:
            self._cuda.launch(self._graph)
        self._cuda.synchronize()
        return self._host_out.astype(np.float32)
