"""Classes named at run time: the bundle's own text network and tokenizer, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprl.engines import Bundle, BundleError, CliprlError, TextEngine, UsageError, compile_engine, open_bundle
from cliprl.engines.bundle.bundle import TEXT, TOKENIZER
from cliprl.pipeline import Segmenter, with_prompts
from cliprl.pipeline.segment.prompts import PALETTE, parse_prompt
from cliprl.pipeline.synthetic import SCENE_CLASSES

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

import ftfy  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from cliprl.engines import add_reference  # noqa: E402
from cliprl.models.config.config import NetworkConfig, ReinforcementConfig  # noqa: E402
from cliprl.models.export.export import TrainedModel, add_text, export_bundle  # noqa: E402
from cliprl.models.network.network import ClipSegmenter  # noqa: E402
from cliprl.models.network.refiner import RefinerNetwork  # noqa: E402
from cliprl.models.network.text import class_embeddings  # noqa: E402

HEIGHT, WIDTH, CONTEXT = 64, 96, 24
THREAD = 6


def tiny(seed: int) -> ClipSegmenter:
    torch.manual_seed(seed)
    config = NetworkConfig(
        tower="test_resnet",
        weights="",
        height=HEIGHT,
        width=WIDTH,
        embedding=32,
        pyramid=16,
        features=8,
        text_width=32,
        text_layers=2,
        context=CONTEXT,
    )
    return ClipSegmenter(config).eval()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, ClipSegmenter]:
    """A bundle that an untrained network was exported to, and that network."""
    torch.set_num_threads(1)
    network = tiny(0)
    model = TrainedModel(
        network,
        RefinerNetwork.beside(network, 8, len(SCENE_CLASSES), ReinforcementConfig()),
        SCENE_CLASSES,
        HEIGHT,
        WIDTH,
        2,
    )
    return export_bundle(model, tmp_path_factory.mktemp("bundle"), "tiny", {}), network


@pytest.fixture(scope="module")
def bundle(made: tuple[Bundle, ClipSegmenter]) -> Bundle:
    return made[0]


@pytest.fixture(scope="module")
def text(bundle: Bundle) -> TextEngine:
    return TextEngine(bundle)


def test_the_text_network_says_what_torch_says(made: tuple[Bundle, ClipSegmenter], text: TextEngine) -> None:
    prompts = ["grasper", "The surgeon's hook!", "a " * 60, "naïve 手術"]
    with torch.no_grad():
        expected = made[1].encode_text(open_clip.SimpleTokenizer(context_length=CONTEXT)(prompts))
        classes = class_embeddings(made[1], SCENE_CLASSES)
    np.testing.assert_array_equal(text.tokenize(prompts), open_clip.SimpleTokenizer(context_length=CONTEXT)(prompts))
    # The weights are stored in half.
    np.testing.assert_allclose(text.embed(prompts), expected, atol=2e-3)
    for spec, wanted in zip(SCENE_CLASSES, classes, strict=True):
        np.testing.assert_allclose(text.embed_class(spec), wanted, atol=2e-3)
        assert np.linalg.norm(text.embed_class(spec)) == pytest.approx(1, abs=1e-5)


def test_most_of_it_is_the_table_of_tokens_in_half(bundle: Bundle) -> None:
    table = 49408 * 32 * 2
    assert table < (bundle.path / TEXT).stat().st_size < table + 400_000
    assert (bundle.path / TOKENIZER).stat().st_size < 2_500_000


@pytest.fixture(scope="module")
def tokenizer(bundle: Bundle) -> Tokenizer:
    return Tokenizer.from_file(str(bundle.path / TOKENIZER))


@cache
def theirs() -> Any:
    return open_clip.SimpleTokenizer()


def expected_tokens(sentence: str) -> list[int]:
    return [theirs().sot_token_id, *theirs().encode(sentence), theirs().eot_token_id]


# What ftfy guesses is not copied: HTML's entities and characters that hint at a wrong encoding. Nor are an accent whose
# capital is a letter, and a capital sigma, whose small form depends on its place.
ODD = "&\u0345\u03a3"
LETTERS = st.characters(exclude_categories=("Cs", "Cn", "Co"), exclude_characters=ODD)
PIECES = st.sampled_from(
    [
        "grasper",
        "The Shaft",
        "don't",
        "we'LL",
        "I'd've",
        "“quoted”",
        "‘x’",
        "ﬁne",
        "ＡＢＣ１２",
        "ΟΔΟ",
        "İstanbul",
        "1234",
        "ß",
        "  ",
        "\t\n",
        "a-b_c/d",
        "...",
        "(x)",
        "手術",
        "😀👩‍⚕️",
        "é",
        "\u0000",
        "\ufeff",
        "\u00a0",
        "x\u200by",
        "</w>",
        "Ġ",
        "##",
    ]
)


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(st.one_of(PIECES, st.text(LETTERS, max_size=12)), max_size=6))
def test_tokens_are_open_clips(tokenizer: Tokenizer, parts: list[str]) -> None:
    sentence = "".join(parts)
    plain = ftfy.fix_text(sentence, fix_encoding=False, unescape_html=False)
    if ftfy.fix_text(sentence) == plain and not any("\x80" <= letter <= "\x9f" for letter in sentence):
        assert tokenizer.encode(sentence).ids == expected_tokens(sentence)


def test_every_letter_has_open_clips_tokens(tokenizer: Tokenizer) -> None:
    letters = [chr(code) for code in (*range(0x20, 0x500), *range(0x2000, 0x2700), *range(0xFB00, 0x10000))]
    for letter in letters:
        if unicodedata.category(letter) not in ("Cc", "Cn", "Co", "Cs") and letter not in ODD:
            assert tokenizer.encode(f"a{letter}b {letter}").ids == expected_tokens(f"a{letter}b {letter}")


def logits_of(bundle: Bundle, precision: str) -> Any:
    image = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3)).astype(np.uint8)
    shapes = {"image": image.shape, "text": bundle.embeddings.shape}
    engine = compile_engine(bundle.encoder, precision=precision, shapes=shapes)
    return np.array(engine.run({"image": image, "text": bundle.embeddings})["logits"])


@pytest.mark.parametrize("precision", ["auto", "f32"])
def test_rewording_a_class_changes_its_logits_and_no_others(bundle: Bundle, precision: str) -> None:
    reworded = with_prompts(bundle, ["thread=suture, a stitch"])
    assert [spec.name for spec in reworded.manifest.classes] == [spec.name for spec in SCENE_CLASSES]
    assert reworded.manifest.classes[THREAD] == replace(SCENE_CLASSES[THREAD], prompts=("suture", "a stitch"))
    before, after = logits_of(bundle, precision), logits_of(reworded, precision)
    same = np.array([np.array_equal(a, b) for a, b in zip(before[0], after[0], strict=True)])
    assert list(np.flatnonzero(~same)) == [THREAD]


@pytest.mark.parametrize("precision", ["auto", "f32"])
@pytest.mark.parametrize("more", [1, 5])
def test_adding_classes_leaves_the_others_logits_as_they_were(bundle: Bundle, precision: str, more: int) -> None:
    wider = with_prompts(bundle, ["grasper", "gauze", "a drop of blood", "fat", "smoke"][:more])
    before, after = logits_of(bundle, precision), logits_of(wider, precision)
    assert after.shape[1] == len(SCENE_CLASSES) + more
    np.testing.assert_array_equal(after[:, : len(SCENE_CLASSES)], before)
    assert np.abs(after[0, -1] - after[0, 0]).max() > 0


def test_one_text_is_no_list_of_prompts(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match=r"one text: give a list, as in \['grasper'\]"):
        with_prompts(bundle, "grasper")


def test_new_class_has_name_color_and_phrases(bundle: Bundle) -> None:
    found = with_prompts(bundle, ["Suction Tip", "gauze = a swab,  white  gauze #0a0B0c"]).manifest.classes[12:]
    assert [spec.name for spec in found] == ["suction-tip", "gauze"]
    assert [spec.prompts for spec in found] == [("Suction Tip",), ("a swab", "white gauze")]
    assert found[1].color == (10, 11, 12)
    assert found[0].color in PALETTE
    assert found[0].color not in {spec.color for spec in SCENE_CLASSES}
    assert all(spec.kind == "prompted" for spec in found)
    many = with_prompts(bundle, [f"thing{i}" for i in range(40)]).manifest.classes
    assert len({spec.color for spec in many}) == len(many)


def test_without_prompts_the_bundle_is_as_it_was(bundle: Bundle) -> None:
    assert with_prompts(bundle, []) is bundle


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ([""], "prompt ''"),
        (["  "], "prompt '  '"),
        (["thread="], "prompt 'thread='"),
        (["=grasper"], "prompt '=grasper'"),
        (["#ff0000"], "prompt '#ff0000'"),
        (["a=b #GGGGGG"], "six hexadecimal digits"),
        (["hook, , tip"], "leaves a name or a phrase empty"),
        (["x=\u0000\u0007"], "says nothing"),
        (["x=\ufeff"], "says nothing"),
        (["x=" + "a very long story about a tool " * 5], r"\d+ tokens.*at most \d+"),
        (["hook", "hook=a hook"], "class 'hook' twice"),
        ([f"thing{i}" for i in range(53)], "65 classes.*64"),
    ],
)
def test_a_prompt_that_can_not_be_used_is_one_line(bundle: Bundle, prompts: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        with_prompts(bundle, prompts)
    assert "\n" not in str(caught.value)


def test_prompt_of_the_maximum_length_is_read(bundle: Bundle) -> None:
    with pytest.raises(UsageError) as caught:
        with_prompts(bundle, ["x=" + "a " * 99])
    room = int(str(caught.value).split("at most ")[1].split(":")[0])
    assert with_prompts(bundle, ["x=" + "a " * room])
    with pytest.raises(UsageError):
        with_prompts(bundle, ["x=" + "a " * (room + 1)])


@pytest.mark.parametrize("text", ["gr\udce9f", "gr\udce9f=grasper", "grasper=gr\udce9f #102030"])
def test_prompt_that_is_not_utf_8_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"prompt '.*gr\\udce9f.*' is not UTF-8"):
        parse_prompt(text)


@given(name=st.text("abc -", min_size=1), phrases=st.lists(st.text("xyz '", min_size=1), min_size=1, max_size=3))
def test_what_is_written_is_what_is_read(name: str, phrases: list[str]) -> None:
    written = f"{name}={','.join(phrases)} #102030"
    if not name.strip() or not all(phrase.strip() for phrase in phrases):
        with pytest.raises(UsageError):
            parse_prompt(written)
        return
    found = parse_prompt(written)
    assert found.name.split() == name.split()
    assert [phrase.split() for phrase in found.phrases] == [phrase.split() for phrase in phrases]
    assert found.color == (16, 32, 48)


def test_a_bundle_without_a_text_network_says_so(bundle: Bundle) -> None:
    plain = replace(bundle, manifest=replace(bundle.manifest, text=None))
    with pytest.raises(UsageError, match=r"'tiny' has no text network.*--prompt"):
        with_prompts(plain, ["grasper"])


def test_a_network_that_is_not_the_bundles_is_refused(
    made: tuple[Bundle, ClipSegmenter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text network that was exported of it gives other texts than the bundle's."""
    other = replace(open_bundle(copied(made[0], tmp_path)), embeddings=np.roll(made[0].embeddings, 1, axis=0))
    monkeypatch.setattr("cliprl.models.export.export.write_text_tower", lambda *_: None)
    with pytest.raises(CliprlError, match=r"'background-tissue' is not the bundle's"):
        add_text(other, made[1])


def copied(bundle: Bundle, folder: Path) -> Path:
    target = folder / "bundle"
    target.mkdir()
    for path in bundle.path.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize("name", [TEXT, TOKENIZER])
def test_an_altered_or_missing_text_file_is_noticed(bundle: Bundle, tmp_path: Path, name: str) -> None:
    path = copied(bundle, tmp_path)
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (path / name).write_bytes(data)
    with pytest.raises(BundleError, match=name):
        open_bundle(path)
    (path / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        open_bundle(path)


def test_stored_probe_frames_check_a_bundle_with_new_classes(bundle: Bundle, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3)).astype(np.uint8)
    probed = add_reference(open_bundle(copied(bundle, tmp_path)), image)
    assert probed.manifest.text == bundle.manifest.text
    segmenter = Segmenter(probed, prompts=["grasper"], precision="f32")
    assert [spec.name for spec in segmenter.classes[12:]] == ["grasper"]


SCRIPT = """
import sys
for name in ("torch", "open_clip", "timm", "onnx", "onnxruntime", "transformers"):
    sys.modules[name] = None
from cliprl.pipeline.cli.main import main
main()
"""


def stream(bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, "demo:", "--bundle", str(bundle), "--frames", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_takes_prompts_without_torch(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "masks.coco.json"
    done = stream(
        bundle.path, "-o", str(out), "--prompt", "grasper #ff00ff", "--prompt", "thread=a stitch", "--precision", "f32"
    )
    assert done.returncode == 0, done.stderr
    categories = {c["name"]: c for c in json.loads(out.read_text())["categories"]}
    assert categories["grasper"]["color"] == [255, 0, 255]
    assert set(categories) == {spec.name for spec in SCENE_CLASSES[1:]} | {"grasper"}


def test_the_command_refuses_a_bad_prompt_in_one_line(bundle: Bundle) -> None:
    done = stream(bundle.path, "-o", "null:", "--prompt", "thread=")
    assert done.returncode == 2
    assert "thread=" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
