"""What an export will do, decided before anything is done: the stages, their parameters, where the Bundle
goes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from edgemamba.errors import Unsupported, UsageError, did_you_mean, require
from edgemamba.files import refuse_taken
from edgemamba.presets import PRECISIONS, Format, Precision, Target
from edgemamba.sources import Source

StepName = Literal["export", "verify", "quantize", "package"]
QuantizerName = Literal["ort", "nncf"]
QuantizerChoice = Literal["auto", "ort", "nncf"]
QUANTIZERS: tuple[QuantizerName, ...] = ("ort", "nncf")
CHOICES: tuple[QuantizerChoice, ...] = ("auto", *QUANTIZERS)
# Neither is better everywhere: nncf by 0.0010 of mask Dice on lgg-patient, ort by 0.0002 on lgg
# (profiles/reports/quantizers.json) and by enough on lgg-edge that nncf misses the bar. So both are tried.
DEFAULT_QUANTIZER: QuantizerChoice = "auto"


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user may choose besides source, target and precision.

    Attributes:
        format: instead of the target's own.
        quantizer: finds the int8 scales of ONNX graphs.
        calibration: number of calibration images.
        seed: of their choice.
        verify_images: how many images every artifact is compared on.
        out: the Bundle's folder; None makes a new one below ``bundles/``.
        force: replace what is at ``out``.
        cache: keep finished stages and take them from earlier exports.
        data_root: where the training data lies now.
    """

    format: Format | None = None
    quantizer: QuantizerChoice = DEFAULT_QUANTIZER
    calibration: int = 64
    seed: int = 0
    verify_images: int = 100
    out: Path | None = None
    force: bool = False
    cache: bool = True
    data_root: Path | None = None


@dataclasses.dataclass(frozen=True)
class Step:
    """One numbered stage.

    Attributes:
        name: export, verify, quantize or package.
        title: what it does, for people.
        precision: of the artifact it makes or judges.
        parameters: everything but its input files that decides the result.
        tools: distributions whose version decides the result.
    """

    name: StepName
    title: str
    precision: Precision
    parameters: dict[str, Any]
    tools: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A resolved export."""

    source: Source
    target: Target
    precision: Precision
    format: Format
    options: Options
    out: Path
    steps: tuple[Step, ...]

    def document(self, cached: tuple[bool | None, ...]) -> dict[str, Any]:
        """The plan as JSON; ``cached`` per step: True, False, or None where it depends on a step before."""
        return {
            "schema": "edgemamba.plan/1",
            "source": self.source.name,
            "model": self.source.model,
            "size": list(self.source.size),
            "target": self.target.name,
            "format": self.format,
            "precision": self.precision,
            "out": str(self.out),
            "steps": [
                {
                    "number": number,
                    "name": step.name,
                    "title": step.title,
                    "cached": hit,
                    "parameters": step.parameters,
                }
                for number, (step, hit) in enumerate(zip(self.steps, cached, strict=True), 1)
            ],
        }

    def lines(self, cached: tuple[bool | None, ...]) -> list[str]:
        """The plan for people."""
        words = {True: "cached", False: "to do", None: "to do, after the steps before"}
        total = len(self.steps)
        return [
            f"{self.source.name}, {self.source.model}: {self.format} {self.precision} for {self.target.name}",
            *(
                f"[{number}/{total}] {step.title} ({words[hit]})"
                for number, (step, hit) in enumerate(zip(self.steps, cached, strict=True), 1)
            ),
        ]


def plan(source: Source, target: Target, precision: Precision, options: Options) -> Plan:
    """Resolve an export and check that it can be done at all.

    Raises:
        UsageError: an unknown precision or quantizer, or a number out of range.
        Unsupported: the target does not take the format.
        MissingDependency: a package the stages need is not installed.
        InputError: something is at ``out`` already.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"no precision is named {precision!r}", hint=did_you_mean(precision, PRECISIONS))
    if options.quantizer not in CHOICES:
        raise UsageError(f"no quantizer is named {options.quantizer!r}", hint=did_you_mean(options.quantizer, CHOICES))
    for name, value in (("calibration", options.calibration), ("verify-images", options.verify_images)):
        if value < 1:
            raise UsageError(f"--{name} is {value}, at least 1 is needed")
    format = options.format or target.format
    if format not in target.formats:
        raise Unsupported(
            f"{target.name} does not take {format}",
            hint=f"--format {' or '.join(target.formats)}, or another --target",
        )
    if precision == "int8" and source.data is None and source.images is None:
        raise UsageError(
            f"int8 needs images that {source.name} was made for: nothing is known of its data",
            hint="a folder of them with --images DIR, or --precision fp16",
        )
    _require(format, precision, options)
    out = options.out
    if out is not None:
        refuse_taken(out, force=options.force, marker="manifest.json")
    steps = _steps(source, target, precision, format, options)
    return Plan(
        source,
        target,
        precision,
        format,
        options,
        options.out or _new_out(source, target, precision, format),
        steps,
    )


def _require(format: Format, precision: Precision, options: Options) -> None:
    require("torch", "train")
    for module in ("onnx", "onnxruntime") if format == "onnx" else ("ai_edge_litert",):
        require(module, format)
    if precision == "int8" and format == "onnx" and options.quantizer != "ort":
        require("nncf", "quant")
    if precision == "int8" and format == "tflite":
        require("ai_edge_quantizer", "tflite")


def _new_out(source: Source, target: Target, precision: Precision, format: Format) -> Path:
    stem = "-".join([source.model, target.name, precision, *([format] if format != target.format else [])])
    base = Path("bundles")
    taken = (base / (stem if number == 1 else f"{stem}-{number}") for number in range(1, 10_000))
    return next(path for path in taken if not path.exists())


_NAMES = {"onnx": "ONNX", "tflite": "TFLite"}
_TOOLS: dict[Format, tuple[str, ...]] = {
    "onnx": ("torch", "onnx", "onnxruntime"),
    "tflite": ("torch", "ai-edge-litert", "ai-edge-quantizer"),
}


def _steps(source: Source, target: Target, precision: Precision, format: Format, options: Options) -> tuple[Step, ...]:
    height, width = source.size
    limits: dict[str, Any] = {}
    if format == "onnx":
        pads = target.runtime != "tensorrt"
        limits = {"opset": target.opset, "ir_version": target.ir_version, "negative_pads": pads}
    shape = {"model": source.model, "size": [source.channels, height, width], "format": format}
    text = f", opset {target.opset}" if limits else ""
    title = f"export {height}x{width} to {_NAMES[format]} fp32{text}"
    tools = _TOOLS[format]
    steps = [
        Step("export", title, "fp32", {**shape, **limits}, tools),
        _verify(shape, "fp32", options, tools),
    ]
    if precision == "fp16":
        what = "compute in fp16, scan and norms in fp32" if format == "onnx" else "store weights as fp16"
        steps.append(Step("quantize", what, "fp16", {"format": format}, tools))
    if precision == "int8":
        tool = options.quantizer if format == "onnx" else "ai-edge-quantizer"
        calibration = {
            "calibration": options.calibration,
            "seed": options.seed,
            "quantizer": tool,
            "format": format,
        }
        named = "nncf or ort, the nearer" if tool == "auto" else tool
        title = f"quantize to int8 by {named}, {options.calibration} calibration images"
        steps.append(
            Step("quantize", title, "int8", calibration, (*tools, *(["nncf"] if tool in ("auto", "nncf") else [])))
        )
    if precision != "fp32":
        steps.append(_verify(shape, precision, options, tools))
    steps.append(Step("package", f"package for {target.name}", precision, {"target": target.name}, ()))
    return tuple(steps)


def _verify(shape: dict[str, Any], precision: Precision, options: Options, tools: tuple[str, ...]) -> Step:
    title = f"verify {precision} against fp32 PyTorch on {options.verify_images} images"
    return Step("verify", title, precision, {**shape, "images": options.verify_images, "precision": precision}, tools)
