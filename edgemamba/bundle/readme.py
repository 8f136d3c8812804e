"""README.md of a Bundle: what to type on this board, step by step."""

from __future__ import annotations

from edgemamba.presets import Target
from edgemamba.records import Manifest
from edgemamba.tasks import rules_of

CAVEAT = "Research software. Not a medical device; not for diagnosis, treatment or any decision about a patient."
_RUNTIME_NAMES = {"onnxruntime": "ONNX Runtime", "litert": "LiteRT", "tensorrt": "TensorRT"}

_VENV = """\
```
python3 -m venv ~/edgemamba-board
. ~/edgemamba-board/bin/activate
pip install -r requirements.txt
```
Keep the environment outside this folder, so that the folder stays what `SHA256SUMS` says.
"""

_TFLITE_OLD = """\
Where pip finds no `ai-edge-litert`, `pip install tflite-runtime "numpy<2"` (Python 3.11 or older) works too.
"""

_JETSON_SETUP = """\
TensorRT and its Python module come with JetPack; the environment has to see the system's packages.
```
sudo apt install python3-libnvinfer python3-venv
python3 -m venv --system-site-packages ~/edgemamba-board
. ~/edgemamba-board/bin/activate
pip install -r requirements.txt
python -c "import tensorrt; print(tensorrt.__version__)"
```
Keep the environment outside this folder, so that the folder stays what `SHA256SUMS` says.

Then build the engine. It is made for this board, this TensorRT and this graph, and kept in
`~/.cache/edgemamba/engines`; `predict.py` and `agent.py` build it themselves when it is not there.
```
python build_engine.py --check     # parse only: seconds
python build_engine.py             # minutes
```
Without TensorRT the same Bundle runs on the CPU: `pip install onnxruntime`. It is taken by itself where there
is no TensorRT, which is then said, or with `--runtime onnxruntime`.
"""

_JETSON_CLOCKS = """\
Nothing here changes the board's settings. For steady numbers set them by hand and note them with the results:
```
sudo nvpmodel -q                   # which power mode
sudo nvpmodel -p --verbose         # which modes this board has; ids differ between JetPacks
sudo nvpmodel -m ID                # choose one
sudo jetson_clocks                 # hold the clocks at the mode's maximum; --restore undoes it
```
"""

_PI_CLOCKS = """\
Nothing here changes the board's settings. For steady numbers use a fan and the supply made for it, and:
```
vcgencmd get_throttled             # 0x0: neither under-voltage nor throttling since boot
echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy0/scaling_governor
```
"""

_HOST_CLOCKS = """\
Nothing here changes the machine's settings. For steady numbers leave it idle, governor `performance`.
"""


def text(manifest: Manifest, target: Target) -> str:
    """The README of this Bundle."""
    runtime = _RUNTIME_NAMES[manifest.runtime]
    tensorrt = manifest.runtime == "tensorrt"
    setup = _JETSON_SETUP if tensorrt else _VENV + (_TFLITE_OLD if manifest.format == "tflite" else "")
    clocks = {"jetson": _JETSON_CLOCKS, "raspberry-pi": _PI_CLOCKS}.get(target.kind, _HOST_CLOCKS)
    height, width = manifest.preprocess.size
    example, gives = rules_of(manifest.task).predict_text(manifest)
    unproven = (
        "\nWhat was checked where this Bundle was made: the graph, with ONNX Runtime, against PyTorch. No"
        "\nengine of it has run on a board of ours; `agent.py` checks its output before it measures.\n"
        if tensorrt
        else ""
    )
    engine_files = "| `build_engine.py`, `trt_session.py`, `cudart.py` | build and run the engine |"
    return f"""\
# {manifest.model} for {target.title}

`{manifest.artifact}`: {manifest.precision}, input {height}x{width}, made for {runtime} by edgemamba
{manifest.edgemamba}. Python on the board: {target.python}.
{target.notes}
{unproven}
{CAVEAT}

## 1. Check the copy
```
sha256sum -c SHA256SUMS
```

## 2. Set up, once
{setup}
## 3. Predict
```
python predict.py image.tif
{example}
```
Images of any size and common format; {gives}.

## 4. Measure
```
python agent.py
```
Checks the golden pictures, measures cold start, latency and memory, prints a summary, writes `agent.jsonl`.
{clocks}
## What is here
| file | what |
|---|---|
| `{manifest.artifact}` | the network; see `MODEL_CARD.md` |
| `manifest.json` | what it is, how it was made and checked, size and SHA-256 of every file |
| `golden.npz` | {manifest.golden.images} generated pictures and the fp32 PyTorch output for them |
| `predict.py`, `agent.py` | what you run; they need numpy, Pillow and one runtime, not edgemamba |
| `runner.py`, `bundle_files.py`, `images.py`, `outputs.py`, `sensors.py`, `summary.py` | what those two use |
{engine_files if tensorrt else ""}
"""
