"""Train random configurations of a small ResNet to the end and store their learning curves.

    python -m benchmarks.search.table --data data/retinamnist.npz --trials 240 --workers 2

Each line of the output is one configuration with its validation metrics by epoch. Configurations that the output holds
already are not trained again, so the command can be stopped and repeated. On 2 cores it takes about an hour.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from dataclasses import asdict
from pathlib import Path

import optuna
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from retina.config import TrialConfig
from retina.config.sweep import SweepSpec, load
from retina.data.dataset import prepare
from retina.errors import TrainError
from retina.sweep.study import suggest
from retina.training import model
from retina.training.trainer import start_training

HERE = Path(__file__).parent
SPACE = HERE / "space.yaml"
CURVES = HERE / "curves.jsonl"
METRICS = ("val_qwk", "val_auc")


class SmallResNet(nn.Module):
    """Three stages of one basic block each (He et al. 2016), 78,000 weights; thousands of photographs/s per core.

    (B, 3, 28, 28) float -> (B, 5) logits.
    """

    def __init__(self, config: TrialConfig, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.stages = nn.Sequential(BasicBlock(width, width), _stage(width), _stage(2 * width))
        self.head = model.build_head(4 * width, config)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of the five grades."""
        features = self.stages(self.stem(images)).mean(dim=(2, 3))
        return self.head(features)


def _conv(inner: int, outer: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, kernel, stride=2, padding=kernel // 2, bias=False)


def _stage(width: int) -> BasicBlock:
    shortcut = nn.Sequential(_conv(width, 2 * width, 1), nn.BatchNorm2d(2 * width))
    return BasicBlock(width, 2 * width, stride=2, downsample=shortcut)


def configuration(spec: SweepSpec, number: int) -> TrialConfig:
    """Draw the random configuration `number`, which depends on the number alone."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
    return suggest(study.ask(), spec).model_copy(update={"seed": number})


def train(number: int, spec: SweepSpec) -> dict[str, object]:
    """Train a configuration to its end; return its settings and metrics by epoch, fewer epochs if it diverged."""
    photographs = prepare(spec.data)
    config = configuration(spec, number)
    torch.manual_seed(config.seed)
    started = time.perf_counter()
    curves: dict[str, list[float]] = {name: [] for name in METRICS}
    run = start_training(
        config, photographs.split_view("train"), photographs.split_view("val"), net=SmallResNet(config)
    )
    try:
        for epoch in run:
            for name in METRICS:
                curves[name].append(round(float(asdict(epoch)[name]), 4))
    except TrainError:
        pass  # the run diverged: its curve ends here
    seconds = round(time.perf_counter() - started, 1)
    varied = {name for name, parameter in spec.parameters.items() if "value" not in parameter.model_fields_set}
    return {"number": number, "config": config.model_dump(mode="json", include=varied), **curves, "seconds": seconds}


def _work(numbers: list[int], spec: SweepSpec, out: Path) -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for number in numbers:
        line = json.dumps(train(number, spec))
        with out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")  # one write per line, so that the workers' lines do not mix


def main() -> None:
    """Train the missing configurations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="retinamnist.npz")
    parser.add_argument("--trials", type=int, default=240)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=CURVES)
    options = parser.parse_args()
    spec = load(SPACE, data=options.data)
    prepare(spec.data)  # once, before the workers start
    done = set()
    if options.out.is_file():
        done = {json.loads(line)["number"] for line in options.out.read_text(encoding="utf-8").splitlines()}
    missing = [number for number in range(options.trials) if number not in done]
    shares = [missing[worker :: options.workers] for worker in range(options.workers)]
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(share, spec, options.out)) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a worker failed; see above")


if __name__ == "__main__":
    main()
