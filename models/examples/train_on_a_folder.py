"""Train on a folder of your own: `images/`, `masks/` (label values) and `classes.toml`, then segment with the result.

    python train_on_a_folder.py runs/mine

Here the folder is made from rendered scenes; put your own frames and masks in its place. The settings make a run of
seconds that learns little: raise the steps for a real one, here or in further words (`supervised.steps=1900`). Without
captions there is no contrastive stage.
"""

import subprocess
import sys
from pathlib import Path

import cv2

from cliprl.pipeline.synthetic import SCENE_CLASSES
from cliprl.pipeline.synthetic.renderer import SceneRenderer

RECIPE_SETTINGS = [
    "contrastive.steps=0",
    "supervised.steps=2",
    "reinforcement.steps=1",
    "scoring.scenes=2",
    "data.scenes=2",
    "data.policy_scenes=1",
]


def make_folder(folder: Path, count: int = 6) -> None:
    """Write a data set of `count` rendered frames in the layout that `folder:` reads."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, labels = SceneRenderer(number, 128, 160).render(0.0)
        cv2.imwrite(str(folder / "images" / f"{number:03}.png"), image[..., ::-1])
        cv2.imwrite(str(folder / "masks" / f"{number:03}.png"), labels)
    lines = [
        f'[[classes]]\nname = "{each.name}"\nkind = "{each.kind}"\ncolor = {list(each.color)}\nvalue = {value}\n'
        for value, each in enumerate(SCENE_CLASSES)
    ]
    (folder / "classes.toml").write_text("\n".join(lines))


def main(run: str, *settings: str) -> None:
    make_folder(Path(run) / "data")
    options = [f"--set={setting}" for setting in [*RECIPE_SETTINGS, f'data.train=["folder:{run}/data"]', *settings]]
    subprocess.run(["cliprl-train", "small", "--out", run, *options], check=True)
    subprocess.run(
        ["cliprl-stream", "demo:?seconds=1", "--bundle", f"{run}/bundle", "-o", f"{run}/overlay.mp4"], check=True
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
