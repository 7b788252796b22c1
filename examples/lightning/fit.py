"""Train a small network with Lightning to tell which of two noisy waves is in a signal."""

from __future__ import annotations

import argparse

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset


class WaveClassifier(L.LightningModule):
    """A network with one hidden layer."""

    def __init__(self, length: int, width: int, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(length, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 2))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss on one batch."""
        signals, labels = batch
        loss = cross_entropy(self.net(signals), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracy on held-out signals."""
        signals, labels = batch
        scores = self.net(signals)
        self.log("val_loss", cross_entropy(scores, labels))
        self.log("val_accuracy", (scores.argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One rate for all weights."""
        return torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"])


def make_signals(count: int, length: int, seed: int) -> TensorDataset:
    """Sine and square waves of any phase in noise: signals of shape (count, length), and labels."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=draw)
    phases = torch.rand(count, 1, generator=draw) + torch.linspace(0, 3, length)
    sines = torch.sin(2 * torch.pi * phases)
    waves = torch.where(labels[:, None] == 1, sines.sign(), sines)
    return TensorDataset(waves + torch.randn(count, length, generator=draw), labels)


def main() -> None:
    """Train, from the beginning or from a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--default_root_dir", default="out")
    parser.add_argument("--max_steps", type=int, default=600)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--save_steps", type=int, default=50)
    parser.add_argument("--log_steps", type=int, default=5)
    parser.add_argument("--ckpt_path", default="last")
    args = parser.parse_args()
    L.seed_everything(args.seed, workers=True)
    checkpoints = ModelCheckpoint(
        dirpath=f"{args.default_root_dir}/checkpoints",
        # The two newest ones.
        monitor="step",
        mode="max",
        save_top_k=2,
        every_n_train_steps=args.save_steps,
        save_last=True,
        save_on_exception=True,
        enable_version_counter=False,
    )
    trainer = L.Trainer(
        default_root_dir=args.default_root_dir,
        max_steps=args.max_steps,
        val_check_interval=args.save_steps,
        check_val_every_n_epoch=None,
        log_every_n_steps=args.log_steps,
        logger=CSVLogger(args.default_root_dir, name="", flush_logs_every_n_steps=args.log_steps),
        callbacks=[checkpoints],
        enable_progress_bar=False,
    )
    loaders = [
        DataLoader(make_signals(count, 48, seed), args.batch_size, shuffle=seed == 0, num_workers=args.num_workers)
        for seed, count in enumerate((4096, 1024))
    ]
    trainer.fit(WaveClassifier(48, args.width, args.lr), *loaders, ckpt_path=args.ckpt_path)


if __name__ == "__main__":
    main()
