"""Run a plan: export, verify, quantize, verify again, package; every finished stage is kept under its
content hash."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemamba.console import Console
from edgemamba.files import refuse_unwritable
from edgemamba.records import StageRecord
from edgemamba.stages.artifact import Artifact, expect, open_artifact
from edgemamba.stages.cache import Cache, Result, cache_key, cache_root, open_cache
from edgemamba.stages.plan import Options, Plan, Step, plan
from edgemamba.tasks import TaskRules, rules_of

if TYPE_CHECKING:
    from edgemamba.stages.calibration import CalibrationSet, Floats, ImageSet

__all__ = ["Options", "Plan", "cached_steps", "plan", "run"]


def run(plan: Plan, console: Console) -> Path:
    """Make the Bundle of ``plan``; a failed stage leaves nothing at its place.

    Returns:
        The Bundle's folder.

    Raises:
        EdgemambaError: what any stage raises; VerificationError stops before anything is packaged.
    """
    refuse_unwritable(plan.out.parent)
    with open_cache(enabled=plan.options.cache) as cache:
        export = _Export(plan, cache)
        total = len(plan.steps)
        for number, step in enumerate(plan.steps, 1):
            console.line(f"[{number}/{total}] {step.title}")
            result = export.run(step)
            console.line(f"      {_told(result, rules_of(plan.source.info.task))}")
        for note in export.notes():
            console.warn(note)
    return plan.out


def cached_steps(plan: Plan) -> tuple[bool | None, ...]:
    """Which steps an export would take from the cache; None where that depends on a step that is still to
    do.

    Nothing is written. Data may be read: the images are part of the keys.
    """
    export = _Export(plan, Cache(cache_root()))
    known: list[bool | None] = []
    for step in plan.steps:
        if step.name == "package":
            known.append(False)
        elif known and not all(known):
            known.append(None)
        else:
            found = export.cache.find(export.key(step)) if plan.options.cache else None
            if found is not None:
                export.take(step, found)
            known.append(found is not None)
    return tuple(known)


class _Export:
    """One run of a plan: the artifact at hand, and the images, loaded when they are first needed."""

    def __init__(self, plan: Plan, cache: Cache) -> None:
        self.plan = plan
        self.source = plan.source
        self.cache = cache
        self.artifact: Artifact | None = None
        self.verification: dict[str, Any] = {}
        self.quantization: dict[str, Any] | None = None
        self.records: list[StageRecord] = []

    @functools.cached_property
    def images(self) -> ImageSet:
        from edgemamba.stages.calibration import verification_set

        options = self.plan.options
        return verification_set(self.source, options.verify_images, data_root=options.data_root)

    @functools.cached_property
    def calibration(self) -> CalibrationSet:
        from edgemamba.stages.calibration import calibration_set

        options = self.plan.options
        return calibration_set(self.source, options.calibration, options.seed, data_root=options.data_root)

    @functools.cached_property
    def expected(self) -> Floats:
        from edgemamba.stages.verify import reference

        return reference(self.source, self.images)

    def run(self, step: Step) -> Result:
        """Do one step, or take it from the cache."""
        if step.name == "package":
            return self._package()
        result = self.cache.run(self.key(step), functools.partial(self._work, step))
        self.take(step, result)
        return result

    def key(self, step: Step) -> str:
        """Hash of everything the step reads."""
        inputs = {"weights": self.source.fingerprint}
        if step.name != "export":
            inputs["artifact"] = self._current.sha256
        if step.name == "verify":
            inputs["images"] = self.images.sha256
        if step.name == "quantize" and step.precision == "int8":
            inputs["calibration"] = self.calibration.sha256
        return cache_key(step.name, inputs, {**step.parameters, "task": self.source.info.task}, step.tools)

    def take(self, step: Step, result: Result) -> None:
        """Go on with what a step made."""
        if step.name == "verify":
            self.verification = result.facts
        else:
            path = result.folder / f"model.{self.plan.format}"
            self.artifact = open_artifact(path, self.plan.format, step.precision, result.facts)
            if step.name == "quantize":
                self.quantization = {"scheme": step.title, **result.facts}
        record = StageRecord(
            name=step.name,
            title=step.title,
            seconds=round(result.seconds, 3),
            cached=result.cached,
            facts=result.facts,
        )
        self.records.append(record)

    def notes(self) -> list[str]:
        """What the user should know about the images and the result."""
        found = []
        before = self.records[0].facts["bytes"]
        if self.plan.precision != "fp32" and self._current.facts["bytes"] >= before:
            found.append(
                f"the {self.plan.precision} artifact has {self._current.facts['bytes']:,} bytes, fp32 has {before:,}"
            )
        if ", because " in self.images.origin:
            found.append(f"verified on {self.images.origin}")
        if self.plan.precision == "int8":
            from edgemamba.stages.calibration import MIN_IMAGES

            if len(self.calibration) < MIN_IMAGES:
                found.append(f"calibrated on {len(self.calibration)} images; {MIN_IMAGES} or more are better")
        return found

    @property
    def _current(self) -> Artifact:
        assert self.artifact is not None, "every plan starts with an export"
        return self.artifact

    def _work(self, step: Step, folder: Path) -> dict[str, Any]:
        if step.name == "verify":
            from edgemamba.stages.verify import verify

            return verify(self._current, self.source, self.images, step.precision, expected=self.expected)
        out = folder / f"model.{self.plan.format}"
        if step.name == "export":
            return self._export(step, out)
        expect(self._current, step.title, self.plan.format, "fp32")
        return self._quantize(step, out)

    def _export(self, step: Step, out: Path) -> dict[str, Any]:
        size = self.source.size
        kind: dict[str, Any] = {"task": self.source.info.task, "channels": self.source.channels}
        if self.plan.format == "onnx":
            from edgemamba.stages.to_onnx import to_onnx

            limits = {key: step.parameters[key] for key in ("opset", "ir_version", "negative_pads")}
            return to_onnx(self.source.build(), size, out, **kind, **limits)
        from edgemamba.stages.to_tflite import to_tflite

        return to_tflite(self.source.build(), size, out, **kind)

    def _quantize(self, step: Step, out: Path) -> dict[str, Any]:
        path = self._current.path
        if self.plan.format == "tflite":
            from edgemamba.stages import tflite_quant

            return (
                tflite_quant.fp16(path, out)
                if step.precision == "fp16"
                else tflite_quant.int8(path, self.calibration, out, task=self.source.info.task)
            )
        if step.precision == "fp16":
            from edgemamba.stages.fp16 import write_fp16

            return write_fp16(path, out)
        from edgemamba.stages.int8_onnx import to_int8

        return to_int8(path, self.calibration, out, quantizer=self.plan.options.quantizer, task=self.source.info.task)

    def _package(self) -> Result:
        import time

        from edgemamba.bundle import build

        started = time.perf_counter()
        manifest = build(
            self.plan.out,
            artifact=self._current,
            target=self.plan.target,
            model_info=self.source.info,
            size=self.source.size,
            reference=self.source.reference(),
            stages=self.records,
            verification=self.verification,
            quantization=self.quantization,
            source=self.source.document(),
            data=self.source.data,
            metrics=self.source.metrics,
            channels=self.source.channels,
            labels=self.source.labels,
            force=self.plan.options.force,
        )
        facts = {
            "files": len(manifest.files),
            "bytes": sum(entry.bytes for entry in manifest.files),
            "out": str(self.plan.out),
        }
        return Result(self.plan.out, facts, time.perf_counter() - started, False)


def _told(result: Result, rules: TaskRules) -> str:
    """Result and time of a step on one line."""
    facts = result.facts
    words = []
    words += [f"{facts[unit]:,} {unit}" for unit in ("nodes", "operators") if isinstance(facts.get(unit), int)]
    if "files" in facts:
        words.append(f"{facts['out']}: {facts['files']} files")
    if "bytes" in facts:
        words.append(f"{facts['bytes'] / 1000:,.0f} kB")
    if "mean_abs_diff" in facts:
        words.append(f"{rules.told(facts)}, mean |difference| {facts['mean_abs_diff']:.1e}")
        words.append(f"largest {facts['max_abs_diff']:.1e}, {facts['images']} images ({facts['data'].split(',')[0]})")
    words.append(f"cached ({result.seconds:.1f} s)" if result.cached else f"{result.seconds:.1f} s")
    return ", ".join(words)
