"""Masks for images with the model of this Bundle.

Research software. Not a medical device; not for diagnosis, treatment or any decision about a patient.
Trained on two-dimensional slices of one data set; what it does elsewhere is unknown.

Each image gives NAME_mask.png (0 and 255, in the image's own size) and NAME_overlay.png.
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
    parser.add_argument("--threshold", type=_share, help="probability from which a pixel is in the mask, 0 to 1")
    parser.add_argument("--runtime", choices=runner.RUNTIMES, default="auto", help="default: auto")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the runtime, default 1")
    parser.add_argument("--no-check", action="store_true", help="do not compare this Bundle with its checksums")
    return parser.parse_args(arguments)


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def plan_outputs(names: list[str], out: pathlib.Path) -> list[tuple[str, pathlib.Path, pathlib.Path]]:
    """(image, mask path, overlay path) for each image.

    Raises:
        runner.BundleError: two images would be written under one name, or one over another's file.
    """
    planned: dict[str, str] = {}
    for name in names:
        stem = pathlib.Path(name).stem
        if stem in planned:
            message = f"{planned[stem]} and {name} would both be written as {stem}_mask.png"
            raise runner.BundleError(message, "predict them one after the other into different folders", 2)
        planned[stem] = name
    outputs = [(name, out / f"{stem}_mask.png", out / f"{stem}_overlay.png") for stem, name in planned.items()]
    sources = {pathlib.Path(name).resolve() for name in names}
    for _, *paths in outputs:
        for path in paths:
            if path.resolve() in sources:
                message = f"the result would overwrite the image {path}"
                raise runner.BundleError(message, "choose another folder with -o", 2)
    return outputs


def predict_one(
    manifest: dict[str, Any],
    session: Any,
    threshold: float,
    name: str,
    mask_path: pathlib.Path,
    overlay_path: pathlib.Path,
) -> float:
    """Write mask and overlay of one image; gives the share of its pixels in the mask.

    Raises:
        images.ImageError: the file is not an image that can be used.
        OSError: the results cannot be written; then neither of them exists.
    """
    image = images.open_image(name)
    preprocess = manifest["preprocess"]
    x = images.to_input(image, tuple(preprocess["size"]), preprocess["scale"])
    mask = images.to_mask(session.run(x)[0, 0], threshold, image.shape[:2])
    try:
        images.save_mask(mask_path, mask)
        images.save_image(overlay_path, images.overlay(image, mask))
    except OSError:
        if mask_path.exists():
            mask_path.unlink()
        raise
    return float(mask.mean())


def run(options: argparse.Namespace) -> int:
    """Predict every image; one that cannot be read is reported and does not stop the others."""
    manifest = runner.load_manifest(FOLDER)
    out = pathlib.Path(options.out)
    planned = plan_outputs(options.images, out)
    if not options.no_check:
        runner.check_files(FOLDER, manifest)
    session = runner.open_session(FOLDER, manifest, options.runtime, options.threads)
    if session.note:
        print(f"note: {session.note}", file=sys.stderr)
    threshold = manifest["threshold"] if options.threshold is None else options.threshold
    out.mkdir(parents=True, exist_ok=True)
    code = 0
    for name, mask_path, overlay_path in planned:
        try:
            share = predict_one(manifest, session, threshold, name, mask_path, overlay_path)
        except images.ImageError as error:
            code = 3
            complain(error.message, error.hint)
        else:
            print(f"{name}: {100.0 * share:.2f} % in the mask -> {mask_path}", flush=True)
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
