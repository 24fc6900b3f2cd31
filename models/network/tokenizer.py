"""CLIP's byte-pair tokenizer as a `tokenizer.json` of the `tokenizers` library, which runs without torch."""

from __future__ import annotations

import open_clip
from ftfy.chardata import CONTROL_CHARS, LIGATURES, WIDTH_MAP
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import NFC, Lowercase, Normalizer, Replace, Sequence
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer, Split
from tokenizers.pre_tokenizers import Sequence as PreSequence
from tokenizers.processors import TemplateProcessing

# open_clip's words, without the names of its special tokens.
WORD_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# What ftfy, through which open_clip sends every text, makes of typographic quotes.
QUOTES = {"[\u02bc\u2018-\u201b]": "'", "[\u201c-\u201f]": '"'}
START_TOKEN, END_TOKEN = "<start_of_text>", "<end_of_text>"


def make_tokenizer() -> Tokenizer:
    """From a text to its tokens, between those of start and end: the numbers of open_clip's own tokenizer.

    What ftfy guesses is left out: text in a wrong encoding, and HTML's entities. So is the small form of a capital sigma
    at a word's end.
    """
    theirs = open_clip.SimpleTokenizer()
    tokenizer = Tokenizer(BPE(theirs.encoder, list(theirs.bpe_ranks), end_of_word_suffix="</w>"))
    tokenizer.normalizer = _normalizer()
    words: list[PreTokenizer] = [Split(Regex(WORD_PATTERN), "removed", invert=True), ByteLevel(False, use_regex=False)]
    tokenizer.pre_tokenizer = PreSequence(words)
    special = [(START_TOKEN, theirs.sot_token_id), (END_TOKEN, theirs.eot_token_id)]
    tokenizer.post_processor = TemplateProcessing(single=f"{START_TOKEN} $A {END_TOKEN}", special_tokens=special)
    return tokenizer


def _normalizer() -> Normalizer:
    """Wide and joined letters, quotes and control characters as ftfy has them; spaces and case as open_clip has them."""
    letters = {chr(code): text for code, text in (LIGATURES | WIDTH_MAP).items()}
    control = "".join(f"\\x{{{code:x}}}" for code in CONTROL_CHARS if chr(code) not in "\t\n\r")
    steps: list[Normalizer] = [Replace(old, new) for old, new in letters.items()]
    steps += [Replace(Regex(old), new) for old, new in QUOTES.items()]
    steps += [Replace(Regex(f"[{control}]"), ""), NFC(), Replace(Regex(r"\s+"), " "), Lowercase()]
    return Sequence(steps)
