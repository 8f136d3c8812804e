"""Weights by their SHA-256, data by its fingerprint: found, or a reason that says what to do."""

from __future__ import annotations

import shutil

import pytest

from edgemamba.bundle import check
from edgemamba.errors import InputError
from edgemamba.profiling.quality import NotMeasured
from edgemamba.profiling.reference import Reference, find_reference


def test_an_explicit_run(made):
    found = find_reference(check(made.bundle), run=made.run)
    assert isinstance(found, Reference)
    assert found.weights == made.run / "weights" / "best.safetensors"
    assert found.dataset.fingerprint() == made.dataset.fingerprint()
    assert not found.build().training


def test_among_the_runs_by_hash_not_by_name(made, tmp_path):
    shutil.copytree(made.run, tmp_path / "a" / "renamed")
    (tmp_path / "b" / "weights").mkdir(parents=True)
    (tmp_path / "b" / "weights" / "best.safetensors").write_bytes(b"other")
    found = find_reference(check(made.bundle), runs=tmp_path)
    assert isinstance(found, Reference)
    assert found.weights.is_relative_to(tmp_path / "a")


def test_no_run_is_a_reason_with_a_hint(made, tmp_path):
    found = find_reference(check(made.bundle), runs=tmp_path)
    assert isinstance(found, NotMeasured)
    assert "--run" in found.hint


def test_the_wrong_run_is_an_error(made, tmp_path):
    with pytest.raises(InputError, match="does not hold the weights"):
        find_reference(check(made.bundle), run=tmp_path)


def test_data_that_is_not_there_is_a_reason_with_a_hint(made, tmp_path, monkeypatch):
    manifest = check(made.bundle)
    gone = manifest.data.model_copy(update={"name": "folder", "root": str(tmp_path / "gone")})
    monkeypatch.delenv("EDGEMAMBA_DATA", raising=False)
    weights = tmp_path / "runs" / "x" / "weights" / "best.safetensors"
    weights.parent.mkdir(parents=True)
    shutil.copyfile(made.run / "weights" / "best.safetensors", weights)
    found = find_reference(manifest.model_copy(update={"data": gone}), runs=tmp_path / "runs")
    assert isinstance(found, NotMeasured)
    assert "--data-root" in found.hint
    assert str(tmp_path) not in found.reason
    with pytest.raises(InputError):
        find_reference(manifest.model_copy(update={"data": gone}), runs=tmp_path / "runs", data_root=tmp_path / "gone")


def test_a_bundle_without_weights_hash(made):
    manifest = check(made.bundle).model_copy(update={"source": {}})
    assert isinstance(find_reference(manifest), NotMeasured)
