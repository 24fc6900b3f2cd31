"""Tokenizers of text encoders, and each as a `tokenizer.json` of the `tokenizers` library, which runs without torch."""

from __future__ import annotations

import copy
import json
import string
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import open_clip
from ftfy.chardata import CONTROL_CHARS, LIGATURES, WIDTH_MAP
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import NFC, Lowercase, Normalizer, Replace, Strip
from tokenizers.normalizers import Sequence as NormalizerSequence
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer, Split
from tokenizers.pre_tokenizers import Sequence as PreSequence
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from cliprl.engines import UsageError, reason_of

# open_clip's words, without the names of its special tokens.
WORD_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# What ftfy, through which open_clip sends every text, makes of typographic quotes.
QUOTES = {"[\u02bc\u2018-\u201b]": "'", "[\u201c-\u201f]": '"'}
START_TOKEN, END_TOKEN = "<start_of_text>", "<end_of_text>"


# From texts to tokens int64 (n, context); longer texts are truncated.
TextTokenizer = Callable[[Sequence[str]], Tensor]


def text_tokenizer(text: Mapping[str, Any], context: int) -> Any:
    """Return the tokenizer, a `TextTokenizer`, of a text encoder that open_clip describes by `text`.

    It is CLIP's own unless `hf_tokenizer_name`, or `hf_model_name`, names one of transformers, by a folder or on its hub.
    Raises UsageError for one that is not to be had.
    """
    name = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    return _text_tokenizer(name, json.dumps(text.get("tokenizer_kwargs") or {}), text.get("tokenizer_mode"), context)


@lru_cache(maxsize=8)
def _text_tokenizer(name: str | None, options: str, mode: str | None, context: int) -> Any:
    if not name:
        return open_clip.SimpleTokenizer(context_length=context)
    try:
        tokenizer = open_clip.tokenizer.HFTokenizer(name, context, tokenizer_mode=mode, **json.loads(options))
        tokenizer(["an instrument"])  # one without a token to pad with fails only here
        return tokenizer
    except Exception as error:  # transformers raises any for damaged files
        raise UsageError(
            f"the tokenizer '{name}' is not to be had ({reason_of(error)[:100]}): pip install transformers, and put whole copies "
            "of tokenizer.json and tokenizer_config.json beside open_clip_config.json"
        ) from error


def portable_tokenizer(tokenizer: Any) -> Tokenizer:
    """Return a `TextTokenizer` as one of the `tokenizers` library. Raises ValueError for one that can't be carried over."""
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        return make_tokenizer()
    own: Tokenizer | None = getattr(tokenizer.tokenizer, "backend_tokenizer", None)
    if own is None or tokenizer.tokenizer_mode or tokenizer.strip_sep_token:
        raise ValueError("its tokenizer runs in Python only")
    backend = copy.deepcopy(own)
    clean = _cleaning(tokenizer.clean_fn.__name__)
    backend.normalizer = NormalizerSequence([*clean, backend.normalizer] if backend.normalizer else clean)
    context, given = int(tokenizer.context_length), tokenizer.tokenizer
    backend.enable_truncation(context)
    backend.enable_padding(length=context, pad_id=given.pad_token_id, pad_token=given.pad_token)
    return backend


def _cleaning(function: str) -> list[Normalizer]:
    """Return the steps of open_clip's functions that clean a text before a tokenizer of transformers."""
    spaces: list[Normalizer] = [Replace(Regex(r"\s+"), " "), Strip()]
    punctuation = "".join(f"\\x{{{ord(sign):x}}}" for sign in string.punctuation)
    if function == "_clean_canonicalize":
        return [Replace("_", " "), Replace(Regex(f"[{punctuation}]"), ""), Lowercase(), *spaces]
    return [Lowercase(), *spaces] if function == "_clean_lower" else spaces


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
    return NormalizerSequence(steps)
