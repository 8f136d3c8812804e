"""Run the model of a Bundle: one session class per runtime, and the golden check.

Copied into every Bundle beside ``predict.py`` and ``agent.py``; needs the standard library, numpy and one
runtime, and Python 3.8. ``Session.run`` takes float32 NCHW and gives the output as PyTorch lays it out, whatever
the runtime; ``outputs.py`` says what it means.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pathlib
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any, Iterator

import numpy as np


def sibling(name: str) -> Any:
    """Module ``name`` beside this file, in a Bundle as well as inside the package."""
    return importlib.import_module(f"{__package__}.{name}" if __package__ else name)


if TYPE_CHECKING:
    from edgemamba.board.bundle_files import (
        BundleError,
        channels_first,
        check_files,
        hash_file,
        load_golden,
        load_manifest,
        one_line,
        unsafe_name,
    )
else:
    _files = sibling("bundle_files")
    BundleError, one_line, unsafe_name = _files.BundleError, _files.one_line, _files.unsafe_name
    check_files, load_golden, load_manifest = _files.check_files, _files.load_golden, _files.load_manifest
    hash_file, channels_first = _files.hash_file, _files.channels_first

__all__ = [
    "RUNTIMES",
    "BundleError",
    "Session",
    "check_files",
    "check_golden",
    "hash_file",
    "load_golden",
    "load_manifest",
    "open_session",
    "quiet_native",
    "sibling",
]

# Since 1.29 ONNX Runtime reports sessions and model hashes to its maker unless told not to before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

RUNTIMES = ("auto", "onnxruntime", "litert", "tensorrt")
LITERT_PACKAGES = ("ai_edge_litert", "tflite_runtime")
INSTALL = {
    "onnxruntime": "pip install onnxruntime",
    "litert": "pip install ai-edge-litert",
    "tensorrt": "sudo apt install python3-libnvinfer; python3 -m venv --system-site-packages (README.md)",
}


class Session:
    """One loaded model.

    Attributes:
        runtime: onnxruntime, litert or tensorrt.
        version: version of that runtime.
        note: why this runtime was taken although the Bundle asks for another; else empty.
        build_ns: how long an engine took to build, when it had to be built.
        shape: the only input shape, (1, channels, h, w).
    """

    runtime = ""

    def __init__(self, manifest: dict[str, Any], version: str, note: str = "") -> None:
        self.version = version
        self.note = note
        self.build_ns = 0
        self._input = manifest["inputs"][0]
        self._output = manifest["outputs"][0]
        self.shape = channels_first(self._input)
        size = tuple(manifest["preprocess"]["size"])
        if self.shape[2:] != size:
            message = (
                f"the input {self._input['shape']} is {self._input['layout']}, the manifest says pictures of {size}"
            )
            raise BundleError(message, "use the files of one Bundle only", 5)

    def run(self, x: np.ndarray) -> np.ndarray:
        """The output, float32, of ``x``, float32 (1, channels, h, w).

        Segmentation gives (1, 1, h, w), classification (1, K), another project's network what it gives.

        Raises:
            BundleError: ``x`` has another shape or type.
        """
        if x.shape != self.shape or x.dtype != np.float32:
            message = f"the input is {x.dtype} {x.shape}, the model takes float32 {self.shape}"
            raise BundleError(message, "", 5)
        if self._input["layout"] == "NHWC":
            x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        y = self._run(x)
        return y.transpose(0, 3, 1, 2) if self._output["layout"] == "NHWC" else y

    def _run(self, x: np.ndarray) -> np.ndarray:
        """The same in the artifact's own layout."""
        raise NotImplementedError

    def _expect(self, shape: Any, output: bool = False) -> None:
        """Refuse a model whose input (or output) has not the shape that the manifest promises."""
        tensor = self._output if output else self._input
        if list(shape) != tensor["shape"]:
            message = f"tensor {tensor['name']!r} of the model is {list(shape)}, the manifest says {tensor['shape']}"
            raise BundleError(message, "use the files of one Bundle only", 5)


class OnnxRuntimeSession(Session):
    """ONNX Runtime on the CPU, at the optimisation level that the Bundle names.

    Threads do not spin between operators, so that an idle pool costs no core.
    """

    runtime = "onnxruntime"

    def __init__(self, model: pathlib.Path, manifest: dict[str, Any], threads: int, note: str) -> None:
        ort = importlib.import_module("onnxruntime")
        super().__init__(manifest, str(ort.__version__), note)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        level = "ORT_ENABLE_" + manifest.get("onnxruntime_level", "extended").upper()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
        names = (
            "Fail",
            "InvalidArgument",
            "InvalidGraph",
            "InvalidProtobuf",
            "NotImplemented",
            "RuntimeException",
        )
        refusals = tuple(getattr(state, name) for name in names if hasattr(state, name))
        try:
            self._session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except refusals as error:
            message = f"ONNX Runtime {self.version} cannot load {model.name}: {one_line(error)}"
            raise BundleError(message, "", 5) from None
        shapes = {one.name: one.shape for one in (*self._session.get_inputs(), *self._session.get_outputs())}
        self._expect(shapes.get(self._input["name"], []))
        self._expect(shapes.get(self._output["name"], []), output=True)

    def _run(self, x: np.ndarray) -> np.ndarray:
        return self._session.run([self._output["name"]], {self._input["name"]: x})[0]


class LiteRtSession(Session):
    """LiteRT, or its predecessor tflite-runtime, on the CPU with XNNPACK; float or integer tensors."""

    runtime = "litert"

    def __init__(self, model: pathlib.Path, manifest: dict[str, Any], threads: int) -> None:
        interpreter, version = _interpreter(model, threads)
        super().__init__(manifest, version)
        self._interpreter = interpreter
        self._source = _detail(interpreter.get_input_details(), self._input["name"])
        self._target = _detail(interpreter.get_output_details(), self._output["name"])
        self._expect(self._source["shape"])
        self._expect(self._target["shape"], output=True)

    def _run(self, x: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._source["index"], quantize(x, self._source))
        self._interpreter.invoke()
        return dequantize(self._interpreter.get_tensor(self._target["index"]), self._target)


def quantize(x: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """float32 to the tensor's own type: round(x / scale) + zero point, held within the type's limits."""
    dtype = np.dtype(detail["dtype"])
    if dtype.kind == "f":
        return x.astype(dtype, copy=False)
    scale, zero = _scale(detail)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(x / scale) + zero, limits.min, limits.max).astype(dtype)


def dequantize(y: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """The tensor's own type to float32: (y - zero point) * scale."""
    if y.dtype.kind == "f":
        return y.astype(np.float32, copy=False)
    scale, zero = _scale(detail)
    return (y.astype(np.float32) - zero) * scale


def _scale(detail: dict[str, Any]) -> tuple[np.float32, np.float32]:
    parameters = detail["quantization_parameters"]
    scales, zeros = parameters["scales"], parameters["zero_points"]
    if len(scales) != 1 or len(zeros) != 1:
        raise BundleError(
            f"tensor {detail['name']} is {detail['dtype'].__name__} without one scale and zero point", "", 5
        )
    return np.float32(scales[0]), np.float32(zeros[0])


def _detail(details: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The tensor called ``name``; the only one when converters renamed it."""
    named = [detail for detail in details if detail["name"] == name]
    if named:
        return named[0]
    if len(details) == 1:
        return details[0]
    raise BundleError(f"the model has no tensor {name!r}, only {', '.join(d['name'] for d in details)}", "", 5)


def _interpreter(model: pathlib.Path, threads: int) -> tuple[Any, str]:
    """A LiteRT interpreter of ``model`` with its tensors allocated, and the package's name and version.

    A tflite-runtime that does not fit the installed numpy imports well and fails only here, with SystemError.
    """
    reasons = []
    for package in LITERT_PACKAGES:
        try:
            module = importlib.import_module(f"{package}.interpreter")
            with quiet_native():
                interpreter = module.Interpreter(model_path=str(model), num_threads=threads)
                interpreter.allocate_tensors()
        except (ImportError, SystemError, AttributeError) as error:
            reasons.append(f"{package}: {one_line(error)}")
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"{package} cannot load {model.name}: {one_line(error)}", "", 5) from None
        else:
            return interpreter, _litert_version(package)
    raise BundleError(f"no LiteRT works here ({'; '.join(reasons)})", INSTALL["litert"], 4)


@contextlib.contextmanager
def quiet_native() -> Iterator[None]:
    """Drop what native code writes to file descriptor 2.

    LiteRT tells there that it made an XNNPACK delegate, and no setting stops it; its errors come as exceptions.
    """
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _litert_version(package: str) -> str:
    distribution = package.replace("_", "-")
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        return f"{distribution} of unknown version"


def _import_runtime(runtime: str) -> str:
    """Import a runtime; gives its version.

    Raises:
        BundleError: it is not installed, or does not load.
    """
    reasons = []
    for module in [f"{name}.interpreter" for name in LITERT_PACKAGES] if runtime == "litert" else [runtime]:
        try:
            found = importlib.import_module(module)
        except ImportError as error:
            reasons.append(one_line(error))
        else:
            return _litert_version(module.split(".")[0]) if runtime == "litert" else str(found.__version__)
    raise BundleError(f"{runtime} is not usable here: {'; '.join(reasons)}", INSTALL[runtime], 4)


def choose_runtime(manifest: dict[str, Any], runtime: str = "auto") -> tuple[str, str, str]:
    """Decide which runtime will run this Bundle, and import it.

    Args:
        manifest: from ``load_manifest``.
        runtime: one of RUNTIMES; ``auto`` is the manifest's, and ONNX Runtime for a TensorRT Bundle where
            there is no TensorRT.

    Returns:
        its name, its version, and a note when it is not the one that the Bundle was made for.

    Raises:
        BundleError: unknown, missing, or not able to run this format.
    """
    if runtime not in RUNTIMES:
        raise BundleError(f"no runtime is named {runtime!r}", f"known: {', '.join(RUNTIMES)}", 2)
    chosen = manifest["runtime"] if runtime == "auto" else runtime
    if chosen not in RUNTIMES[1:]:
        raise BundleError(f"manifest.json names no known runtime: {chosen!r}", "copy the Bundle again", 3)
    wanted = "tflite" if chosen == "litert" else "onnx"
    if manifest["format"] != wanted:
        message = f"{chosen} runs {wanted} models, this Bundle holds {manifest['format']}"
        raise BundleError(message, "leave --runtime out", 5)
    try:
        return chosen, _import_runtime(chosen), ""
    except BundleError as error:
        if runtime != "auto" or chosen != "tensorrt":
            raise
        note = f"{error.message}; ONNX Runtime runs this Bundle on the CPU instead"
        return "onnxruntime", _import_runtime("onnxruntime"), note


def open_session(
    folder: str | os.PathLike[str], manifest: dict[str, Any], runtime: str = "auto", threads: int = 1
) -> Session:
    """Load the Bundle's model into a runtime (see ``choose_runtime``) with ``threads`` CPU threads.

    Raises:
        BundleError: the runtime is missing, cannot run this format, or refuses the model.
    """
    if threads < 1:
        raise BundleError(f"{threads} threads asked for, at least 1 is needed", "", 2)
    chosen, version, note = choose_runtime(manifest, runtime)
    reason = unsafe_name(manifest["artifact"])
    if reason:
        raise BundleError(f"artifact {manifest['artifact']!r} {reason}")
    model = pathlib.Path(folder) / manifest["artifact"]
    if not model.is_file():
        raise BundleError(f"{model} is missing", "copy the Bundle again")
    if chosen == "tensorrt":
        session: Session = sibling("trt_session").TensorRtSession(model, manifest, version)
        return session
    if chosen == "litert":
        return LiteRtSession(model, manifest, threads)
    return OnnxRuntimeSession(model, manifest, threads, note)


def check_golden(folder: str | os.PathLike[str], manifest: dict[str, Any], session: Session) -> dict[str, Any]:
    """Run the golden pictures and compare with what the fp32 PyTorch model gave.

    Returns:
        ok; images; mean_abs_diff and max_abs_diff of the output (None when not finite); agreement, and
        agreement_of, what it counts (equal mask pixels, equal first classes, cosine); and the two limits,
        mean_tolerance and agreement_limit.

    Raises:
        BundleError: the golden file is missing or damaged.
    """
    golden, images = load_golden(folder, manifest), sibling("images")
    output = sibling("outputs").open_output(manifest)
    size, scale = tuple(manifest["preprocess"]["size"]), manifest["preprocess"]["scale"]
    inputs = [images.to_input(picture, size, scale) for picture in golden["images"]]
    # Copies: a runtime may give the same buffer for every run.
    found = np.stack([output.value(session.run(x)).copy() for x in inputs])
    difference, agreement = output.compare(golden, found)
    mean, largest = float(difference.mean()), float(difference.max())
    limits = manifest["golden"]
    least = limits["agreement"] if "agreement" in limits else limits["mask_agreement"]
    return {
        # Written so that NaN fails.
        "ok": mean <= limits["mean_tolerance"] and agreement >= least,
        "images": len(found),
        "mean_abs_diff": mean if np.isfinite(mean) else None,
        "max_abs_diff": largest if np.isfinite(largest) else None,
        "agreement": agreement if np.isfinite(agreement) else 0.0,
        "agreement_of": output.agreement,
        "mean_tolerance": limits["mean_tolerance"],
        "agreement_limit": least,
    }
