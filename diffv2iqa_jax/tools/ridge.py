"""The linear bar: ridge regression on pooled features of frozen backbones, as a run.

  python -m diffv2iqa_jax.tools.ridge runs/ridge --config small --name biq2021 \\
      --vit deit_tiny.safetensors --resnet resnet50_layer2.safetensors

Each crop's features are mean and standard deviation over positions of every ViT block's tokens
and every ResNet stage's map; an image's are the means over its crops. The penalty is chosen by
five-fold cross-validation on the training part. What a learned head adds has to be seen beside it:
the folder is one that `report` puts into its tables.
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
from diffv2iqa_jax.evaluation import predictions
from diffv2iqa_jax.reporting import write
from diffv2iqa_jax.training import checks
from diffv2iqa_jax.weights import files as pretrained
from diffv2iqa_jax.weights import published

PENALTIES = tuple(10.0**k for k in np.arange(1, 6.5, 0.5))
FOLDS = 5


def pooled(path: str) -> Callable[[jax.Array], jax.Array]:
    """Images uint8 (B, H, W, 3) -> features (B, D) of a file that `convert` wrote.

    Raises:
      ValueError: the file is none, or of another net than a ViT or a ResNet.
    """
    weights, card = pretrained.load(path)
    if card["kind"] not in ("vit_timm", "vit_augreg", "resnet50"):
        raise ValueError(f"{path}: is a {card['kind']}; give a ViT or a ResNet")
    net = published.module(card)

    def features(image_BHWC: jax.Array) -> jax.Array:
        x = pixels.standardise(pixels.to_float(image_BHWC), **card["normalise"])
        variables = {"params": weights.params, "batch_stats": weights.stats}
        out = net.apply({k: v for k, v in variables.items() if v}, x)
        maps = [m.reshape(len(x), -1, m.shape[-1]) for m in out[0]]
        return jnp.concatenate([f(m, axis=1) for m in maps for f in (jnp.mean, jnp.std)], axis=-1)

    return jax.jit(features)


def of_images(batches: Iterable[dict], nets: list[Callable]) -> dict[str, np.ndarray]:
    """id, mos and features (N, D) of every image, in the order of the ids."""
    found: dict[int, list[np.ndarray]] = {}
    mos = {}
    for batch in batches:
        made = np.concatenate([np.asarray(net(batch["image"])) for net in nets], axis=1)
        for i in np.flatnonzero(batch["mask"] > 0):
            found.setdefault(int(batch["id"][i]), []).append(made[i])
            mos[int(batch["id"][i])] = float(batch["mos"][i])
    ids = sorted(found)
    features = np.stack([np.mean(found[i], axis=0, dtype=np.float64) for i in ids])
    return {"id": np.array(ids), "mos": np.array([mos[i] for i in ids]), "features": features}


def fit(x_ND: np.ndarray, y_N: np.ndarray, penalty: float) -> Callable[[np.ndarray], np.ndarray]:
    """Ridge regression on standardised columns; the intercept is not penalised."""
    mean, scale, level = x_ND.mean(0), x_ND.std(0) + 1e-8, y_N.mean()
    z = (x_ND - mean) / scale
    dual = np.linalg.solve(z @ z.T + penalty * np.eye(len(z)), y_N - level)
    slope = z.T @ dual
    return lambda x: (x - mean) / scale @ slope + level


def choose(x_ND: np.ndarray, y_N: np.ndarray) -> float:
    """The penalty of least squared error over FOLDS, every fifth image being one."""
    fold = np.arange(len(y_N)) % FOLDS

    def error(penalty: float) -> float:
        wrong = []
        for k in range(FOLDS):
            model = fit(x_ND[fold != k], y_N[fold != k], penalty)
            wrong.append(model(x_ND[fold == k]) - y_N[fold == k])
        return float(np.mean(np.concatenate(wrong) ** 2))

    return min(PENALTIES, key=error)


def run(config: dict, workdir: str, files: list[str]) -> dict:
    """Fits on the training part, tests on the test part, writes the run; its results."""
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
        found = run(config, o.workdir, files)["scores"]["score"]
    except (ValueError, OSError, AttributeError) as error:
        print(f"ridge: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{o.workdir}: SRCC {found['srcc']:.4f}, PLCC {found['plcc']:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
