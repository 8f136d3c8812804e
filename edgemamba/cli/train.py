"""``edgemamba train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from edgemamba.cli.options import DATA, DATA_ROOT, FORCE, GROUP, JSON, QUIET, SEED, THREADS

if TYPE_CHECKING:
    from edgemamba.records import RunRecord


def train(
    context: typer.Context,
    model: str = typer.Option("ul-vm-unet", "--model", help="A name from: edgemamba list models."),
    data: str | None = DATA,
    data_root: Path | None = DATA_ROOT,
    group: str | None = GROUP,
    split: str | None = typer.Option(
        None,
        "--split",
        help="image (leaks patients), patient, fold:K with K = 0..4, or official where the data comes divided. "
        "Default: official there, else patient, or image where there are none.",
        show_default=False,
    ),
    epochs: int | None = typer.Option(
        None, "--epochs", help="Default: 20 for generated images, 100 otherwise.", show_default=False
    ),
    recipe: str = typer.Option(
        "default", "--recipe", help="default (ours), paper (as published), finetune or distill."
    ),
    weights: str | None = typer.Option(
        None,
        "--weights",
        help="Fine-tune from a safetensors file or packaged weights, at a quarter of the learning rate.",
        show_default=False,
    ),
    encoder_weights: Path | None = typer.Option(
        None,
        "--encoder-weights",
        help="resnet*-seg: safetensors of an ImageNet ResNet (torchvision, timm, segmentation-models or Transformers).",
        show_default=False,
    ),
    teacher: list[Path] | None = typer.Option(
        None, "--teacher", help="Distil from this run, trained on the same split. Repeat for more.", show_default=False
    ),
    checkpoint: str | None = typer.Option(
        None, "--checkpoint", help="Which epoch is the result: best or last. Default: the recipe's.", show_default=False
    ),
    refit: bool = typer.Option(
        False,
        "--refit",
        help="Train on the validation part too, once nothing is left to choose.",
    ),
    batch: int | None = typer.Option(None, "--batch", help="Images a step. Default: the recipe's.", show_default=False),
    size: int | None = typer.Option(
        None,
        "--size",
        help="Input height and width, pixels. Default: the model's, 128 for phantoms.",
        show_default=False,
    ),
    seed: int = SEED,
    device: str = typer.Option("auto", "--device", help="auto, cpu or cuda."),
    amp: bool = typer.Option(False, "--amp", help="bfloat16 autocast on CUDA; the scan stays float32."),
    fuse: bool = typer.Option(
        False, "--compile", help="Fuse the step by torch.compile on CUDA: pays off in long runs of small nets."
    ),
    tensorboard: bool = typer.Option(
        False, "--tensorboard", help="Also write a TensorBoard event file into the run folder."
    ),
    devices: int | None = typer.Option(
        None,
        "--devices",
        help="Share every batch between so many GPUs (on the CPU: processes). Default: one, or as torchrun starts.",
        show_default=False,
    ),
    threads: int = THREADS,
    out: Path | None = typer.Option(
        None, "--out", help="Run folder. Default: runs/<time>-<model>.", show_default=False
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run at --out (default: the newest), exactly."),
    force: bool = FORCE,
    quiet: bool = QUIET,
    as_json: bool = JSON,
) -> None:
    """Train a model; writes curves, sample pictures and safetensors checkpoints into a run folder.

    \b
    edgemamba train
    edgemamba train --model vim-2d --data cifar100 --data-root DIR --device cuda
    edgemamba train --data lgg --data-root lgg/kaggle_3m --split image --epochs 100 --device cuda
    edgemamba train --data lgg --data-root lgg/kaggle_3m --devices 2
    edgemamba train --resume --out runs/mine
    """
    import shlex
    import sys

    from edgemamba.cli.options import data_source, given
    from edgemamba.console import Console
    from edgemamba.errors import UsageError, require
    from edgemamba.registry import model_info
    from edgemamba.sources import weights_file
    from edgemamba.train import TrainConfig, resume_config
    from edgemamba.train.launch import launch, own_command, place

    require("torch", "train")
    here = place()
    console = Console(quiet=quiet or as_json or (here is not None and here.rank > 0))
    if resume:
        idle = given(context, "resume", "out", "devices", "quiet", "as_json")
        if idle:
            raise UsageError(
                f"--resume goes on with the run's own settings and takes no {', '.join(idle)}",
                hint=f"drop {'it' if len(idle) == 1 else 'them'}, or train anew into another --out",
            )
        config = resume_config(out, devices)
    else:
        name, root, options = data_source(data, data_root, group, model_info(model).task)
        config = TrainConfig.resolve(
            model=model,
            data=name,
            data_root=root,
            data_options=options,
            split=split,
            epochs=epochs,
            recipe=recipe,
            weights=None if weights is None else weights_file(weights),
            encoder_weights=encoder_weights,
            batch=batch,
            size=size,
            seed=seed,
            device=device,
            amp=amp,
            teachers=teacher or (),
            checkpoint=cast(Any, checkpoint),
            refit=refit,
            compile=fuse,
            tensorboard=tensorboard,
            devices=devices,
            threads=threads,
            out=out,
            force=force,
        )
    if config.devices > 1 and here is None:
        raise typer.Exit(launch(own_command(sys.argv[1:], config.out), config.devices))
    from edgemamba.train import train as run_training

    record = run_training(config, console)
    if here is not None and here.rank:
        return
    _tell(record, config.out, as_json)
    named = "" if out is None else f"{shlex.quote(str(out))} "
    console.next(f"edgemamba export {named}--target jetson")


def _tell(record: RunRecord, out: Path, as_json: bool) -> None:
    """The run's result on stdout."""
    from edgemamba.cli import output

    if as_json:
        output.document({"out": str(out), **record.model_dump(mode="json", by_alias=True)})
    else:
        top1 = record.best_val_top1
        score = "Dice (pooled)" if top1 is None else "top-1"
        found = f"{record.best_val_dice_pooled or top1 or 0:.4f} at epoch {record.best_epoch}"
        seconds = f"{record.train_seconds:.0f}"
        output.pairs([("run", str(out)), (f"validation {score}", found), ("seconds", seconds)])
