"""Write a Bundle: the folder that a person copies to a board."""

from __future__ import annotations

import datetime
import os
import shutil
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol

from edgemamba import __version__
from edgemamba.board import runner
from edgemamba.bundle import card, golden, readme
from edgemamba.bundle.check import MANIFEST, SUMS, sums_text
from edgemamba.bundle.session import board_errors
from edgemamba.errors import InputError, VerificationError
from edgemamba.files import new_folder, sha256_file, write_bytes, write_text
from edgemamba.presets import Format, Precision, Target, data_root
from edgemamba.records import (
    DataRef,
    FileEntry,
    Golden,
    Manifest,
    Preprocess,
    StageRecord,
    Tensor,
    save_record,
)
from edgemamba.registry import ModelInfo
from edgemamba.tasks import TaskRules, rules_of

Runtime = Literal["onnxruntime", "litert", "tensorrt"]
SCRIPTS = (
    "predict.py",
    "agent.py",
    "runner.py",
    "bundle_files.py",
    "images.py",
    "outputs.py",
    "sensors.py",
    "summary.py",
)
TENSORRT_SCRIPTS = ("build_engine.py", "trt_session.py", "cudart.py")
# Format: the runtime when the target's own is for the other format, and its line in requirements.txt.
_RUNTIMES: dict[Format, tuple[Runtime, str]] = {
    "onnx": ("onnxruntime", "onnxruntime>=1.20"),
    "tflite": ("litert", "ai-edge-litert>=2.0"),
}
_CHANNEL_ORDERS: dict[int, Literal["RGB", "grey"]] = {1: "grey", 3: "RGB"}
_INPUTS = {"RGB": "RGB picture, 0 to 1", "grey": "grey picture, 0 to 1", "none": "the network's own input"}
_TYPE_CHANGES = ("QuantizeLinear", "DequantizeLinear", "Cast", "Constant")
_PACKAGES = ("onnxruntime", "ai-edge-litert", "tflite-runtime")


class Exported(Protocol):
    """The artifact of the last stage."""

    @property
    def path(self) -> Path: ...
    @property
    def format(self) -> Format: ...
    @property
    def precision(self) -> Precision: ...


def build(
    out: Path,
    *,
    artifact: Exported,
    target: Target,
    model_info: ModelInfo,
    size: tuple[int, int],
    reference: golden.Reference,
    stages: list[StageRecord],
    verification: dict[str, Any],
    quantization: dict[str, Any] | None,
    source: dict[str, Any],
    data: DataRef | None,
    metrics: dict[str, Any],
    channels: int = 3,
    labels: Sequence[str] = (),
    force: bool = False,
) -> Manifest:
    """Write the Bundle ``out``, complete or not at all, and run its golden check on this host.

    Args:
        out: folder to make.
        artifact: the exported network.
        target: what the board can load.
        model_info: the network's registry row.
        size: input height and width, pixels.
        reference: fp32 PyTorch, float32 (n, channels, h, w) to float32 (n, ...), see ``sources.Source.reference``.
        stages: the export as it ran.
        verification: parity with PyTorch.
        quantization: scheme and calibration set, if any.
        source: SHA-256 of the weights and what the run record says.
        data: training data and split; its local path is not shipped.
        metrics: what evaluation found.
        channels: of the input.
        labels: names of a classifier's classes.
        force: replace ``out`` if it exists.

    Raises:
        InputError: ``out`` exists, or cannot be written.
        VerificationError: the artifact does not give the reference's outputs on the golden pictures, or a file
            would tell a path of this machine.
    """
    rules = rules_of(model_info.task)
    preprocess = Preprocess(size=size, channel_order=_CHANNEL_ORDERS.get(channels, "none"))
    candidates = golden.golden_images(size, channels, rules.candidates)
    pictures, expected = golden.golden_outputs(candidates, reference, preprocess.scale, rules)
    mean_tolerance, agreement = rules.golden_limits(artifact.precision, expected)
    inputs, outputs = signature(artifact, (channels, *size), expected.shape[1:], rules)
    manifest = Manifest(
        **_identity(artifact, target, model_info),
        inputs=[inputs],
        outputs=[outputs],
        preprocess=preprocess,
        labels=list(labels),
        threshold=rules.threshold,
        golden=Golden(file=golden.FILE, images=len(pictures), mean_tolerance=mean_tolerance, agreement=agreement),
        quantization=quantization,
        verification=verification,
        stages=stages,
        source=source,
        data=data.model_copy(update={"root": None}) if data else None,
        metrics=metrics,
        files=[],
    )
    content = golden.golden_bytes(pictures, expected, rules)
    with new_folder(out, force=force, marker=MANIFEST) as folder:
        shutil.copyfile(artifact.path, folder / manifest.artifact)
        write_bytes(folder / golden.FILE, content)
        manifest = _complete(folder, manifest, target, model_info)
        _refuse_local_paths(folder)
        _self_check(folder)
    return manifest


def _identity(artifact: Exported, target: Target, model_info: ModelInfo) -> dict[str, Any]:
    """What the artifact is, for which board, and how it is called: the manifest's first fields."""
    return {
        "edgemamba": __version__,
        "created": _now(),
        "name": f"{model_info.name}-{target.name}-{artifact.precision}",
        "model": model_info.name,
        "parameters": model_info.parameters,
        "task": model_info.task,
        "target": target.name,
        "device": target.device,
        "format": artifact.format,
        "precision": artifact.precision,
        "runtime": target.runtime if artifact.format == target.format else _RUNTIMES[artifact.format][0],
        "onnxruntime_level": _level(artifact),
        "artifact": f"model.{artifact.format}",
    }


def _complete(folder: Path, manifest: Manifest, target: Target, model_info: ModelInfo) -> Manifest:
    """Add everything but the artifact and its golden file; the manifest comes last and lists the rest."""
    _copy_scripts(folder, manifest.runtime)
    write_text(folder / "requirements.txt", "\n".join(requirements(target, manifest.format)) + "\n")
    write_text(folder / "README.md", readme.text(manifest, target))
    write_text(folder / "MODEL_CARD.md", card.text(manifest, model_info))
    manifest = manifest.model_copy(update={"files": _entries(folder)})
    save_record(folder / MANIFEST, manifest)
    write_text(folder / SUMS, sums_text(folder, manifest.files))
    return manifest


def requirements(target: Target, format: Format) -> list[str]:
    """Lines of ``requirements.txt``: the target's, with the runtime of ``format``."""
    if format == target.format:
        return list(target.requirements)
    return [line for line in target.requirements if not line.startswith(_PACKAGES)] + [_RUNTIMES[format][1]]


def signature(
    artifact: Exported, image: tuple[int, int, int], output: Sequence[int], rules: TaskRules
) -> tuple[Tensor, Tensor]:
    """Input and output of the artifact, as the host's own runtime reads them.

    Args:
        artifact: the exported network.
        image: channels, height and width of the input.
        output: shape of the reference's output for one image.
        rules: of the network's task.

    Raises:
        VerificationError: not one such picture in and one such output out.
    """
    shapes = _shapes(artifact)
    channels, height, width = image
    order = _CHANNEL_ORDERS.get(channels, "none")
    inputs = {"NCHW": [1, channels, height, width], "NHWC": [1, height, width, channels]}
    expected = ((inputs, _INPUTS[order]), (rules.layouts(output), rules.meaning))
    if len(shapes) != len(expected):
        raise VerificationError(f"{artifact.path.name} has {len(shapes)} inputs and outputs, expected 1 and 1")
    tensors = []
    for (name, shape), (layouts, meaning) in zip(shapes, expected, strict=True):
        layout = next((layout for layout, wanted in layouts.items() if shape == wanted), None)
        if layout is None:
            raise VerificationError(
                f"{artifact.path.name}: tensor {name} has shape {shape}, expected {next(iter(layouts.values()))}",
                hint="export again at this size",
            )
        tensors.append(Tensor(name=name, shape=shape, dtype="float32", layout=layout, meaning=meaning))
    return tensors[0], tensors[1]


def _shapes(artifact: Exported) -> list[tuple[str, list[int]]]:
    if artifact.format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(artifact.path), providers=["CPUExecutionProvider"])
        return [(one.name, list(one.shape)) for one in (*session.get_inputs(), *session.get_outputs())]
    from ai_edge_litert.interpreter import Interpreter

    with runner.quiet_native():
        interpreter = Interpreter(model_path=str(artifact.path), num_threads=1)
    details = (*interpreter.get_input_details(), *interpreter.get_output_details())
    return [(one["name"], [int(n) for n in one["shape"]]) for one in details]


def _level(artifact: Exported) -> Literal["extended", "all"]:
    """ONNX Runtime's level for this graph.

    Level ALL lays channels out in blocks of 16. Nets made of wide convolutions gain by it (U-Net 24 % on
    AVX-512, measured); where channels are narrow and everything else prevails, padding and turning cost more
    (UL-VM-UNet 12 %).
    """
    if artifact.format != "onnx":
        return "extended"
    import onnx

    graph = onnx.load(artifact.path, load_external_data=False).graph
    kinds = [node.op_type for node in graph.node if node.op_type not in _TYPE_CHANGES]
    convolutions = sum(kind in ("Conv", "ConvTranspose") for kind in kinds)
    return "all" if convolutions >= 0.2 * len(kinds) else "extended"


def _copy_scripts(folder: Path, runtime: str) -> None:
    board = Path(runner.__file__).parent
    for name in (*SCRIPTS, *(TENSORRT_SCRIPTS if runtime == "tensorrt" else ())):
        shutil.copyfile(board / name, folder / name)
    write_text(folder / "LICENSE", _licence())


def _licence() -> str:
    """The licence's text: at the top of a checkout, in the metadata of an installed package."""
    checkout = data_root() / "LICENSE"
    if checkout.is_file():
        return checkout.read_text()
    text = metadata.distribution("edgemamba").read_text("licenses/LICENSE")
    if text is None:
        raise InputError("edgemamba's own LICENSE is missing", hint="reinstall edgemamba")
    return text


def _entries(folder: Path) -> list[FileEntry]:
    return [
        FileEntry(path=path.name, bytes=path.stat().st_size, sha256=sha256_file(path))
        for path in sorted(folder.iterdir())
    ]


def _now() -> str:
    """UTC now, or SOURCE_DATE_EPOCH for a reproducible build."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.datetime.now(datetime.timezone.utc)
    if epoch is not None:
        moment = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
    return moment.replace(microsecond=0).isoformat().replace("+00:00", "Z")


def _refuse_local_paths(folder: Path) -> None:
    """Nothing shipped tells where it was made: exporters like to put stack traces into graphs."""
    places = {Path.home(), Path.cwd(), Path(tempfile.gettempdir()), Path(runner.__file__).parents[2]}
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for place in sorted(places):
            if place != Path(place.anchor) and f"{place}/".encode() in content:
                raise VerificationError(
                    f"{path.name} would tell the local path {place}", hint="strip it in the stage that wrote it"
                )


def _self_check(folder: Path) -> None:
    """The golden check that the board will run, with this host's runtime."""
    with board_errors():
        manifest = runner.load_manifest(folder)
        runner.check_files(folder, manifest)
        session = runner.open_session(folder, manifest, _RUNTIMES[manifest["format"]][0])
        found = runner.check_golden(folder, manifest, session)
    if not found["ok"]:
        raise VerificationError(
            f"the artifact differs from PyTorch on the golden pictures: mean |difference| "
            f"{found['mean_abs_diff']} (limit {found['mean_tolerance']}), {found['agreement_of']} "
            f"{found['agreement']:.6f} (limit {found['agreement_limit']})",
            hint="see the verify stage for where it departs",
        )
