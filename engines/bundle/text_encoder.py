"""A bundle's text network: prompts become class embeddings at run time, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines.backends.registry import compile_engine
from cliprl.engines.bundle.bundle import TEXT, TOKENIZER, Bundle
from cliprl.engines.bundle.manifest import ClassSpec
from cliprl.engines.errors import BundleError, UsageError, reason_of

# In a manifest's training data: why the bundle has no text network.
NO_PROMPTS = "no prompts"


def ensemble(spec: ClassSpec, templates: Sequence[str]) -> list[str]:
    """Every prompt of a class: its phrases (its name where it has none) in all templates."""
    phrases = spec.prompts or (spec.name.replace("-", " "),)
    return [template.replace("{}", phrase) for phrase in phrases for template in templates]


class TextEngine:
    """Tokenizer and text network of a bundle, on the CPU in 32 bits: they run once, before the first frame.

    Raises UsageError for a bundle that has none.
    """

    def __init__(self, bundle: Bundle) -> None:
        spec = bundle.manifest.text
        if spec is None:
            why = bundle.manifest.training.get(NO_PROMPTS)
            reason = f" ({why})" if why else ""
            raise UsageError(
                f"bundle '{bundle.manifest.name}' has no text network{reason}, so its classes can't be changed: "
                "leave --prompt out, or export the bundle with one"
            )
        # Loaded here, for few runs need it.
        from tokenizers import Tokenizer

        self.spec = spec
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(bundle.path / TOKENIZER))
        except Exception as error:  # the library raises plain Exception
            raise BundleError(
                f"{bundle.path / TOKENIZER} is no tokenizer ({reason_of(error)}): write the bundle again"
            ) from error
        # The tokens that every text has, such as those of start and end.
        self._bare = int(sum(self._tokenizer.encode("").attention_mask))
        self._engine = compile_engine(bundle.path / TEXT, precision="f32")

    def tokenize(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens int64 (n, context): start, words, end, padding. What is longer is cut before its end."""
        tokens = np.zeros((len(texts), self.spec.context), np.int64)
        for row, encoding in zip(tokens, self._tokenizer.encode_batch(list(texts)), strict=True):
            row[: len(encoding.ids)] = encoding.ids[: len(row)]
            row[min(len(encoding.ids), len(row)) - 1] = encoding.ids[-1]
        return tokens

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit embeddings float32 (n, E)."""
        return np.array(self._engine.run({"tokens": self.tokenize(texts)})["embeddings"], np.float32)

    def embed_class(self, spec: ClassSpec) -> NDArray[np.float32]:
        """The embedding (E,) of a class: the normalized mean over its prompt ensemble."""
        mean = self.embed(ensemble(spec, self.spec.templates)).mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), np.float32)

    def check(self, phrase: str) -> None:
        """Raises UsageError for a phrase that says nothing, or more than the network can read in the longest template."""
        if self._count(phrase) == 0:
            raise UsageError(f"prompt '{phrase}' says nothing: give a word or a phrase, such as 'grasper'")
        frame = max(self._count(template.replace("{}", "")) for template in self.spec.templates)
        room = self.spec.context - self._bare - frame
        if self._count(phrase) > room:
            raise UsageError(
                f"prompt '{phrase[:40]}…' has {self._count(phrase)} tokens, the network reads at most {room}: shorten it"
            )

    def _count(self, text: str) -> int:
        return int(sum(self._tokenizer.encode(text).attention_mask)) - self._bare
