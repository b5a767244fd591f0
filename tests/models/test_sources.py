from __future__ import annotations

import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conf.compose import compose
from conf.errors import DataError, ModelError
from conf.schema import CausalModelConfig, Config, NliModelConfig
from models import sources
from models.pretrained import package_root
from storage.bundle import digest_of
from tests.plugins import tiny_gguf
from tests.plugins.bert import write_folder


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def causal(path: object, **more: object) -> CausalModelConfig:
    return CausalModelConfig(path=str(path), **more)


def configured(cache: Path, *words: str):
    return compose(["model=qwen2.5", f"paths.cache={cache}", *words])


def quiet(*_: object) -> None:
    pass


def check(config: Config, *, judged: bool) -> None:
    judge = config.filters.judge if judged else None
    sources.check(config.model, config.augmenter.models, Path(config.paths.cache), judge)


def test_a_folder_a_file_and_a_hub_name_are_told_apart(
    tmp_path: Path, file: Path, qwen2_folder: Path
):
    assert sources.locate(causal(qwen2_folder), tmp_path) == sources.Found(qwen2_folder)
    assert sources.locate(causal(file), tmp_path) == sources.Found(file)
    assert sources.locate(causal("org/name"), tmp_path) == sources.Found("org/name")
    in_folder = causal(file.parent, gguf_file=file.name)
    assert sources.locate(in_folder, tmp_path) == sources.Found(file)
    on_hub = sources.locate(causal("org/name", gguf_file="a.gguf"), tmp_path)
    assert on_hub == sources.Found("org/name", "a.gguf")


@pytest.mark.parametrize(
    ("path", "gguf_file", "reason"),
    [
        ("missing.gguf", None, "expected a GGUF file missing.gguf, got no such file"),
        ("org/missing.gguf", None, "expected a GGUF file missing.gguf, got no such file"),
        ("./missing", None, "expected a folder in Hugging Face layout, got no such folder"),
        (".", "missing.gguf", "expected a GGUF file missing.gguf, got no such file"),
        ("package:no_such_package/a.gguf", None, "run `make pretrained`"),
        ("package:../etc/passwd", None, "expected package:<import name>/<file or folder>"),
        ("package:json/../../x", None, "expected package:<import name>/<file or folder>"),
        ("package:json", None, "expected package:<import name>/<file or folder>"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line_with_a_remedy(
    tmp_path: Path, path: str, gguf_file: str | None, reason: str
):
    with pytest.raises(ModelError) as caught:
        sources.locate(causal(path, gguf_file=gguf_file), tmp_path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_an_installed_package_is_found_without_running_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = tmp_path / "weights_in_a_wheel"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('the package was run')")
    (package / "a.gguf").touch()
    monkeypatch.syspath_prepend(tmp_path)
    found = sources.locate(causal("package:weights_in_a_wheel/a.gguf"), tmp_path / "cache")
    assert found == sources.Found(package / "a.gguf")
    assert "weights_in_a_wheel" not in sys.modules


def test_what_make_pretrained_fetched_comes_before_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for root in (tmp_path / "site" / "some_weights", package_root(tmp_path, "some_weights")):
        root.mkdir(parents=True)
        (root / "a.gguf").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    found = sources.locate(causal("package:some_weights/a.gguf"), tmp_path)
    assert found == sources.Found(package_root(tmp_path, "some_weights") / "a.gguf")


def test_a_folder_in_a_package_serves_the_judge(tmp_path: Path):
    folder = package_root(tmp_path, "some_weights") / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    judge = NliModelConfig(path="package:some_weights/model")
    assert sources.locate(judge, tmp_path) == sources.Found(folder)


def test_a_gguf_file_is_converted_once_and_named_by_content(
    tmp_path: Path, file: Path, no_network: None
):
    seen: list[tuple[str, int, int]] = []
    first = sources.resolve_causal(causal(file), tmp_path, lambda *step: seen.append(step))
    assert seen[-1][1] == seen[-1][2] > 0
    copy = tmp_path / "another name.gguf"
    copy.write_bytes(file.read_bytes())
    again = sources.resolve_causal(causal(copy), tmp_path, lambda *_: pytest.fail("converted"))
    assert again.path == first.path
    assert Path(first.path).parent == tmp_path / "checkpoints"
    other = sources.resolve_causal(causal(file, dtype="float32"), tmp_path, quiet)
    assert other.path != first.path


def test_a_conversion_that_fails_leaves_nothing_behind(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(_source: object, folder: Path, *_: object) -> None:
        (folder / "half").write_text("a half-written file")
        raise KeyboardInterrupt

    monkeypatch.setattr("models.gguf.convert", fail)
    with pytest.raises(KeyboardInterrupt):
        sources.resolve_causal(causal(file), tmp_path, quiet)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_damaged_conversion_is_made_again(tmp_path: Path, file: Path):
    folder = Path(sources.resolve_causal(causal(file), tmp_path, quiet).path)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    sources.resolve_causal(causal(file), tmp_path, quiet)
    assert weights.read_bytes() == whole


def test_another_sha256_than_the_configured_one_is_refused(tmp_path: Path, file: Path):
    right = digest_of(file)
    assert sources.resolve_causal(causal(file, sha256=right), tmp_path, quiet).sha256 is None
    with pytest.raises(ModelError, match=f"expected SHA-256 {'0' * 64}, got {right}; download"):
        sources.resolve_causal(causal(file, sha256="0" * 64), tmp_path, quiet)


def test_all_models_are_resolved_and_the_manifest_tells_where_they_came_from(
    tmp_path: Path, file: Path, qwen2_folder: Path
):
    config = configured(
        tmp_path,
        f"model.cloud.path={file}",
        f"model.device.path={qwen2_folder}",
        f"augmenter.models=[{{path: {file}}}]",
    )
    resolved, facts = sources.resolve(config, quiet)
    folder = resolved.model.cloud.path
    assert Path(folder).is_dir()
    assert resolved.model.device == config.model.device
    assert [model.path for model in resolved.augmenter.models] == [folder]
    assert resolved.model.nli == config.model.nli
    assert facts["cloud"] == {
        "path": str(file),
        "revision": None,
        "folder": folder,
        "gguf": file.name,
        "sha256": digest_of(file),
    }
    assert facts["nli"] == {"path": "alisawuffles/roberta-large-wanli", "revision": None}


def test_resolving_what_is_resolved_changes_nothing(tmp_path: Path, file: Path):
    config = configured(tmp_path, f"model.cloud.path={file}", f"model.device.path={file}")
    once, _ = sources.resolve(config, quiet)
    assert sources.resolve(once, quiet)[0] == once


def test_a_check_refuses_a_broken_file_and_converts_nothing(tmp_path: Path, file: Path):
    check(configured(tmp_path / "cache", f"model.cloud.path={file}"), judged=True)
    assert not (tmp_path / "cache").exists()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cut off"):
        check(configured(tmp_path, f"model.device.path={cut}"), judged=True)


def test_an_encoder_without_a_head_is_no_judge(tmp_path: Path):
    encoder = write_folder(tmp_path / "encoder")
    config = configured(tmp_path, f"model.nli.path={encoder}")
    with pytest.raises(ModelError, match=r"set model\.nli\.nli_data=.* or filters=embedding"):
        check(config, judged=True)
    check(config, judged=False)  # nothing is judged
    check(configured(tmp_path, f"model.nli.path={encoder}", "filters=embedding"), judged=True)


def test_pairs_for_a_judge_are_read_before_anything_is_trained(tmp_path: Path):
    encoder, pairs = write_folder(tmp_path / "encoder"), tmp_path / "pairs.jsonl"
    words = (f"model.nli.path={encoder}", f"model.nli.nli_data={pairs}")
    with pytest.raises(DataError, match=r"pairs\.jsonl"):
        check(configured(tmp_path, *words), judged=True)
    pairs.write_text('{"premise": "a", "hypothesis": "b", "label": "perhaps"}\n')
    with pytest.raises(DataError, match="field 'label'"):
        check(configured(tmp_path, *words), judged=True)


def test_built_models_need_no_checkpoint(tmp_path: Path):
    config = compose([f"paths.cache={tmp_path}"])
    check(replace(config, model=replace(config.model, cloud=causal("built"))), judged=True)
