"""A bundle opens whole and unaltered, or not at all, and says in one line why."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cliprl.engines import BundleError, CliprlError, UsageError, open_bundle, seal_bundle
from cliprl.engines.bundle.bundle import REQUIRED_FILES
from cliprl.engines.bundle.manifest import MANIFEST, sealed_text


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    shipped = open_bundle("small").path
    copy = tmp_path / "copy"
    shutil.copytree(shipped, copy)
    return copy


def edit(bundle: Path, **changes: object) -> None:
    """Change the manifest as a program would that seals what it writes."""
    data = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    (bundle / MANIFEST).write_text(sealed_text(data | changes), encoding="utf-8")


def assert_one_line(error: CliprlError, *words: str) -> None:
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error)


def test_the_shipped_bundle_is_whole() -> None:
    bundle = open_bundle("small")
    manifest = bundle.manifest
    assert len(manifest.classes) == len(bundle.embeddings)
    assert manifest.classes[0].kind == "background"
    assert set(REQUIRED_FILES) <= set(manifest.hashes)
    assert sum(p.stat().st_size for p in bundle.path.iterdir()) <= 60_000_000
    assert manifest.training
    assert manifest.scores


def test_what_is_sealed_opens_the_same(bundle: Path) -> None:
    first = open_bundle(bundle)
    (bundle / MANIFEST).unlink()
    second = seal_bundle(bundle, first.manifest, first.embeddings)
    assert second.manifest == first.manifest


def test_an_altered_file_is_reported_before_its_content(bundle: Path) -> None:
    (bundle / "classes.npy").write_bytes(b"no array")
    with pytest.raises(BundleError, match=r"classes\.npy has SHA-256") as caught:
        open_bundle(bundle)
    assert_one_line(caught.value, "it was altered or cut short")


@pytest.mark.parametrize("change", ["  ", ',\n  "seal": "', "\n"])
def test_a_byte_behind_or_before_the_seal_is_a_change(bundle: Path, change: str) -> None:
    text = (bundle / MANIFEST).read_text(encoding="utf-8")
    for altered in (text + change, text[:-3] + change + text[-3:], text.replace('"seal"', change + '"seal"')):
        (bundle / MANIFEST).write_text(altered, encoding="utf-8")
        with pytest.raises(BundleError, match=r"altered since it was sealed|is not JSON"):
            open_bundle(bundle)


@pytest.mark.parametrize("change", [{"training": {"a": "\ud800"}}, {"scores": {"\ud800": 1}}])
def test_half_of_a_character_is_refused_in_a_manifest(bundle: Path, change: dict[str, object]) -> None:
    """It could be read, and never be sealed again."""
    content = json.dumps(json.loads((bundle / MANIFEST).read_bytes()) | change | {"seal": None}, indent=2)
    content = content.partition(',\n  "seal"')[0]
    digest = hashlib.sha256(f"{content}\n}}\n".encode()).hexdigest()
    (bundle / MANIFEST).write_text(f'{content},\n  "seal": "{digest}"\n}}\n', encoding="utf-8")
    with pytest.raises(BundleError, match=r"manifest\.json: Invalid JSON"):
        open_bundle(bundle)


def test_a_manifest_that_is_not_read_is_not_sealed(bundle: Path) -> None:
    first = open_bundle(bundle)
    with pytest.raises(BundleError, match=r"manifest\.json: name: "):
        seal_bundle(bundle, replace(first.manifest, name="a\nb"), first.embeddings[:1])
    assert open_bundle(bundle).manifest.name == first.manifest.name


def test_a_full_disk_leaves_the_bundle_that_was_there(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, write = open_bundle(bundle), Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if "manifest" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BundleError, match=r"can't be written \(No space left on device\): free space"):
        seal_bundle(bundle, first.manifest, 2 * first.embeddings, {"note.txt": b"new"})
    assert open_bundle(bundle).manifest.hashes == first.manifest.hashes
    assert not [path for path in bundle.iterdir() if "partial" in path.name or path.name == "note.txt"]


def test_a_path_may_be_bytes(bundle: Path) -> None:
    assert open_bundle(str(bundle).encode()).path == bundle  # type: ignore[arg-type]


def test_an_archive_and_a_folder_around_a_bundle_are_named(bundle: Path) -> None:
    with pytest.raises(CliprlError, match=r"manifest\.json is missing.*'.*' is one") as outer:
        open_bundle(bundle.parent)
    assert str(bundle) in str(outer.value)
    with pytest.raises(UsageError, match="is a file, and a bundle is a folder: unpack it"):
        open_bundle(bundle / MANIFEST)


@pytest.mark.parametrize("name", [MANIFEST, *REQUIRED_FILES])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle)
    assert_one_line(caught.value, name, "missing")
    assert caught.value.exit_status == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(data=st.data(), name=st.sampled_from(REQUIRED_FILES), bit=st.integers(0, 7))
def test_one_flipped_bit_is_noticed(bundle: Path, data: st.DataObject, name: str, bit: int) -> None:
    path = bundle / name
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    try:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
        with pytest.raises(BundleError) as caught:
            open_bundle(bundle)
        assert_one_line(caught.value, name, "altered")
    finally:
        path.write_bytes(whole)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(data=st.data(), change=st.integers(1, 255))
def test_one_flipped_byte_of_the_manifest_is_noticed(bundle: Path, data: st.DataObject, change: int) -> None:
    path = bundle / MANIFEST
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    try:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
        with pytest.raises(BundleError) as caught:
            open_bundle(bundle)
        assert_one_line(caught.value)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("old", "new"),
    [('"steps": ', '"steps":\t'), ("\n", "\r\n"), ('"height"', '"heighT"'), ('"R', '"\\u0052')],
)
def test_another_text_of_the_same_manifest_is_noticed(bundle: Path, old: str, new: str) -> None:
    whole = (bundle / MANIFEST).read_bytes().decode()
    assert old in whole
    (bundle / MANIFEST).write_bytes(whole.replace(old, new, 1).encode())
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle)
    assert_one_line(caught.value, MANIFEST, "sealed")


def test_a_manifest_without_a_seal_is_refused(bundle: Path) -> None:
    data = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    del data["seal"]
    (bundle / MANIFEST).write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle)
    assert_one_line(caught.value, MANIFEST, "seal")


def test_a_newer_format_is_refused(bundle: Path) -> None:
    edit(bundle, format_version=99)
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle)
    assert_one_line(caught.value, "99", "version")


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", ["not JSON"]), ("[]", ["not an object"]), ('{"format_version": 1}', ["lacks"])],
)
def test_a_garbled_manifest_is_named(bundle: Path, text: str, words: list[str]) -> None:
    (bundle / MANIFEST).write_text(text)
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle)
    assert_one_line(caught.value, MANIFEST, *words)


@pytest.mark.parametrize("share", [0, 1.5, "no"])
def test_a_share_of_parts_out_of_bounds_is_named(bundle: Path, share: object) -> None:
    edit(bundle, part_share=share)
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle)
    assert_one_line(caught.value, MANIFEST, "part_share", str(share))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("noise", 0),
        ("clearing", 1.0),
        ("haze", 256),
        ("least", "no"),
        ("dark", -1),
        ("search", 99),
        ("uneven", "no"),
        ("memory", 1),
    ],
)
def test_a_restoration_out_of_bounds_is_named(bundle: Path, field: str, value: object) -> None:
    spec = {"noise": 0.03, "strength": 0.8, "light": 100, "haze": 80, "clearing": 0.5, "least": 0.05}
    edit(bundle, restoration=spec)
    opened = open_bundle(bundle)
    assert opened.manifest.restoration is not None
    assert asdict(opened.manifest.restoration) == spec | {
        "note": "",
        "dark": 0.0,
        "patch": 5,
        "search": 9,
        "uneven": False,
        "memory": 0.0,
    }
    edit(bundle, restoration=spec | {field: value})
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle)
    assert_one_line(caught.value, MANIFEST, f"restoration.{field}")


def test_a_hash_that_is_not_listed_is_an_error(bundle: Path) -> None:
    edit(bundle, hashes={})
    with pytest.raises(BundleError, match="lists no hash"):
        open_bundle(bundle)


def test_no_such_bundle_names_those_there_are(tmp_path: Path) -> None:
    for name in ("giant", str(tmp_path / "nowhere"), ""):
        with pytest.raises(UsageError) as caught:
            open_bundle(name)
        assert_one_line(caught.value, "small")
        assert caught.value.exit_status == 2
