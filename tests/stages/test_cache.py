"""The cache gives back exactly what was asked for, or nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemamba.errors import InputError
from edgemamba.stages import cache as module
from edgemamba.stages.cache import Cache, cache_key, cache_root, open_cache, tool_versions


def write(text: str, calls: list[str]) -> Any:
    def work(folder: Path) -> dict[str, Any]:
        calls.append(text)
        (folder / "model.onnx").write_text(text)
        return {"text": text}

    return work


def test_second_run_is_a_hit(tmp_path: Path) -> None:
    cache, calls = Cache(tmp_path), []
    first = cache.run("k1", write("a", calls))
    second = cache.run("k1", write("b", calls))
    assert calls == ["a"]
    assert (first.cached, second.cached) == (False, True)
    assert second.facts == {"text": "a"} and (second.folder / "model.onnx").read_text() == "a"
    assert second.seconds == first.seconds


def test_another_key_is_a_miss(tmp_path: Path) -> None:
    cache, calls = Cache(tmp_path), []
    cache.run("k1", write("a", calls))
    cache.run("k2", write("b", calls))
    assert calls == ["a", "b"]


@pytest.mark.parametrize("damage", ["change", "remove", "record", "foreign"])
def test_damaged_entry_is_made_again(damage: str, tmp_path: Path) -> None:
    cache, calls = Cache(tmp_path), []
    folder = cache.run("k1", write("a", calls)).folder
    if damage == "change":
        (folder / "model.onnx").write_text("x")
    elif damage == "remove":
        (folder / "model.onnx").unlink()
    elif damage == "record":
        (folder / "stage.json").write_text("[]")
    else:
        (folder / "stage.json").write_text((folder / "stage.json").read_text().replace("k1", "k0"))
    result = cache.run("k1", write("b", calls))
    assert calls == ["a", "b"] and not result.cached
    assert cache.find("k1") is not None


def test_failed_work_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("x")
        raise InputError("no")

    cache = Cache(tmp_path / "root")
    with pytest.raises(InputError):
        cache.run("k1", fail)
    assert not cache.root.exists()
    assert cache.find("k1") is None


KEY: dict[str, Any] = {
    "stage": "export",
    "inputs": {"weights": "00"},
    "parameters": {"size": [64, 64]},
    "tools": ("numpy",),
}


def test_every_part_of_the_key_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    base = cache_key(**KEY)
    assert len(base) == 64 and base == cache_key(**KEY)
    changes: list[dict[str, Any]] = [
        {"stage": "verify"},
        {"inputs": {"weights": "01"}},
        {"inputs": {"artifact": "00"}},
        {"parameters": {"size": [64, 96]}},
        {"parameters": {}},
        {"tools": ("onnx",)},
    ]
    keys = [cache_key(**{**KEY, **change}) for change in changes]
    monkeypatch.setattr(module, "tool_versions", lambda _: {"numpy": "0.0"})
    keys.append(cache_key(**KEY))
    monkeypatch.undo()
    monkeypatch.setattr(module, "_code_hash", lambda: "other code")
    keys.append(cache_key(**KEY))
    assert len({base, *keys}) == len(keys) + 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=50)
@given(
    first=st.dictionaries(st.text(max_size=3), JSON, max_size=3),
    second=st.dictionaries(st.text(max_size=3), JSON, max_size=3),
)
def test_keys_are_equal_exactly_when_parameters_are(first: dict[str, Any], second: dict[str, Any]) -> None:
    keys = [cache_key("export", {}, parameters, ()) for parameters in (first, second)]
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (keys[0] == keys[1]) == same


def test_versions_are_read_without_importing() -> None:
    versions = tool_versions(["numpy", "no-such-distribution"])
    assert versions["no-such-distribution"] == "missing"
    assert versions["numpy"] and versions["edgemamba"]


def test_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMAMBA_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own" / "stages"
    monkeypatch.delenv("EDGEMAMBA_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "edgemamba" / "stages"


def test_disabled_cache_is_gone_afterwards() -> None:
    with open_cache(enabled=False) as cache:
        kept = cache.run("k1", write("a", [])).folder
        assert kept.is_dir()
    assert not kept.exists() and not cache_root().exists()


def test_unusable_place_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGEMAMBA_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot use the cache folder") as caught, open_cache():
        pass
    assert "EDGEMAMBA_CACHE" in caught.value.hint


@pytest.mark.parametrize("part", ["models", "ssm", "compat", "foreign", "stages", "tasks", "board"])
def test_changed_code_is_another_key(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a network computes with belongs to the key, networks of other projects included."""
    package = Path(module.__file__).parent.parent
    copied = tmp_path / "edgemamba"
    shutil.copytree(package, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "__file__", str(copied / "stages" / "cache.py"))
    before = module._code_hash.__wrapped__()
    changed = next(path for path in sorted((copied / part).glob("*.py")) if path.read_text())
    changed.write_text(changed.read_text() + "\n# changed\n")
    assert module._code_hash.__wrapped__() != before
