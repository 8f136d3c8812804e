"""Build the TensorRT engine of this Bundle, on the board that will run it.

An engine fits one TensorRT version, one GPU model and one graph, so it is built where it runs and kept in
``~/.cache/edgemamba/engines`` (or below $EDGEMAMBA_CACHE). Written for TensorRT 10.3 (JetPack 6), 10.13 and
10.16 (JetPack 7) and 11.x: the network is strongly typed, so precision is what the graph says.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib
import json
import os
import pathlib
import sys
import time
from typing import Any

FOLDER = pathlib.Path(__file__).resolve().parent
if not __package__:
    # Nothing may appear in the Bundle that SHA256SUMS does not list. `python -I` leaves this folder out.
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(FOLDER))


def _sibling(name: str) -> Any:
    return importlib.import_module(f"{__package__}.{name}" if __package__ else name)


bundle_files, sensors = _sibling("bundle_files"), _sibling("sensors")
BundleError = bundle_files.BundleError
INSTALL = "sudo apt install python3-libnvinfer; python3 -m venv --system-site-packages (README.md)"


@dataclasses.dataclass(frozen=True)
class Options:
    """How to build; part of the engine's identity.

    Attributes:
        workspace_mb: scratch memory that kernels may take; on a Jetson it is the board's own RAM.
        optimization_level: 0 to 5, how long TensorRT looks for fast kernels.
        tf32: let float32 matrix products round to 10 bits of mantissa.
        compute_capability: build for this GPU generation (such as SM86) and not for the one that is there;
            only TensorRT-RTX can, which is how a graph is compiled on a machine without a GPU.
    """

    workspace_mb: int = 1024
    optimization_level: int = 3
    tf32: bool = False
    compute_capability: str = ""


class Log:
    """What TensorRT says; errors are kept for the message of the exception."""

    def __init__(self, trt: Any) -> None:
        kept: list[str] = []
        self.errors = kept

        class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, text: str) -> None:
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    kept.append(" ".join(text.split()))

        self.logger = Logger()

    def reason(self, error: BaseException | None = None) -> str:
        """The last errors on one line."""
        said = self.errors or ([bundle_files.one_line(error)] if error else ["it does not say why"])
        return "; ".join(said[-3:])


def import_tensorrt(module: str = "tensorrt") -> Any:
    """The TensorRT Python module.

    Raises:
        BundleError: not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BundleError(f"{module} is not usable here: {error}", INSTALL, 4) from None


class Network:
    """A parsed graph and what keeps it alive.

    Args:
        trt: the TensorRT module.
        model: the ONNX file.

    Raises:
        BundleError: TensorRT cannot start (9), or its parser refuses the graph (5); lists all its errors.
    """

    def __init__(self, trt: Any, model: pathlib.Path) -> None:
        self.trt = trt
        self.log = Log(trt)
        try:
            self.builder = trt.Builder(self.log.logger)
        except (TypeError, RuntimeError) as error:
            raise BundleError(f"TensorRT cannot start: {self.log.reason(error)}", "", 9) from None
        strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        self.network = self.builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
        self.parser = trt.OnnxParser(self.network, self.log.logger)
        # An empty file counts as parsed: a graph without an output is none.
        if not self.parser.parse_from_file(str(model)) or not self.network.num_outputs:
            refusals = parser_errors(self.parser) or self.log.errors or ["no graph in it"]
            message = f"TensorRT {trt.__version__} refuses {model.name}: {'; '.join(refusals)}"
            raise BundleError(message, "export for another target, or --runtime onnxruntime", 5)

    def facts(self) -> dict[str, Any]:
        """Version, number of layers, and inputs and outputs with their shapes and types."""
        net = self.network
        ends = [net.get_input(i) for i in range(net.num_inputs)]
        ends += [net.get_output(i) for i in range(net.num_outputs)]
        return {
            "version": self.trt.__version__,
            "layers": net.num_layers,
            "tensors": {one.name: [*one.shape, str(one.dtype).rsplit(".", 1)[-1]] for one in ends},
        }

    def build(self, options: Options, timing: pathlib.Path | None) -> bytes:
        """The engine.

        Args:
            options: how to build.
            timing: file of kernel timings that makes rebuilding fast and repeatable; read and replaced.

        Raises:
            BundleError: TensorRT gives no engine.
        """
        config = self._config(options)
        if timing is not None:
            kept = timing.read_bytes() if timing.is_file() else b""
            config.set_timing_cache(config.create_timing_cache(kept), ignore_mismatch=False)
        built = self.builder.build_serialized_network(self.network, config)
        if built is None:
            raise BundleError(f"TensorRT gives no engine: {self.log.reason()}", "try a smaller --workspace-mb", 9)
        if timing is not None:
            _write(timing, bytes(config.get_timing_cache().serialize()))
        return bytes(built)

    def _config(self, options: Options) -> Any:
        trt, config = self.trt, self.builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
        config.builder_optimization_level = options.optimization_level
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if not options.tf32:
            config.clear_flag(trt.BuilderFlag.TF32)
        if options.compute_capability:
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, options.compute_capability), 0)
        return config


def parser_errors(parser: Any) -> list[str]:
    """Every error of the ONNX parser: node, operator, and what is wrong."""
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node, operator = error.node_name(), error.node_operator()
        where = f"node {node or '?'} ({operator}): " if operator else ""
        found.append(where + " ".join(error.desc().split()))
    return found


def check_graph(model: pathlib.Path, module: str = "tensorrt") -> dict[str, Any]:
    """Parse only, without a GPU.

    Raises:
        BundleError: no TensorRT, or the parser refuses the graph.
    """
    facts: dict[str, Any] = Network(import_tensorrt(module), model).facts()
    return facts


def cache_folder() -> pathlib.Path:
    """Where engines are kept."""
    own, shared = os.environ.get("EDGEMAMBA_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return pathlib.Path(own) / "engines"
    return pathlib.Path(shared or pathlib.Path.home() / ".cache") / "edgemamba" / "engines"


def this_gpu() -> dict[str, str]:
    """Name and compute capability of the GPU.

    Raises:
        BundleError: no CUDA runtime, driver or device.
    """
    cudart = _sibling("cudart")
    return {"capability": cudart.Cuda().capability(), "name": cudart.device_name()}


def ensure_engine(
    model: pathlib.Path,
    options: Options,
    folder: pathlib.Path,
    *,
    module: str = "tensorrt",
    gpu: dict[str, str] | None = None,
    rebuild: bool = False,
) -> tuple[bytes, dict[str, Any]]:
    """The engine of ``model``, from ``folder`` or built now and kept there.

    An engine is code: one is loaded only from a folder of this user, where its record names this graph,
    TensorRT, GPU and these options and the hash of these bytes. Anything else is built again.

    Returns:
        the engine, and its record (identity, bytes, sha256, seconds, cached, path).

    Raises:
        BundleError: no TensorRT or GPU, a refused graph, or a failed build.
    """
    trt = import_tensorrt(module)
    identity = {
        "graph_sha256": bundle_files.hash_file(model),
        "tensorrt": f"{module} {trt.__version__}",
        "gpu": this_gpu() if gpu is None else gpu,
        "options": dataclasses.asdict(options),
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
    path = folder / f"{key}.engine"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid():
        raise BundleError(f"{folder} belongs to another user", "set EDGEMAMBA_CACHE to a folder of yours", 3)
    if not rebuild:
        kept = _load(path, identity)
        if kept is not None:
            return kept
    machine = hashlib.sha256(json.dumps([identity["tensorrt"], identity["gpu"]]).encode()).hexdigest()[:24]
    print(f"building the engine of {model.name}: minutes, once", file=sys.stderr, flush=True)
    begin = time.monotonic()
    # TensorRT-RTX leaves kernel timing to run time and has no such cache.
    timing = folder / f"{machine}.timing" if module == "tensorrt" else None
    engine = Network(trt, model).build(options, timing)
    record = {
        "identity": identity,
        "bytes": len(engine),
        "sha256": hashlib.sha256(engine).hexdigest(),
        "seconds": round(time.monotonic() - begin, 1),
        "machine": sensors.facts(),
        "nvpmodel": sensors.read().get("nvpmodel"),
    }
    _write(path, engine)
    _write(path.with_suffix(".json"), json.dumps(record, indent=2).encode())
    return engine, {**record, "cached": False, "path": str(path)}


def _load(path: pathlib.Path, identity: dict[str, Any]) -> tuple[bytes, dict[str, Any]] | None:
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        engine = path.read_bytes()
    except (OSError, ValueError):
        return None
    if record.get("identity") != identity or record.get("sha256") != hashlib.sha256(engine).hexdigest():
        return None
    return engine, {**record, "cached": True, "path": str(path)}


def _write(path: pathlib.Path, data: bytes) -> None:
    """Complete or not at all."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        if temporary.exists():
            temporary.unlink()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="build_engine.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    defaults = Options()
    parser.add_argument("--check", action="store_true", help="parse the graph only")
    parser.add_argument("--rebuild", action="store_true", help="build even if the engine is there")
    parser.add_argument("--workspace-mb", type=int, default=defaults.workspace_mb, help="default 1024")
    parser.add_argument(
        "--optimization-level",
        type=int,
        choices=range(6),
        default=defaults.optimization_level,
        help="default 3",
    )
    parser.add_argument("--tf32", action="store_true", help="faster, less exact float32 matrix products")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> list[str]:
    """Check or build; lines for a person."""
    manifest = bundle_files.load_manifest(FOLDER)
    bundle_files.check_files(FOLDER, manifest)
    model = FOLDER / manifest["artifact"]
    if options.check:
        facts = check_graph(model)
        return [f"TensorRT {facts['version']} accepts {model.name}: {facts['layers']} layers, {facts['tensors']}"]
    choice = Options(options.workspace_mb, options.optimization_level, options.tf32)
    _, record = ensure_engine(model, choice, cache_folder(), rebuild=options.rebuild)
    how = "was there already" if record["cached"] else f"built in {record['seconds']} s"
    return [f"engine {how}: {record['path']}, {record['bytes'] / 1e6:.1f} MB"]


def main(arguments: list[str] | None = None) -> int:
    """Exit code of the whole."""
    options = parse(arguments)
    try:
        print("\n".join(run(options)))
        return 0
    except BundleError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return int(error.exit_code)
    except OSError as error:
        print(f"error: cannot write to {cache_folder()}: {error.strerror or error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
