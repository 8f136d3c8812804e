"""Files of other projects where they lie: siblings, packages, and every way in which they fail."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from edgemamba.errors import EdgemambaError, InputError, MissingDependency, UsageError
from edgemamba.foreign.build import outputs
from edgemamba.foreign.source import Request, open_module, parse

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width, depths=(1, 1), norm=None, size=None):
        super().__init__()
        print("building")
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm = norm(width) if norm else nn.Identity()
        self.blocks = nn.ModuleList(nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 1)) for _ in depths)
        self.size = size

    def forward(self, x):
        print("running")
        if self.size:
            assert x.shape[-1] == self.size, f"made for {self.size}"
        x = self.norm(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return x

def tiny(**kwargs):
    return Net(4, **kwargs)

def nothing():
    return 3

HELPER = 7
"""


def project(root: Path, files: dict[str, str] | None = None, **more: str) -> Path:
    for name, text in {"net": NET, **(files or {}), **more}.items():
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def opened(path: Path, name: str = "Net", **more: Any) -> Any:
    options: dict[str, Any] = {"kwargs": {"width": 4}, "weights": None, "shape": (1, 3, 8, 8), **more}
    return open_module(Request(path, name, **options))


def refused(kind: type[EdgemambaError], path: Path, name: str = "Net", **more: Any) -> EdgemambaError:
    with pytest.raises(kind) as caught:
        opened(path, name, **more)
    assert caught.value.hint and "\n" not in caught.value.message
    return caught.value


def test_a_class_a_factory_and_their_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project(tmp_path) / "net.py"
    source, notes = opened(path)
    assert notes == ["no --weights: random weights of seed 0, the result is for timing only"]
    assert (source.name, source.info.name, source.channels, source.size) == ("net.py:Net", "net", 3, (8, 8))
    first, again = source.build(), source.build()
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert capsys.readouterr().out == ""
    net = first.network
    net.stem.weight.data.fill_(0.25)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    loaded, notes = opened(path, weights=tmp_path / "w.safetensors")
    assert notes == [] and loaded.build().network.stem.weight.unique().tolist() == [0.25]
    assert loaded.document()["weights_sha256"] != source.document()["weights_sha256"]
    made, _ = opened(path, "tiny", kwargs={"norm": "@torch.nn.BatchNorm2d", "depths": [1, 1, 1]})
    assert isinstance(made.build().network.norm, nn.BatchNorm2d) and len(made.build().network.blocks) == 3
    assert str(tmp_path) not in json.dumps(loaded.document())


def test_the_code_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    path = project(tmp_path, net="from part import Net\n", part=NET) / "net.py"
    before = opened(path)[0]
    (tmp_path / "part.py").write_text(NET + "\n# another version\n")
    after = opened(path)[0]
    assert before.weights_sha256 == after.weights_sha256 and before.fingerprint != after.fingerprint
    assert set(after.document()["code"]) == {"net.py", "part.py"}


@pytest.mark.parametrize(
    ("file", "files"),
    [
        ("net.py", {"net": "from helper import *\nfrom torch import nn\n", "helper": NET}),
        ("archs/net.py", {"archs/net": "from archs.parts.helper import Net\n", "archs/parts/helper": NET}),
        ("a/b/net.py", {"a/b/net": "from lib.helper import Net\n", "lib/helper": NET}),
        (
            "pkg/net.py",
            {"pkg/__init__": "X = 1\n", "pkg/net": "from . import X\nfrom .helper import Net\n", "pkg/helper": NET},
        ),
        (
            "pkg/sub/net.py",
            {
                "pkg/__init__": "import not_a_package\n",
                "pkg/sub/__init__": "",
                "pkg/sub/net": "from ..helper import Net\n",
                "pkg/helper": NET,
            },
        ),
        ("plain/net.py", {"plain/net": "from .helper import Net\n", "plain/helper": NET}),
        ("plain/deep/net.py", {"plain/deep/net": "from ..other.helper import Net\n", "plain/other/helper": NET}),
        ("my-net.py", {"my-net": NET}),
    ],
    ids=[
        "sibling",
        "from its root",
        "from further up",
        "package",
        "broken package",
        "relative",
        "relative up",
        "dashes",
    ],
)
def test_every_way_to_import_what_lies_around(file: str, files: dict[str, str], tmp_path: Path) -> None:
    root = tmp_path / "repository"
    project(root, files)
    (root / ".git").mkdir()
    before, path = set(sys.modules), list(sys.path)
    source, _ = opened(root / file)
    assert source.build()(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 8, 8)
    assert sys.path == path
    assert not {name for name in set(sys.modules) - before if "helper" in name or "net" in name.split(".")}


def test_two_projects_with_the_same_names_stay_apart(tmp_path: Path) -> None:
    for width in ("1", "2"):
        project(
            tmp_path / width,
            net="from helper import Net\n",
            helper=NET.replace("self.size = size", f"self.size, self.mark = size, {width}"),
        )
    marks = [opened(tmp_path / width / "net.py")[0].build().network.mark for width in ("1", "2")]
    assert marks == [1, 2]


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("import no_such_package.part", MissingDependency, "the package no_such_package is missing .*net.py line 2"),
        (
            "import torch.no_such_part",
            MissingDependency,
            "No module named 'torch.no_such_part'.*the torch installed has none",
        ),
        ("from torch import no_such_name", InputError, "ImportError: cannot import name 'no_such_name'.*net.py line 2"),
        ("from mamba_ssm import no_such_name", InputError, "cannot import name 'no_such_name'"),
        ("1 / 0", InputError, "ZeroDivisionError: division by zero, at net.py line 2"),
        ("import sys; sys.exit(3)", InputError, "SystemExit: 3"),
        ("def (", InputError, "SyntaxError: .*net.py line 2"),
        ("import cv2_not_here as cv2", MissingDependency, "cv2_not_here"),
    ],
)
def test_a_file_that_fails_says_its_own_error(line: str, kind: Any, message: str, tmp_path: Path) -> None:
    path = project(tmp_path, net=f"\n{line}\n") / "net.py"
    found = refused(kind, path).message
    assert re.search(message, found), found


def test_a_missing_package_is_named_with_its_pip_line(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("import einops_is_not_here\n")
    path = project(tmp_path, net="from helper import x\n") / "net.py"
    error = refused(MissingDependency, path)
    assert "helper.py line 1" in error.message and "pip install einops_is_not_here" in error.hint


def test_wrong_names_and_arguments(tmp_path: Path) -> None:
    path = project(tmp_path) / "net.py"
    assert "did you mean Net?" in refused(InputError, path, "Nett").hint
    assert "is a int, not a class" in refused(InputError, path, "HELPER").message
    assert "made a int, not a torch.nn.Module" in refused(InputError, path, "nothing", kwargs={}).message
    error = refused(InputError, path, kwargs={"widht": 4})
    assert "unexpected keyword argument 'widht'" in error.message and "Net(width, depths=(1, 1)" in error.hint
    assert "missing 1 required positional argument: 'width'" in refused(InputError, path, kwargs={}).message
    assert "@torch.nn.NoNorm" in refused(UsageError, path, kwargs={"width": 4, "norm": "@torch.nn.NoNorm"}).message
    refused(InputError, tmp_path / "gone.py")
    refused(InputError, tmp_path)


def test_an_input_that_does_not_fit_is_named_with_its_module(tmp_path: Path) -> None:
    path = project(tmp_path) / "net.py"
    error = refused(InputError, path, shape=(1, 1, 8, 8))
    assert "input of 1x1x8x8: RuntimeError" in error.message and error.message.endswith("in stem (Conv2d)")
    assert "--input" in error.hint
    error = refused(InputError, path, kwargs={"width": 4, "size": 16})
    assert "AssertionError: made for 16, in the network (Net)" in error.message


def test_a_network_for_a_gpu_alone(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        return
    path = project(tmp_path, net=NET.replace("self.size = size", "self.size = size; self.stem.cuda()")) / "net.py"
    error = refused(InputError, path)
    assert "cannot be built" in error.message and "device" in error.hint


@pytest.mark.parametrize("change", ["shape", "missing", "extra", "nan", "pickle", "gone"])
def test_weights_that_do_not_fit(change: str, tmp_path: Path) -> None:
    path = project(tmp_path) / "net.py"
    state = {name: tensor.clone() for name, tensor in opened(path)[0].build().network.state_dict().items()}
    weights = tmp_path / "w.safetensors"
    if change == "shape":
        state["stem.weight"] = state["stem.weight"][:2].contiguous()
    elif change == "missing":
        del state["stem.bias"]
    elif change == "extra":
        state["head.weight"] = torch.zeros(2)
    elif change == "nan":
        state["stem.bias"][0] = float("nan")
    if change == "pickle":
        torch.save(state, weights)
    elif change != "gone":
        save_file(state, weights)
    message = refused(InputError, path, weights=weights).message
    named = {"shape": "stem.weight", "missing": "stem.bias", "extra": "head.weight", "nan": "stem.bias"}
    assert named.get(change, "w.safetensors") in message


def test_outputs_of_any_nesting() -> None:
    a, b, c = torch.zeros(1), torch.ones(2), torch.ones(3)
    assert list(outputs(a)) == ["0"]
    found = outputs({"out": a, "aux": [b, {"deep": c}], "loss": None, "n": 3})
    assert {name: len(tensor) for name, tensor in found.items()} == {"out": 1, "aux.0": 2, "aux.1.deep": 3}
    assert list(outputs((a, (b, c)))) == ["0", "1.0", "1.1"] and outputs(None) == {}


def test_an_output_that_is_not_there(tmp_path: Path) -> None:
    text = NET.replace("return x\n", "return {'logits': x, 'features': [x, x]}\n")
    path = project(tmp_path, net=text) / "net.py"
    error = refused(UsageError, path, output="logit")
    assert "logits 1x4x8x8, features.0 1x4x8x8" in error.message and "logits" in error.hint
    assert (
        "returns no tensor"
        in refused(InputError, project(tmp_path, net=NET.replace("return x\n", "return None\n")) / "net.py").message
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("net.py", None, None, "1x3x8x8"), "names no class"),
        (("net.py:Net", "{width: 4}", None, "1x3x8x8"), "is not JSON"),
        (("net.py:Net", "[4]", None, "1x3x8x8"), "is a JSON list, not an object"),
        (("net.py:Net", None, None, None), "needs the shape"),
        (("net.py:Net", None, None, "224"), "is not a shape"),
        (("net.py:Net", None, None, "1x3x0x8"), "is not a shape"),
        (("net.py:Net", None, None, "1x3xHxW"), "is not a shape"),
        (("net.py:Net", None, None, "8x3x8x8"), "a batch of 8"),
        (("net.py:Net", None, None, "1x1x8x8x8"), "five axes"),
    ],
)
def test_options_that_cannot_be_read(arguments: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse(*arguments)
    assert caught.value.hint


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 999), st.integers(1, 999)),
    st.sampled_from(["1x{}x{}x{}", "{}x{}x{}", "1X{}X{}X{}", "1,{},{},{}"]),
)
def test_shapes(sizes: tuple[int, int, int], form: str) -> None:
    assert parse("a/b.py:C", '{"a": [1]}', None, form.format(*sizes)).shape == (1, *sizes)


@given(st.text(max_size=20))
def test_any_text_is_a_shape_or_refused(text: str) -> None:
    try:
        assert parse("a.py:C", None, None, text).shape[0] == 1
    except UsageError as error:
        assert error.hint
