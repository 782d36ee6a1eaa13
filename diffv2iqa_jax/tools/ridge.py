"""The linear bar: ridge regression on pooled features of frozen backbones, as a run.

  python -m diffv2iqa_jax.tools.ridge runs/ridge --config small --name biq2021 \\
      --vit deit_tiny.safetensors --resnet resnet50_layer2.safetensors

A crop's features are the mean and standard deviation, over positions, of every ViT block's tokens
and every ResNet stage's map; an image's features are the means over its crops. Five-fold
cross-validation on the training part chooses the penalty. `report` puts the folder into its
tables, where it shows what a learned head adds.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax import config as configs
from diffv2iqa_jax import pixels
from diffv2iqa_jax.data.rated import Rated
from diffv2iqa_jax.errors import one_line
from diffv2iqa_jax.evaluation import predictions
from diffv2iqa_jax.reporting import write
from diffv2iqa_jax.training import checks
from diffv2iqa_jax.weights import files as pretrained
from diffv2iqa_jax.weights import published

PENALTIES = tuple(10.0**k for k in np.arange(1, 6.5, 0.5))
FOLDS = 5


def pooled(path: str) -> Callable[[jax.Array], jax.Array]:
    """Images uint8 (B, H, W, 3) -> features (B, D), by a net in a file that `convert` wrote.

    Raises:
      ValueError: the file is no such file, or holds another net than a ViT or a ResNet.
    """
    weights, card = pretrained.load(path)
    if card["kind"] not in ("vit_timm", "vit_augreg", "resnet50"):
        raise ValueError(f"{path}: is a {card['kind']}; give a ViT or a ResNet")
    net = published.module(card)

    def features(image_BHWC: jax.Array) -> jax.Array:
        x_BHWC = pixels.standardise(pixels.to_float(image_BHWC), **card["normalise"])
        variables = {"params": weights.params, "batch_stats": weights.stats}
        maps, *_ = net.apply({k: v for k, v in variables.items() if v}, x_BHWC)
        maps = [m.reshape(len(x_BHWC), -1, m.shape[-1]) for m in maps]
        return jnp.concatenate([f(m, axis=1) for m in maps for f in (jnp.mean, jnp.std)], axis=-1)

    return jax.jit(features)


def of_images(batches: Iterable[dict], nets: list[Callable]) -> dict[str, np.ndarray]:
    """id, mos and features (N, D) of every image, in the order of the ids."""
    crops: dict[int, list[np.ndarray]] = {}
    mos = {}
    for batch in batches:
        features_BD = np.concatenate([np.asarray(net(batch["image"])) for net in nets], axis=1)
        for row in np.flatnonzero(batch["mask"] > 0):
            id = int(batch["id"][row])
            crops.setdefault(id, []).append(features_BD[row])
            mos[id] = float(batch["mos"][row])
    ids = sorted(crops)
    features_ND = np.stack([np.mean(crops[id], axis=0, dtype=np.float64) for id in ids])
    return {"id": np.array(ids), "mos": np.array([mos[id] for id in ids]), "features": features_ND}


def fit(x_ND: np.ndarray, y_N: np.ndarray, penalty: float) -> Callable[[np.ndarray], np.ndarray]:
    """Ridge regression on standardised columns, without a penalty on the intercept."""
    mean_D, std_D, intercept = x_ND.mean(0), x_ND.std(0) + 1e-8, y_N.mean()
    z_ND = (x_ND - mean_D) / std_D
    # The dual form: N equations, where features are many more than images.
    dual_N = np.linalg.solve(z_ND @ z_ND.T + penalty * np.eye(len(z_ND)), y_N - intercept)
    slope_D = z_ND.T @ dual_N
    return lambda x_ND: (x_ND - mean_D) / std_D @ slope_D + intercept


def choose(x_ND: np.ndarray, y_N: np.ndarray) -> float:
    """The penalty of least squared error in cross-validation; fold k is every fifth image."""
    fold = np.arange(len(y_N)) % FOLDS

    def error(penalty: float) -> float:
        errors = []
        for k in range(FOLDS):
            model = fit(x_ND[fold != k], y_N[fold != k], penalty)
            errors.append(model(x_ND[fold == k]) - y_N[fold == k])
        return float(np.mean(np.concatenate(errors) ** 2))

    return min(PENALTIES, key=error)


def run(config: dict, workdir: str, files: list[str]) -> dict:
    """Fits on the training part, tests on the test part, writes the run; returns its results.

    Args:
      config: a run's configuration; only `data` and `evaluate` matter.
      workdir: the run's folder.
      files: weights of the backbones, see `pooled`.
    """
    checks.check_data(config["data"])
    checks.check_prepared(config)
    nets = [pooled(path) for path in files]
    data = Rated(config["data"], config["evaluate"]["val_images"])
    os.makedirs(workdir, exist_ok=True)
    train, test = (of_images(data.test(ids), nets) for ids in (data.train_ids, data.test_ids))
    penalty = choose(train["features"], train["mos"])
    score = fit(train["features"], train["mos"], penalty)(test["features"])
    table = {"id": test["id"], "mos": test["mos"], "score": score}
    results = {"task": "quality", "step": 0, "part": "test", **data.protocol(config)}
    types = data.table["type"][table["id"]]
    results |= predictions.summarise("quality", table, types, span=data.span)
    results["ridge"] = {"penalty": penalty, "features": int(test["features"].shape[1])}
    predictions.write_table(os.path.join(workdir, "predictions.csv"), table, data.table)
    configs.write_json(os.path.join(workdir, "config.json"), config)
    configs.write_json(os.path.join(workdir, "results.json"), results)
    write.write(workdir)
    return results


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(prog="ridge", description=__doc__.partition("\n")[0])
    parser.add_argument("workdir", help="folder of the run to write")
    parser.add_argument("--config", default="small", help="whose data and crops, as of main")
    parser.add_argument("--name", required=True, help="data set, see diffv2iqa_jax.data.prepare")
    parser.add_argument("--folder", help="of prepared data sets, if not the configuration's")
    parser.add_argument("--vit", help="file that `convert` wrote")
    parser.add_argument("--resnet", help="file that `convert` wrote")
    o = parser.parse_args(argv)
    try:
        config = configs.plain(configs.load(o.config))
        config["data"] |= {"name": o.name} | ({"folder": o.folder} if o.folder else {})
        files = [path for path in (o.vit, o.resnet) if path]
        if not files:
            raise ValueError("no features: give --vit, --resnet or both")
        agreement = run(config, o.workdir, files)["scores"]["score"]
    except (ValueError, OSError, AttributeError) as error:
        print(f"ridge: {one_line(error)}", file=sys.stderr)
        return 2
    print(f"{o.workdir}: SRCC {agreement['srcc']:.4f}, PLCC {agreement['plcc']:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
