"""Run the model of this Bundle on images.

Segmentation: each image gives NAME_mask.png (0 and 255, in the image's own size) and NAME_overlay.png.
Classification: the best classes of each image with their probability, and classes.csv (or .json) of them all.
Another project's network: each image, or .npy of float32 (C, H, W), gives NAME.npy of the output.

Research software. Not a medical device; not for diagnosis, treatment or any decision about a patient.
What the network does on other data than it was trained on is unknown.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

FOLDER = pathlib.Path(__file__).resolve().parent
# Nothing may appear in the Bundle that SHA256SUMS does not list. `python -I` leaves the script's folder out.
sys.dont_write_bytecode = True
if str(FOLDER) not in sys.path:
    sys.path.insert(0, str(FOLDER))

try:
    import images
    import outputs
    import runner
except ImportError as error:
    print(f"error: {error}\nhint: pip install -r requirements.txt", file=sys.stderr)
    raise SystemExit(4) from None


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="predict.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit codes: 0 done, 2 command line, 3 an image or file, 4 a missing package, 5 not possible.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="TIFF, PNG, JPEG, ... of any size")
    parser.add_argument("-o", "--out", default="predictions", metavar="DIR", help="default: predictions")
    parser.add_argument("--threshold", type=_share, help="segmentation: probability from which a pixel is in the mask")
    parser.add_argument("--format", choices=("csv", "json"), help="classification: of the table, default csv")
    parser.add_argument("--runtime", choices=runner.RUNTIMES, default="auto", help="default: auto")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the runtime, default 1")
    parser.add_argument("--no-check", action="store_true", help="do not compare this Bundle with its checksums")
    return parser.parse_args(arguments)


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def plan_outputs(names: list[str], out: pathlib.Path, endings: tuple[str, ...]) -> list[tuple[str, pathlib.Path]]:
    """(image, where its results go without their endings) for each image.

    Raises:
        runner.BundleError: two images would be written under one name, or one over another's file.
    """
    if not endings:
        return [(name, out / pathlib.Path(name).stem) for name in names]
    planned: dict[str, str] = {}
    for name in names:
        stem = pathlib.Path(name).stem
        if stem in planned:
            message = f"{planned[stem]} and {name} would both be written as {stem}{endings[0]}"
            raise runner.BundleError(message, "predict them one after the other into different folders", 2)
        planned[stem] = name
    sources = {pathlib.Path(name).resolve() for name in names}
    for stem in planned:
        for path in (out / f"{stem}{ending}" for ending in endings):
            if path.resolve() in sources:
                message = f"the result would overwrite the image {path}"
                raise runner.BundleError(message, "choose another folder with -o", 2)
    return [(name, out / stem) for stem, name in planned.items()]


def read(manifest: dict[str, Any], session: Any, name: str) -> tuple[Any, Any]:
    """An image, uint8 (H, W, C), and the network's input; an .npy file, of a network that takes one, is both.

    Raises:
        images.ImageError: the file is not an image that can be used.
    """
    if manifest.get("task") == "tensor" and pathlib.Path(name).suffix == ".npy":
        x = images.open_array(name, session.shape)
        return x, x
    image = images.of_channels(name, images.open_image(name), session.shape[1])
    preprocess = manifest["preprocess"]
    return image, images.to_input(image, tuple(preprocess["size"]), preprocess["scale"])


def refuse_idle(options: argparse.Namespace, output: Any, task: str) -> None:
    """Raise BundleError for an option that means nothing to this network."""
    for flag, means in (("threshold", task == "segmentation"), ("format", output.summary)):
        if getattr(options, flag) is not None and not means:
            raise runner.BundleError(f"--{flag} means nothing to a network for {task}", "leave it out", 2)


def run(options: argparse.Namespace) -> int:
    """Predict every image; one that cannot be read is reported and does not stop the others."""
    manifest = runner.load_manifest(FOLDER)
    out = pathlib.Path(options.out)
    if options.threshold is not None:
        manifest = {**manifest, "threshold": options.threshold}
    output = outputs.open_output(manifest)
    refuse_idle(options, output, manifest.get("task", "segmentation"))
    planned = plan_outputs(options.images, out, output.endings)
    if not options.no_check:
        runner.check_files(FOLDER, manifest)
    session = runner.open_session(FOLDER, manifest, options.runtime, options.threads)
    if session.note:
        print(f"note: {session.note}", file=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    code, rows = 0, []
    for name, stem in planned:
        try:
            image, x = read(manifest, session, name)
            row = output.write(stem, image, session.run(x))
        except images.ImageError as error:
            code = 3
            complain(error.message, error.hint)
        else:
            rows.append({"image": name, **row})
            print(f"{name}: {output.line(row)}", flush=True)
    if output.summary and rows:
        form = options.format or "csv"
        outputs.write_bytes(out / f"classes.{form}", outputs.table(rows, form).encode())
        print(f"table -> {out / ('classes.' + form)}", flush=True)
    return code


def complain(message: str, hint: str) -> None:
    """One line for the error, one for what to do."""
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Exit code of the whole."""
    options = parse(arguments)
    try:
        return run(options)
    except runner.BundleError as error:
        complain(error.message, error.hint)
        return int(error.exit_code)
    except OSError as error:
        complain(f"cannot write to {options.out}: {error.strerror or error}", "choose another place with -o")
        return 3
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
