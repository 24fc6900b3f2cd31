"""Models of the `transformers` library from a local folder, as `save_pretrained` writes them, without network access."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliprl.engines.errors import UsageError, reason_of


def load_folder(folder: Path, classes: Mapping[str, str]) -> tuple[Any, str]:
    """Return the model on the CPU in 32 bits, ready for inference, and its kind.

    classes: the name of the class in transformers for each kind, the `model_type` of config.json. The folder holds config.json
    and weights in .safetensors files; pickled weights are not read. Raises UsageError for a folder without such a model, and
    for weights that do not fill it.
    """
    try:
        import transformers
        from safetensors import SafetensorError
    except ImportError as error:
        raise UsageError(
            f"'{folder}' needs the package transformers: pip install 'cliprl[train]', or pip install transformers torch timm"
        ) from error
    _check_files(folder)
    errors = (OSError, ValueError, RuntimeError, AttributeError, ImportError, TypeError, KeyError, SafetensorError)
    logs: Any = transformers.utils.logging
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        config = transformers.PretrainedConfig.get_config_dict(str(folder), local_files_only=True)[0]
        kind = str(config.get("model_type"))
        if kind not in classes:
            raise UsageError(f"'{folder}' holds a model of type '{kind}': give one of type {', '.join(classes)}")
        model, report = getattr(transformers, classes[kind]).from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except errors as error:
        raise UsageError(f"'{folder}' can't be loaded ({reason_of(error)[:160]}): give a whole local copy") from error
    lacking = sorted(str(each) for key in ("missing_keys", "mismatched_keys") for each in report.get(key, ()))
    if lacking:
        raise UsageError(
            f"the weights in '{folder}' do not fit its config.json: {lacking[0]} is missing or has another shape"
        )
    return model.eval(), kind


def _check_files(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UsageError(f"'{folder}' has no config.json: give a folder that save_pretrained wrote")
    if not any(folder.glob("*.safetensors")):
        raise UsageError(
            f"'{folder}' has no weights in .safetensors files, and pickled ones are not read: save the model again with "
            "save_pretrained"
        )
