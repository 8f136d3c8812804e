"""edgemamba: from training a compact Mamba vision model to a measured artifact on an edge board.

Who may import whom; a module imports only from its own row's left and from the rows below::

    cli, __main__                                 bench (imports anything, nothing imports it)
    demo, doctor
    bundle < stages, evaluation < profiling       train       importing
    report                                        what profiling recorded, as a page; of profiling only
                                                  its records, stats and pictures
    sources < foreign                             trained weights with the record of their run, networks of other
                                                  projects from their files
    ssm < models, data, compat, tasks             the scan, networks, images with masks, names of other projects,
                                                  what an output means
    board                                         copied to boards: imports nothing of edgemamba
    records, presets, registry, accelerator, versions, files, console, errors

There are no cycles, lazy imports included. ``tests/test_architecture.py`` enforces all of this.
"""

import os

# Since 1.29 ONNX Runtime reports sessions and model hashes to its maker unless told not to before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
