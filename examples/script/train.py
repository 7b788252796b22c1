"""Train a small convolutional network on scikit-learn's images of digits, with checkpoints and a log of its own."""

from __future__ import annotations

import argparse
import csv
import signal
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset, random_split


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of checkpoints and log.csv")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes that load data")
    parser.add_argument("--save-every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--eval-every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--resume", type=Path, metavar="CHECKPOINT")
    return parser.parse_args()


def load_data() -> tuple[Subset, Subset]:
    """The images to train on, and those held out."""
    digits = load_digits()
    images = torch.tensor(digits.images / 16).float().unsqueeze(1)
    dataset = TensorDataset(images, torch.tensor(digits.target))
    train, test = random_split(dataset, [0.8, 0.2], torch.Generator().manual_seed(0))
    return train, test


def build_model(width: int) -> nn.Module:
    """A network for images of 8 x 8 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(32 * width, 10),
    )


@torch.no_grad()
def evaluate(model: nn.Module, dataset: Subset, device: str) -> tuple[float, float]:
    """Loss and accuracy on the held-out images."""
    model.eval()
    loss = correct = 0.0
    for images, labels in DataLoader(dataset, batch_size=256):
        scores = model(images.to(device)).cpu()
        loss += nn.functional.cross_entropy(scores, labels, reduction="sum").item()
        correct += (scores.argmax(1) == labels).sum().item()
    return loss / len(dataset), correct / len(dataset)


def main() -> None:
    """Train, from the beginning or from a checkpoint."""
    args = parse_args()
    args.out.mkdir(exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)
    train, test = load_data()
    model = build_model(args.width).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    step = 0
    if args.resume:
        state = torch.load(args.resume, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"].cpu())
        step = state["step"]
        print(f"resumed from step {step}")

    stop_requested = False

    def request_stop(number: int, frame: object) -> None:
        nonlocal stop_requested
        stop_requested = True

    signal.signal(signal.SIGTERM, request_stop)

    def save() -> None:
        path = args.out / f"step-{step:06d}.pt"
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        # Written beside it and renamed: a killed process leaves no half of a checkpoint.
        torch.save({**state, "rng": torch.get_rng_state()}, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
        for old in sorted(args.out.glob("step-*.pt"))[:-2]:
            old.unlink()

    with (args.out / "log.csv").open("a", newline="") as file:
        log = csv.DictWriter(file, ["step", "loss", "val_loss", "val_accuracy"])
        if file.tell() == 0:
            log.writeheader()
        per_epoch = len(train) // args.batch
        while step < args.steps:
            # The order of an epoch follows from its number, so that a resumed run can skip what it has seen.
            epoch, seen = divmod(step, per_epoch)
            order = torch.Generator().manual_seed(1000 * args.seed + epoch)
            loader = DataLoader(
                train, args.batch, shuffle=True, drop_last=True, generator=order, num_workers=args.workers
            )
            for number, (images, labels) in enumerate(loader):
                if number < seen:
                    continue
                loss = nn.functional.cross_entropy(model.train()(images.to(device)), labels.to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                row = {"step": step, "loss": loss.item()}
                if step % args.eval_every == 0 or step == args.steps:
                    row["val_loss"], row["val_accuracy"] = evaluate(model, test, device)
                    print(f"step {step}: loss {row['loss']:.4f}, accuracy {row['val_accuracy']:.4f}")
                log.writerow(row)
                file.flush()
                if step % args.save_every == 0 or step == args.steps or stop_requested:
                    save()
                if stop_requested:
                    print(f"stopped and saved at step {step}")
                    return
                if step == args.steps:
                    break


if __name__ == "__main__":
    main()
