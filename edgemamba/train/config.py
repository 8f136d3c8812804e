"""What a training run is told, and how a run on disk is told again. Readable without torch."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgemamba.accelerator import Device, resolve_device
from edgemamba.data import DATASETS, built_in, default_split, refuse_other_task
from edgemamba.errors import InputError, Unsupported, UsageError
from edgemamba.records import RunRecord, load_record
from edgemamba.registry import MODELS, RESNET_SEG, ModelInfo, model_info
from edgemamba.sources import RECORD, newest_run
from edgemamba.train.class_recipes import check_recipe, class_batch
from edgemamba.train.launch import place
from edgemamba.train.recipes import Checkpoint, Init, check_name, default_batch, default_init


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run, every choice made. ``resolve`` fills in what the user leaves open.

    Attributes:
        out: run folder.
        model: registry name.
        data: data set name; data_root: its folder; data_options: what else ``open_dataset`` takes.
        split: image, patient, official or fold:K.
        epochs: whole number of passes.
        batch: samples a step.
        size: input height and width, pixels.
        seed: of everything random.
        recipe: name in ``recipes.RECIPES``.
        weights: safetensors of this model to start from, for the recipe finetune.
        encoder_weights: safetensors of an ImageNet ResNet to start the encoder from.
        init: initialisation of the network.
        device: cpu or cuda.
        amp: bfloat16 autocast, CUDA only; the scan and the loss stay float32.
        threads: CPU threads; 0 leaves torch's own choice.
        teachers: run folders whose probabilities soften the masks, for the recipe distill.
        checkpoint: which epoch is the result, best or last; None takes the recipe's.
        refit: train on the validation part as well; the last epoch is the result.
        compile: torch.compile fuses the step, CUDA only.
        devices: processes that share every batch.
        tensorboard: also write the table as a TensorBoard event file.
        resume: go on with the run at ``out``.
        force: replace the run at ``out``.
    """

    out: Path
    model: str
    data: str
    data_root: Path | None
    data_options: Mapping[str, Any]
    split: str
    epochs: int
    batch: int
    size: tuple[int, int]
    seed: int
    recipe: str
    init: Init
    device: Device
    amp: bool
    threads: int
    weights: Path | None = None
    encoder_weights: Path | None = None
    teachers: tuple[Path, ...] = ()
    checkpoint: Checkpoint | None = None
    refit: bool = False
    compile: bool = False
    tensorboard: bool = False
    devices: int = 1
    resume: bool = False
    force: bool = False

    @classmethod
    def resolve(
        cls,
        *,
        model: str = "ul-vm-unet",
        data: str | None = None,
        data_root: Path | None = None,
        data_options: Mapping[str, Any] | None = None,
        split: str | None = None,
        epochs: int | None = None,
        recipe: str = "default",
        batch: int | None = None,
        size: int | tuple[int, int] | None = None,
        seed: int = 0,
        init: Init | None = None,
        device: str = "auto",
        amp: bool = False,
        threads: int = 0,
        weights: Path | None = None,
        encoder_weights: Path | None = None,
        teachers: Sequence[Path] = (),
        checkpoint: Checkpoint | None = None,
        refit: bool = False,
        compile: bool = False,
        tensorboard: bool = False,
        devices: int | None = None,
        out: Path | None = None,
        resume: bool = False,
        force: bool = False,
    ) -> TrainConfig:
        """Check every value and choose those left open.

        Raises:
            UsageError: an unknown name or an impossible number.
            Unsupported: the network cannot take the size; there is no CUDA device.
            MissingDependency: torch is not installed.
        """
        info = model_info(model)
        data = data or built_in(info.task)
        refuse_other_task(data, info.task, model)
        split = split or default_split(data, data_root)
        check_name(recipe)
        recipe = _with_weights(recipe, weights, resume)
        recipe = _with_teachers(recipe, teachers)
        _check_encoder(info, encoder_weights, weights)
        chosen = resolve_device(device)
        if info.task == "classification":
            check_recipe(recipe, info)
        usual = class_batch(chosen) if info.task == "classification" else default_batch(recipe, info, chosen)
        if size is None:
            size = 128 if data == "phantoms" else info.size
        height, width = (size, size) if isinstance(size, int) else size
        info.check_size(height, width)
        for option, asked in (("amp", amp), ("compile", compile)):
            if asked and chosen != "cuda":
                raise UsageError(f"--{option} needs a CUDA device; this run is on the CPU", hint=f"drop --{option}")
        checkpoint = _which_epoch(checkpoint, refit)
        if resume and force:
            raise UsageError("--resume and --force exclude each other", hint="give one of them")
        config = cls(
            out=out or _default_out(model),
            model=model,
            data=data,
            data_root=data_root,
            data_options=dict(data_options or {}),
            split=split,
            epochs=(100 if DATASETS[data].needs_root else 20) if epochs is None else epochs,
            batch=usual if batch is None else batch,
            size=(height, width),
            seed=seed,
            recipe=recipe,
            init=init or default_init(recipe),
            device=chosen,
            amp=amp,
            threads=threads,
            weights=weights,
            encoder_weights=encoder_weights,
            teachers=tuple(teachers),
            checkpoint=checkpoint,
            refit=refit,
            compile=compile,
            tensorboard=tensorboard,
            devices=resolve_devices(devices, chosen),
            resume=resume,
            force=force,
        )
        _check_numbers(config)
        if config.batch % config.devices:
            near = max(1, round(config.batch / config.devices)) * config.devices
            raise UsageError(
                f"a batch of {config.batch} cannot be shared equally by {config.devices} devices",
                hint=f"--batch {near}",
            )
        return config


def _which_epoch(checkpoint: Checkpoint | None, refit: bool) -> Checkpoint | None:
    if checkpoint not in (None, "best", "last"):
        raise UsageError(f"--checkpoint is {checkpoint}; it is best or last")
    if refit and checkpoint == "best":
        raise UsageError(
            "--refit trains on the validation part too, which can choose no epoch then", hint="--checkpoint last"
        )
    return "last" if refit else checkpoint


def _check_numbers(config: TrainConfig) -> None:
    for name, least in (("epochs", 1), ("batch", 1), ("seed", 0), ("threads", 0)):
        value = getattr(config, name)
        if value < least:
            raise UsageError(f"--{name} is {value}; the least is {least}")


def resolve_devices(asked: int | None, device: Device) -> int:
    """How many processes train: as asked, as they were started, or one.

    Raises:
        UsageError: fewer than one, or another number than was started.
        Unsupported: more than there are CUDA devices.
    """
    here = place()
    if here is not None:
        if asked not in (None, here.size):
            raise UsageError(
                f"--devices is {asked}, and {here.size} processes were started", hint="leave --devices out"
            )
        return here.size
    if asked is not None and asked < 1:
        raise UsageError(f"--devices is {asked}; the least is 1")
    if asked is not None and asked > 1 and device == "cuda":
        import torch

        count = torch.cuda.device_count()
        if asked > count:
            raise Unsupported(f"--devices is {asked}, and torch sees {count} CUDA devices", hint=f"--devices {count}")
    return asked or 1


def _with_weights(recipe: str, weights: Path | None, resume: bool) -> str:
    """The recipe that goes with ``weights``: they turn the default into finetune."""
    if weights is None:
        if recipe == "finetune" and not resume:
            raise UsageError(
                "the recipe finetune starts from weights", hint="--weights FILE or a name of: list weights"
            )
        return recipe
    if recipe == "paper":
        raise UsageError("the paper's recipe starts from nothing", hint="drop --weights")
    return "finetune"


def _with_teachers(recipe: str, teachers: Sequence[Path]) -> str:
    """The recipe that goes with teachers: they turn the default into distill."""
    if not teachers and recipe == "distill":
        raise UsageError("the recipe distill learns from trained runs", hint="--teacher RUN, once or more")
    if teachers and recipe not in ("default", "distill"):
        raise UsageError(f"the recipe {recipe} has no teachers", hint="drop --teacher, or take --recipe distill")
    return "distill" if teachers else recipe


def _check_encoder(info: ModelInfo, encoder_weights: Path | None, weights: Path | None) -> None:
    """Raise UsageError for encoder weights that have no encoder to go to, InputError where there is no such file."""
    if encoder_weights is None:
        return
    if info.factory != RESNET_SEG:
        takers = ", ".join(other.name for other in MODELS.values() if other.factory == RESNET_SEG)
        raise UsageError(f"--encoder-weights is for a ResNet encoder; {info.name} has none", hint=f"--model {takers}")
    if weights is not None:
        raise UsageError("--weights has an encoder already", hint="give --weights or --encoder-weights")
    if not encoder_weights.is_file():
        raise InputError(f"{encoder_weights} does not exist or is not a file", hint="name a .safetensors file")


def _default_out(model: str) -> Path:
    now = datetime.datetime.now(datetime.timezone.utc)
    return Path("runs") / f"{now:%Y%m%d-%H%M%S}-{model}"


def resume_config(out: Path | None = None, devices: int | None = None) -> TrainConfig:
    """The configuration with which the run at ``out`` (default: the newest) goes on exactly.

    Args:
        out: run folder.
        devices: other than the run had; None takes its number, or that of the processes that were started.

    Raises:
        InputError: there is no run, or its record is not valid.
        Unsupported: the run needs CUDA and there is none.
    """
    out = out or newest_run()
    record = load_record(out / RECORD, RunRecord)
    environment = record.environment
    try:
        device, amp, threads = environment["device"], environment["amp"], environment["threads_asked"]
    except KeyError as error:
        raise InputError(f"{out / RECORD} does not say environment.{error.args[0]}", hint="train again") from None
    return TrainConfig.resolve(
        model=record.model,
        data=record.data.name,
        data_root=None if record.data.root is None else Path(record.data.root),
        data_options=record.data.options,
        split=record.data.split,
        epochs=record.epochs,
        recipe=record.recipe,
        batch=record.batch,
        size=record.size,
        seed=record.seed,
        init=record.init,
        device=device,
        amp=amp,
        threads=threads,
        teachers=[Path(one["run"]) for one in environment.get("teachers", [])],
        checkpoint=record.settings.get("checkpoint"),
        refit=environment.get("refit", False),
        compile=environment.get("compile", False),
        tensorboard=environment.get("tensorboard", False),
        devices=devices or (environment.get("devices", 1) if place() is None else None),
        out=out,
        resume=True,
    )


def differences(config: TrainConfig, record: RunRecord) -> list[str]:
    """What ``config`` asks otherwise than the run did, one line each; the data's contents aside."""
    asked: dict[str, tuple[object, object]] = {
        "model": (record.model, config.model),
        "data": (record.data.name, config.data),
        "data options": (record.data.options, dict(config.data_options)),
        "split": (record.data.split, config.split),
        "epochs": (record.epochs, config.epochs),
        "batch": (record.batch, config.batch),
        "size": (tuple(record.size), config.size),
        "seed": (record.seed, config.seed),
        "recipe": (record.recipe, config.recipe),
        "init": (record.init, config.init),
        "amp": (record.environment.get("amp"), config.amp),
        "refit": (record.environment.get("refit", False), config.refit),
    }
    return [f"{name}: {had} in the run, {has} now" for name, (had, has) in asked.items() if had != has]
